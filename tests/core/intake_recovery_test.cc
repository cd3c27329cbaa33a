// SPDX-License-Identifier: Apache-2.0
// What becomes of a container that is being handed over while engines die, or descriptors are short.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/intake.h"
#include "tests/support/listener.h"

namespace shunt {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kState[] = R"({"fds":["seccompFd"],"pid":1,"state":{"id":"c1"}})";

class IntakeRecoveryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    listener_ = MakeListener();
    if (!listener_.valid()) GTEST_SKIP() << "no seccomp listener can be made here: " << std::strerror(errno);
    std::array<int, 2> ends;
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()), 0);
    runtime_.reset(ends[0]);
    held_.reset(ends[1]);
  }

  void Send(std::string_view bytes, bool with_listener = true) const {
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    iovec part{const_cast<char*>(bytes.data()), bytes.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (with_listener) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* const rights = CMSG_FIRSTHDR(&message);
      *rights = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
      const int fd = listener_.get();
      std::memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
    }
    ASSERT_EQ(sendmsg(runtime_.get(), &message, MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }

  // An engine's Intake, which was given the connection under the name 7.
  std::unique_ptr<Intake> Engine(Intake::Receiver receive) {
    IntakeOptions options;
    options.drop = [this](uint64_t name) { dropped_.push_back(name); };
    auto intake = Intake::Start(std::move(options), std::move(receive));
    if (!intake.ok()) return nullptr;
    (*intake)->Adopt(7, Fd(fcntl(held_.get(), F_DUPFD_CLOEXEC, 0)));
    return *std::move(intake);
  }
  Intake::Receiver Collect() {
    return [this](Handover handover) { got_.push_back(std::move(handover)); };
  }
  // Handles what is there, and waits for as long as nothing has come of it.
  void HandleUntilHandovers(Intake& intake, size_t count) const {
    for (int i = 0; i < 100 && got_.size() < count; ++i) {
      pollfd ready{intake.event_fd(), POLLIN, 0};
      poll(&ready, 1, 1000);
      intake.HandleEvents();
    }
    ASSERT_GE(got_.size(), count);
  }
  // An engine that dies as soon as it knows what it was given.
  void LetAnEngineDieOfIt() {
    const pid_t child = fork();
    if (child == 0) {
      const auto intake = Engine([](Handover) { _exit(7); });
      for (;;) {
        pollfd ready{intake->event_fd(), POLLIN, 0};
        if (poll(&ready, 1, 10'000) == 0) _exit(1);
        intake->HandleEvents();
      }
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_EQ(WEXITSTATUS(status), 7);
  }
  bool IsListener(const Fd& fd) const {
    return syscall(SYS_kcmp, getpid(), getpid(), 0 /* KCMP_FILE */, fd.get(), listener_.get()) == 0;
  }

  Fd listener_, runtime_, held_;
  std::vector<Handover> got_;
  std::vector<uint64_t> dropped_;
};

TEST_F(IntakeRecoveryTest, TheNextEngineFindsWhatOneHasDiedOf) {
  Send(kState);
  LetAnEngineDieOfIt();
  const auto intake = Engine(Collect());
  HandleUntilHandovers(*intake, 1);
  ASSERT_TRUE(got_[0].status.ok()) << got_[0].status;
  EXPECT_EQ(got_[0].state.id, "c1");
  EXPECT_TRUE(got_[0].again);
  ASSERT_THAT(got_[0].listeners, SizeIs(1));
  EXPECT_TRUE(IsListener(got_[0].listeners[0]));
}

TEST_F(IntakeRecoveryTest, WhatHasBeenReceivedIsNotFoundAgain) {
  Send(kState);
  {
    const auto intake = Engine(Collect());
    HandleUntilHandovers(*intake, 1);
  }
  Send(R"({"fds":["seccompFd"],"pid":1,"state":{"id":"c2"}})");
  const auto intake = Engine(Collect());
  HandleUntilHandovers(*intake, 2);
  EXPECT_EQ(got_[1].state.id, "c2") << got_[1].status;
  EXPECT_THAT(got_, SizeIs(2));
}

TEST_F(IntakeRecoveryTest, AStateOfManyMessagesIsReadWholeWithItsOneListener) {
  // Longer than any one message in the socket.
  Send(R"({"fds":["seccompFd"],"pid":1,"state":{"id":"c1","annotations":{"a":")" + std::string(150'000, 'x') +
       R"("}}})");
  const auto intake = Engine(Collect());
  HandleUntilHandovers(*intake, 1);
  ASSERT_TRUE(got_[0].status.ok()) << got_[0].status;
  EXPECT_EQ(got_[0].state.annotations.at("a").size(), 150'000u);
  char byte = 0;
  EXPECT_EQ(recv(held_.get(), &byte, 1, MSG_DONTWAIT), -1) << "something is still in the socket";
}

TEST_F(IntakeRecoveryTest, WhatOneEngineAfterTheOtherDiesOfIsNotLookedIntoAnyMore) {
  Send(kState);
  for (int i = 0; i < 3; ++i) LetAnEngineDieOfIt();
  const auto intake = Engine(Collect());
  HandleUntilHandovers(*intake, 1);
  EXPECT_THAT(std::string(got_[0].status.message()), HasSubstr("3 engines have ended"));
  ASSERT_THAT(got_[0].listeners, SizeIs(1));
  EXPECT_TRUE(IsListener(got_[0].listeners[0]));
  EXPECT_EQ(intake->connections(), 0u);
  EXPECT_THAT(dropped_, ElementsAre(7));
}

TEST_F(IntakeRecoveryTest, AConnectionIsKeptUntilItsEnd) {
  Send(kState);
  const auto intake = Engine(Collect());
  HandleUntilHandovers(*intake, 1);
  EXPECT_THAT(dropped_, IsEmpty());
  runtime_.reset();
  intake->HandleEvents();
  EXPECT_THAT(dropped_, ElementsAre(7));
}

TEST_F(IntakeRecoveryTest, AListenerForWhichThereIsNoDescriptorWaitsInItsSocket) {
  const auto intake = Engine(Collect());
  ASSERT_NE(intake, nullptr);
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  std::vector<Fd> filled;
  rlimit tight = limit;
  tight.rlim_cur = 200;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &tight), 0);
  while (filled.empty() || filled.back().valid()) filled.emplace_back(fcntl(0, F_DUPFD_CLOEXEC, 0));
  Send(kState);
  HandleUntilHandovers(*intake, 1);
  EXPECT_THAT(std::string(got_[0].status.message()), HasSubstr("no descriptor is free for a container's"));
  EXPECT_THAT(got_[0].listeners, IsEmpty());
  filled.clear();
  HandleUntilHandovers(*intake, 2);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  ASSERT_TRUE(got_[1].status.ok()) << got_[1].status;
  ASSERT_THAT(got_[1].listeners, SizeIs(1));
  EXPECT_TRUE(IsListener(got_[1].listeners[0]));
}

}  // namespace
}  // namespace shunt
