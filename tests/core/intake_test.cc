// SPDX-License-Identifier: Apache-2.0
// What Intake promises to runtimes, and to broken runtimes.

#include "core/intake.h"

#include <dirent.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <thread>

#include "absl/strings/str_cat.h"
#include "core/socket_file.h"
#include "tests/support/listener.h"

namespace shunt {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// As runc 1.1.5 sends it.
std::string RuncState(std::string_view id = "c1") {
  return absl::StrCat(
      R"({"ociVersion":"1.0.2-dev","fds":["seccompFd"],"pid":31343,"metadata":"my-meta=1;pod=x",)",
      R"("state":{"ociVersion":"1.0.2-dev","id":")", absl::string_view(id.data(), id.size()),
      R"(","status":"creating","pid":31343,"bundle":"/b1"}})");
}

size_t OpenDescriptors() {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {})) - 1;
}

TEST(ParseContainerStateTest, ReadsWhatRuncSends) {
  const auto state = ParseContainerState(
      R"({"ociVersion":"1.0.2-dev","fds":["seccompFd"],"pid":32115,"state":{"ociVersion":"1.0.2-dev","id":"r1",)"
      R"("status":"running","pid":32098,"bundle":"/b2","annotations":{"com.example.x":"y","io.pod":"p1"}}})");
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->id, "r1");
  EXPECT_EQ(state->pid, 32115);
  EXPECT_EQ(state->state_pid, 32098);
  EXPECT_EQ(state->status, "running");
  EXPECT_EQ(state->bundle, "/b2");
  EXPECT_EQ(state->metadata, "");
  EXPECT_EQ(state->annotations,
            (std::map<std::string, std::string>{{"com.example.x", "y"}, {"io.pod", "p1"}}));
}

TEST(ParseContainerStateTest, ReadsWhatCrunSendsForAnExecWhichHasNoPid) {
  const auto state = ParseContainerState(
      "{\n    \"ociVersion\": \"0.2.0\",\n    \"fds\": [\n        \"seccompFd\"\n    ],\n    \"pid\": 0,\n"
      "    \"metadata\": \"my-meta=1;pod=x\",\n    \"state\": {\n        \"ociVersion\": \"0.2.0\",\n"
      "        \"id\": \"c3\",\n        \"status\": \"running\",\n        \"pid\": 0,\n        \"bundle\": "
      "\".\"\n    }\n}\n");
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->id, "c3");
  EXPECT_EQ(state->pid, 0);
  EXPECT_EQ(state->metadata, "my-meta=1;pod=x");
}

TEST(ParseContainerStateTest, FindsTheListenerAmongOtherNames) {
  const auto state = ParseContainerState(R"({"fds":["a","b","seccompFd","c"],"pid":1,"state":{"id":"x"}})");
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->listener_index, 2u);
}

struct BadState {
  const char* json;
  const char* complaint;
};

TEST(ParseContainerStateTest, SaysWhatIsWrong) {
  const BadState cases[] = {
      {R"()", "not a JSON object"},
      {R"({"fds":)", "not a JSON object"},
      {R"([])", "not a JSON object"},
      {"{\"fds\":[\"seccompFd\"],\"pid\":1,\"state\":{\"id\":\"\xff\"}}", "not a JSON object"},
      {R"({"fds":["seccompFd"],"pid":1})", "\"state\""},
      {R"({"fds":["seccompFd"],"pid":1,"state":7})", "\"state\""},
      {R"({"pid":1,"state":{"id":"x"}})", "\"fds\""},
      {R"({"fds":"seccompFd","pid":1,"state":{"id":"x"}})", "\"fds\""},
      {R"({"fds":[1],"pid":1,"state":{"id":"x"}})", "\"fds\""},
      {R"({"fds":[],"pid":1,"state":{"id":"x"}})", "names 0 times"},
      {R"({"fds":["other"],"pid":1,"state":{"id":"x"}})", "names 0 times"},
      {R"({"fds":["seccompFd","seccompFd"],"pid":1,"state":{"id":"x"}})", "names 2 times"},
      {R"({"fds":["seccompFd"],"pid":"1","state":{"id":"x"}})", "\"pid\""},
      {R"({"fds":["seccompFd"],"pid":-1,"state":{"id":"x"}})", "\"pid\""},
      {R"({"fds":["seccompFd"],"pid":1.5,"state":{"id":"x"}})", "\"pid\""},
      {R"({"fds":["seccompFd"],"pid":2147483648,"state":{"id":"x"}})", "\"pid\""},
      {R"({"fds":["seccompFd"],"pid":99999999999999999999,"state":{"id":"x"}})", "\"pid\""},
      {R"({"fds":["seccompFd"],"pid":1,"state":{"id":"x","pid":[]}})", "\"pid\""},
      {R"({"fds":["seccompFd"],"pid":1,"state":{}})", "\"id\""},
      {R"({"fds":["seccompFd"],"pid":1,"state":{"id":5}})", "\"id\""},
      {R"({"fds":["seccompFd"],"pid":1,"metadata":{},"state":{"id":"x"}})", "\"metadata\""},
      {R"({"fds":["seccompFd"],"pid":1,"state":{"id":"x","annotations":[]}})", "\"annotations\""},
      {R"({"fds":["seccompFd"],"pid":1,"state":{"id":"x","annotations":{"a":1}}})", "\"annotations\""},
  };
  for (const BadState& bad : cases) {
    const auto state = ParseContainerState(bad.json);
    ASSERT_FALSE(state.ok()) << bad.json;
    EXPECT_THAT(std::string(state.status().message()), HasSubstr(bad.complaint)) << bad.json;
  }
}

