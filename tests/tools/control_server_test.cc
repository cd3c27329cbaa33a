// SPDX-License-Identifier: Apache-2.0
// The control socket's server, between clients that read at once, late, or not at all.

#include "tools/control_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <string>
#include <utility>

namespace shunt {
namespace {

constexpr int kTurns = 100'000;  // of the server, at most, in each test

class ControlServerTest : public ::testing::Test {
 protected:
  ControlServerTest() {
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
    const std::string path = folder_ + "/s";
    address_.sun_family = AF_UNIX;
    path.copy(address_.sun_path, sizeof(address_.sun_path) - 1);
    Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    EXPECT_EQ(bind(socket.get(), reinterpret_cast<const sockaddr*>(&address_), sizeof address_), 0);
    EXPECT_EQ(listen(socket.get(), 8), 0);
    auto server = ControlServer::Start(
        std::move(socket), [this](const std::string& command) { return command == "later" ? "" : answer_; });
    EXPECT_TRUE(server.ok());
    server_ = *std::move(server);
  }
  ~ControlServerTest() override {
    unlink(address_.sun_path);
    rmdir(folder_.c_str());
  }

  Fd Ask(const std::string& command) {
    Fd client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect(client.get(), reinterpret_cast<const sockaddr*>(&address_), sizeof address_), 0);
    EXPECT_EQ(write(client.get(), command.data(), command.size()), static_cast<ssize_t>(command.size()));
    Turn();
    Turn();  // the first one has accepted it
    return client;
  }

  void Turn() { server_->HandleEvents(); }

  bool ServerHasSomethingToDo() const {
    pollfd poll{.fd = server_->event_fd(), .events = POLLIN, .revents = 0};
    return ::poll(&poll, 1, 0) == 1;
  }

  // Everything up to the end of the connection, while the server works whenever it has something to do.
  std::string ReadAll(const Fd& client) {
    std::string text;
    std::array<char, 65536> chunk{};
    for (int turn = 0; turn < kTurns; ++turn) {
      if (ServerHasSomethingToDo()) Turn();
      const ssize_t got = recv(client.get(), chunk.data(), chunk.size(), MSG_DONTWAIT);
      if (got == 0) return text;
      if (got > 0) text.append(chunk.data(), static_cast<size_t>(got));
    }
    ADD_FAILURE() << "the answer has no end";
    return text;
  }

  std::string folder_ = "/tmp/shunt-control-XXXXXX";
  sockaddr_un address_{};
  std::string answer_ = "{}";
  std::unique_ptr<ControlServer> server_;
};

TEST_F(ControlServerTest, AnswersALine) {
  const Fd client = Ask("status\n");
  EXPECT_EQ(ReadAll(client), "{}\n");
}

TEST_F(ControlServerTest, AnAnswerThatIsLongerThanTheSocketsBufferArrivesAsItIsRead) {
  for (int i = 0; i < 2'000'000; ++i) answer_ += static_cast<char>('a' + i % 23);
  const Fd client = Ask("services\n");
  EXPECT_FALSE(ServerHasSomethingToDo()) << "it would turn and turn while the client does not read";
  EXPECT_EQ(ReadAll(client), answer_ + "\n");
}

TEST_F(ControlServerTest, AClientThatLeavesInTheMiddleOfItsAnswerIsForgotten) {
  answer_.assign(2'000'000, 'x');
  Ask("services\n");
  EXPECT_TRUE(ServerHasSomethingToDo());
  Turn();
  EXPECT_FALSE(ServerHasSomethingToDo());
  answer_ = "{}";
  const Fd client = Ask("status\n");
  EXPECT_EQ(ReadAll(client), "{}\n");
}

TEST_F(ControlServerTest, ThoseWhoWaitAreAnsweredTogetherAndNobodyTwice) {
  const Fd first = Ask("later\n");
  const Fd second = Ask("later\n");
  std::string sent(2'000'000, 'x');
  answer_ = sent;
  const Fd reader = Ask("services\n");
  server_->AnswerWaiting("done");
  EXPECT_EQ(ReadAll(first), "done\n");
  EXPECT_EQ(ReadAll(second), "done\n");
  EXPECT_EQ(ReadAll(reader), sent + "\n");
}

}  // namespace
}  // namespace shunt