TEST(ParseContainerStateTest, SurvivesAMillionOpenBraces) {
  std::string deep;
  for (int i = 0; i < 200'000; ++i) deep += "{\"a\":";
  EXPECT_FALSE(ParseContainerState(deep).ok());
  deep += "0";
  for (int i = 0; i < 200'000; ++i) deep += "}";
  EXPECT_FALSE(ParseContainerState(deep).ok());
}

TEST(ObjectScannerTest, StopsBehindTheLastBraceHoweverTheStreamIsCut) {
  const std::string object = R"( {"a":"}{\"}\\","b":{"c":[{}]}})";
  const std::string stream = object + R"({"next":1})";
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    ObjectScanner scanner;
    size_t taken = scanner.Feed(std::string_view(stream).substr(0, cut));
    taken += scanner.Feed(std::string_view(stream).substr(cut));
    EXPECT_TRUE(scanner.done());
    EXPECT_EQ(taken, object.size()) << "cut at " << cut;
  }
}

TEST(ObjectScannerTest, RefusesWhatIsNoObject) {
  for (const char* text : {"x", "[", "  \"", "}", "1"}) {
    ObjectScanner scanner;
    scanner.Feed(text);
    EXPECT_TRUE(scanner.failed()) << text;
  }
}

// An Intake that is given all who come to a socket in a folder of its own, with everything that it handed
// over.
class IntakeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string folder = absl::StrCat(::testing::TempDir(), "/intake.XXXXXX");
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    path_ = folder_ + "/agent.sock";
    listener_ = MakeListener();
    if (!listener_.valid()) GTEST_SKIP() << "no seccomp listener can be made here: " << std::strerror(errno);
  }
  void TearDown() override {
    intake_.reset();
    std::filesystem::remove_all(folder_);
  }

  void Start() {
    absl::StatusOr<SocketFile> door = SocketFile::Listen(path_);
    ASSERT_TRUE(door.ok()) << door.status();
    door_ = *std::move(door);
    auto intake = Intake::Start(options_, [this](Handover handover) { got_.push_back(std::move(handover)); });
    ASSERT_TRUE(intake.ok()) << intake.status();
    intake_ = *std::move(intake);
    descriptors_ = OpenDescriptors();
  }

  Fd Connect() {
    Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, path_.c_str());
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0)
        << std::strerror(errno);
    return fd;
  }

  static void Send(const Fd& socket, std::string_view bytes, std::vector<int> fds = {}) {
    iovec part{const_cast<char*>(bytes.data()), bytes.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    std::vector<char> control(CMSG_SPACE(fds.size() * sizeof(int)));
    if (!fds.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* rights = CMSG_FIRSTHDR(&message);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
      std::memcpy(CMSG_DATA(rights), fds.data(), fds.size() * sizeof(int));
    }
    ASSERT_EQ(sendmsg(socket.get(), &message, MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()))
        << std::strerror(errno);
  }

  // As the keeper's process does it.
  void LetIn() {
    for (;;) {
      Fd socket(accept4(door_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!socket.valid()) return;
      intake_->Adopt(++let_in_, std::move(socket));
    }
  }

  // Handles events until `enough` holds.
  template <typename Condition>
  void HandleUntil(Condition enough) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!enough()) {
      // An exception ends the test here and now: what follows would look at what has not come.
      if (std::chrono::steady_clock::now() > end) throw std::runtime_error("nothing came of it");
      std::array<pollfd, 2> wait{{{intake_->event_fd(), POLLIN, 0}, {door_.fd(), POLLIN, 0}}};
      poll(wait.data(), wait.size(), 1000);
      LetIn();
      intake_->HandleEvents();
    }
  }
  void HandleUntilHandovers(size_t count) {
    HandleUntil([&] { return got_.size() >= count; });
  }
  // Handles everything that is already there.
  void HandleAll() {
    LetIn();
    intake_->HandleEvents();
    pollfd wait{intake_->event_fd(), POLLIN, 0};
    for (int i = 0; i < 10'000 && poll(&wait, 1, 0) > 0; ++i) intake_->HandleEvents();
  }

  static std::string Complaint(const Handover& handover) { return std::string(handover.status.message()); }

  std::string folder_, path_;
  SocketFile door_;
  uint64_t let_in_ = 0;
  IntakeOptions options_;
  std::unique_ptr<Intake> intake_;
  Fd listener_;
  size_t descriptors_ = 0;  // open when the test began
  std::vector<Handover> got_;
};

TEST_F(IntakeTest, ServesAsSoonAsTheObjectIsCompleteAlthoughTheRuntimeStaysConnected) {
  Start();
  const Fd runtime = Connect();
  Send(runtime, RuncState(), {listener_.get()});
  HandleUntilHandovers(1);
  ASSERT_TRUE(got_[0].status.ok()) << got_[0].status;
  EXPECT_EQ(got_[0].state.id, "c1");
  EXPECT_EQ(got_[0].state.metadata, "my-meta=1;pod=x");
  EXPECT_EQ(got_[0].peer.uid, getuid());
  EXPECT_EQ(got_[0].peer.pid, getpid());
  ASSERT_THAT(got_[0].listeners, SizeIs(1));
  EXPECT_NE(fcntl(got_[0].listeners[0].get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST_F(IntakeTest, LosesNoDescriptorOnceTheRuntimeLeaves) {
  Start();
  {
    const Fd runtime = Connect();
    Send(runtime, RuncState(), {listener_.get()});
    HandleUntilHandovers(1);
  }
  HandleUntil([&] { return intake_->connections() == 0; });
  got_.clear();
  EXPECT_EQ(OpenDescriptors(), descriptors_);
}

TEST_F(IntakeTest, TakesAnObjectByteByByte) {
  Start();
  const Fd runtime = Connect();
  const std::string state = RuncState();
  Send(runtime, state.substr(0, 1), {listener_.get()});
  for (char byte : state.substr(1)) {
    EXPECT_THAT(got_, IsEmpty());
    Send(runtime, std::string_view(&byte, 1));
    HandleAll();
  }
  HandleUntilHandovers(1);
  EXPECT_TRUE(got_[0].status.ok()) << got_[0].status;
}

TEST_F(IntakeTest, TakesALargeStateInManyPiecesWithTheListenerBesideTheLast) {
  Start();
  const Fd runtime = Connect();
  const std::string state =
      absl::StrCat(R"({"pid":5,"fds":["seccompFd"],"state":{"id":"big","annotations":{"a":")",
                   std::string(300'000, '}'), R"("}}})");
  size_t at = 0;
  for (; at + 1000 < state.size(); at += 1000) {
    Send(runtime, std::string_view(state).substr(at, 1000));
    HandleAll();
  }
  Send(runtime, std::string_view(state).substr(at), {listener_.get()});
  HandleUntilHandovers(1);
  ASSERT_TRUE(got_[0].status.ok()) << got_[0].status;
  EXPECT_EQ(got_[0].state.annotations.at("a").size(), 300'000u);
}

TEST_F(IntakeTest, IsNotFooledByBracesInStrings) {
  Start();
  const Fd runtime = Connect();
  Send(runtime, R"({"fds":["seccompFd"],"pid":1,"metadata":"}}\"}\\","state":{"id":"{\\\"{"}})",
       {listener_.get()});
  HandleUntilHandovers(1);
  ASSERT_TRUE(got_[0].status.ok()) << got_[0].status;
  EXPECT_EQ(got_[0].state.metadata, "}}\"}\\");
  EXPECT_EQ(got_[0].state.id, "{\\\"{");
}

TEST_F(IntakeTest, GivesEachOfTwoObjectsBackToBackItsOwnDescriptors) {
  Start();
  const Fd runtime = Connect();
  const std::string first = RuncState("first");
  // The kernel glues the second piece to the third, which is another object with a descriptor of its own.
  Send(runtime, first.substr(0, 20), {listener_.get()});
  Send(runtime, first.substr(20));
  Send(runtime, RuncState("second"), {listener_.get()});
  HandleUntilHandovers(2);
  for (const Handover& handover : got_) EXPECT_TRUE(handover.status.ok()) << handover.status;
  EXPECT_EQ(got_[0].state.id, "first");
  EXPECT_EQ(got_[1].state.id, "second");
}

TEST_F(IntakeTest, ClosesTheDescriptorsThatAreNotTheListener) {
  Start();
  const Fd runtime = Connect();
  Send(runtime, R"({"fds":["a","seccompFd"],"pid":1,"state":{"id":"x"}})",
       {STDIN_FILENO, listener_.get(), STDIN_FILENO, STDIN_FILENO, STDIN_FILENO});
  HandleUntilHandovers(1);
  ASSERT_TRUE(got_[0].status.ok()) << got_[0].status;
  EXPECT_EQ(OpenDescriptors(), descriptors_ + 3);  // the runtime's end, our end, the listener
}

TEST_F(IntakeTest, TruncatedObjectIsAnErrorThatKeepsTheListener) {
  Start();
  {
    const Fd runtime = Connect();
    Send(runtime, R"({"fds":["seccompFd"],"pid":1,"sta)", {listener_.get(), STDIN_FILENO});
  }
  HandleUntilHandovers(1);
  EXPECT_THAT(Complaint(got_[0]), HasSubstr("ends in the middle"));
  EXPECT_THAT(got_[0].listeners, SizeIs(1));
  EXPECT_EQ(OpenDescriptors(), descriptors_ + 1);
}

TEST_F(IntakeTest, UnusableStatesKeepTheListenersToo) {
  Start();
  const Fd runtime = Connect();
  Send(runtime, R"({"fds":["other"],"pid":1,"state":{"id":"x"}})", {listener_.get()});
  Send(runtime, R"({"fds":["seccompFd","seccompFd"],"pid":1,"state":{"id":"x"}})",
       {listener_.get(), listener_.get()});
  Send(runtime, R"({"nonsense":{}})", {listener_.get()});
  Send(runtime, R"(nonsense)", {listener_.get()});
  HandleUntilHandovers(4);
  EXPECT_THAT(Complaint(got_[0]), HasSubstr("names 0 times"));
  EXPECT_THAT(got_[0].listeners, SizeIs(1));
  EXPECT_THAT(Complaint(got_[1]), HasSubstr("names 2 times"));
  EXPECT_THAT(got_[1].listeners, SizeIs(2));
  EXPECT_THAT(got_[2].listeners, SizeIs(1));
  EXPECT_THAT(Complaint(got_[3]), HasSubstr("does not begin with {"));
  EXPECT_THAT(got_[3].listeners, SizeIs(1));
  EXPECT_EQ(intake_->connections(), 0u);
}

TEST_F(IntakeTest, RefusesDescriptorsThatAreNoListener) {
  Start();
  const Fd runtime = Connect();
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  const Fd pipe_read(pipe_fds[0]);
  const Fd pipe_write(pipe_fds[1]);
  const Fd path(open("/", O_PATH | O_CLOEXEC));
  const Fd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  size_t count = 0;
  for (int fd : {pipe_read.get(), path.get(), null.get(), runtime.get()}) {
    Send(runtime, RuncState(), {fd});
    HandleUntilHandovers(++count);
    EXPECT_THAT(Complaint(got_.back()), HasSubstr("no seccomp listener"));
    EXPECT_THAT(got_.back().listeners, IsEmpty());
  }
  Send(runtime, RuncState());
  HandleUntilHandovers(++count);
  EXPECT_THAT(Complaint(got_.back()), HasSubstr("but 0 came"));
  EXPECT_EQ(OpenDescriptors(), descriptors_ + 6);
}

TEST_F(IntakeTest, SurvivesMoreDescriptorsThanItTakes) {
  Start();
  Fd runtime = Connect();
  Send(runtime, RuncState(), std::vector<int>(Intake::kDescriptors + 1, listener_.get()));
  HandleUntilHandovers(1);
  EXPECT_THAT(Complaint(got_[0]), HasSubstr("more than 64 descriptors"));
  EXPECT_THAT(got_[0].listeners, SizeIs(Intake::kDescriptors + 1));
  runtime = Connect();
  Send(runtime, "{", std::vector<int>(Intake::kDescriptors, STDIN_FILENO));
  Send(runtime, " ", {STDIN_FILENO});
  HandleUntilHandovers(2);
  EXPECT_THAT(Complaint(got_[1]), HasSubstr("more than 64 descriptors"));
  runtime.reset();
  HandleAll();
  got_.clear();
  EXPECT_EQ(OpenDescriptors(), descriptors_);
}

TEST_F(IntakeTest, RefusesAnObjectWithoutEnd) {
  options_.object_bytes = 10'000;
  Start();
  const Fd runtime = Connect();
  Send(runtime, "{\"a\":\"" + std::string(10'000, 'x'), {listener_.get()});
  HandleUntilHandovers(1);
  EXPECT_THAT(Complaint(got_[0]), HasSubstr("longer than 10000 bytes"));
  EXPECT_THAT(got_[0].listeners, SizeIs(1));
  EXPECT_EQ(intake_->connections(), 0u);
}

TEST_F(IntakeTest, AConnectionThatComesAndGoesWithoutAWordIsNoError) {
  Start();
  { const Fd runtime = Connect(); }
  HandleUntil([&] { return intake_->connections() == 0; });
  HandleAll();
  EXPECT_THAT(got_, IsEmpty());
  EXPECT_EQ(OpenDescriptors(), descriptors_);
}

TEST_F(IntakeTest, SilenceEndsTheConnectionQuietly) {
  options_.silence = milliseconds(20);
  Start();
  const Fd runtime = Connect();
  HandleUntil([&] { return intake_->connections() == 1; });
  HandleUntil([&] { return intake_->connections() == 0; });
  EXPECT_THAT(got_, IsEmpty());
}

TEST_F(IntakeTest, AnObjectThatIsNotFinishedInTimeIsAnError) {
  options_.patience = milliseconds(20);
  Start();
  const Fd runtime = Connect();
  Send(runtime, "{", {listener_.get()});
  HandleUntilHandovers(1);
  EXPECT_THAT(Complaint(got_[0]), HasSubstr("not complete in time"));
  EXPECT_THAT(got_[0].listeners, SizeIs(1));
  EXPECT_EQ(intake_->connections(), 0u);
}

TEST_F(IntakeTest, ServesAContainerBehindTenThousandSilentConnections) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_max < 10'500) GTEST_SKIP() << "needs 10500 descriptors, has " << limit.rlim_max;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  options_.patience = std::chrono::minutes(5);  // whatever the crowd takes to come
  Start();
  const Fd slow = Connect();  // has begun to speak, and is therefore not in the way of anybody
  const std::string state = RuncState("slow");
  Send(slow, state.substr(0, 50), {listener_.get()});
  HandleUntil([&] { return intake_->connections() == 1; });

  std::vector<Fd> crowd;
  for (int i = 0; i < 10'000; ++i) {
    crowd.push_back(Connect());
    if (i % 100 == 0) HandleAll();
    ASSERT_LE(intake_->connections(), options_.connections);
  }
  const Fd runtime = Connect();
  Send(runtime, RuncState("behind"), {listener_.get()});
  Send(slow, state.substr(50));
  const auto served = [&](std::string_view id) {
    return std::any_of(got_.begin(), got_.end(),
                       [&](const Handover& h) { return h.status.ok() && h.state.id == id; });
  };
  HandleUntil([&] { return served("behind") && served("slow"); });
  // About the crowd there are a few words, not ten thousand.
  EXPECT_LT(got_.size(), 100u);
  EXPECT_GT(got_.size(), 2u);
  EXPECT_THAT(Complaint(got_[0]), HasSubstr("silent, and closed"));
  crowd.clear();
  HandleUntil([&] { return intake_->connections() <= 2; });
}

TEST_F(IntakeTest, AsksAgainAndAgainForConnectionsForWhichThereWasNoDescriptor) {
  std::vector<uint64_t> asked;
  options_.ask = [&asked](uint64_t name) { asked.push_back(name); };
  Start();
  intake_->Adopt(101, Fd());
  intake_->Adopt(102, Fd());
  HandleUntil([&] { return asked.size() == 1; });
  EXPECT_THAT(asked, ElementsAre(101));
  EXPECT_THAT(Complaint(got_[0]), HasSubstr("no descriptor is free for a new connection"));
  intake_->Adopt(101, Fd());
  HandleUntil([&] { return asked.size() == 2; });
  EXPECT_THAT(asked, ElementsAre(101, 102)) << "one cannot keep the other from its turn";

  const Fd runtime = Connect();
  Send(runtime, RuncState(), {listener_.get()});
  intake_->Adopt(102, Fd(accept4(door_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)));
  HandleUntil([&] { return got_.back().status.ok(); });
  HandleUntil([&] { return asked.size() == 3; });
  EXPECT_THAT(asked, ElementsAre(101, 102, 101));
}

TEST_F(IntakeTest, DoesNothingWithAConnectionUntilItHandlesEvents) {
  std::vector<uint64_t> dropped;
  options_.drop = [&dropped](uint64_t name) { dropped.push_back(name); };
  options_.connections = 1;
  Start();
  std::vector<Fd> runtimes;
  for (int i = 0; i < 3; ++i) runtimes.push_back(Connect());
  Send(runtimes[0], RuncState(), {listener_.get()});
  LetIn();
  EXPECT_EQ(intake_->connections(), 0u);
  EXPECT_THAT(dropped, IsEmpty());
  EXPECT_THAT(got_, IsEmpty());
  HandleUntil([&] { return dropped.size() == 2; });
  EXPECT_THAT(dropped, ElementsAre(1, 2)) << "the one that has brought its container, then the silent one";
  EXPECT_EQ(intake_->connections(), 1u);
}

TEST_F(IntakeTest, TurnsStrangersAwayWithWhatTheySentAndServesTheUsersThatAreAllowed) {
  if (getuid() != 0) GTEST_SKIP() << "only root can be several users";
  constexpr uid_t kStranger = 7331;
  Start();
  ASSERT_EQ(chmod(path_.c_str(), 0666), 0);
  ASSERT_EQ(chmod(folder_.c_str(), 0755), 0);
  std::array<int, 2> pipe_ends;
  ASSERT_EQ(pipe2(pipe_ends.data(), O_CLOEXEC), 0);
  const Fd watched(pipe_ends[0]);
  Fd sent(pipe_ends[1]);
  const auto connect_as_stranger = [&] {
    const pid_t child = fork();
    if (child == 0) {
      // The credentials of a connection are those of its connect(); only this thread may change its user id.
      if (syscall(SYS_setresuid, kStranger, kStranger, kStranger) != 0) _exit(1);
      const Fd runtime = Connect();
      Send(runtime, RuncState("stranger"), {sent.valid() ? sent.get() : listener_.get()});
      char byte = 0;
      _exit(read(runtime.get(), &byte, 1) <= 0 ? 0 : 1);  // until the intake closes
    }
    return child;
  };
  const pid_t first = connect_as_stranger();
  HandleUntilHandovers(1);
  EXPECT_EQ(got_[0].status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(got_[0].peer.uid, kStranger);
  EXPECT_THAT(std::string(got_[0].status.message()),
              AllOf(HasSubstr(absl::StrCat("process ", first, " of user 7331")), HasSubstr("allow-uids")));
  EXPECT_THAT(got_[0].listeners, IsEmpty());
  int status = 0;
  ASSERT_EQ(waitpid(first, &status, 0), first);
  sent.reset();
  pollfd hung_up{watched.get(), 0, 0};
  EXPECT_EQ(poll(&hung_up, 1, 0), 1) << "somebody still holds the descriptor that was sent";

  intake_->Allow(PeerRule({kStranger}));
  const pid_t second = connect_as_stranger();
  HandleUntilHandovers(2);
  EXPECT_TRUE(got_[1].status.ok()) << got_[1].status;
  EXPECT_EQ(got_[1].peer.uid, kStranger);
  kill(second, SIGKILL);
  ASSERT_EQ(waitpid(second, &status, 0), second);
}

}  // namespace
}  // namespace shunt
