// SPDX-License-Identifier: Apache-2.0
// EpollMigration under a real filter: a child registers its socket in epoll, connects, and finds its
// registration alive on the twin that this process has put in the socket's place.

#include "net/epoll_migration.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <future>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/seccomp_child.h"

// In the child: the line that went wrong becomes visible, and the exit status says that something did.
#define CHILD_CHECK(condition)                                                                      \
  do {                                                                                              \
    if (!(condition)) {                                                                             \
      std::fprintf(stderr, "child: line %d: %s: %s\n", __LINE__, #condition, std::strerror(errno)); \
      return 1;                                                                                     \
    }                                                                                               \
  } while (false)

namespace shunt::net {
namespace {

using testing_support::SeccompChild;

constexpr uint64_t kData = 0x1122334455667788;
constexpr uint64_t kOtherData = 0xfedcba9876543210;

int Add(int epoll, int fd, uint32_t events, uint64_t data, int operation = EPOLL_CTL_ADD) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = data;
  return epoll_ctl(epoll, operation, fd, &event);
}

// The next event, or events == 0 after `timeout_ms`.
epoll_event Next(int epoll, int timeout_ms = 10000) {
  epoll_event event{};
  if (epoll_wait(epoll, &event, 1, timeout_ms) != 1) event.events = 0;
  return event;
}

int EntriesOf(int epoll) {
  std::ifstream fdinfo("/proc/self/fdinfo/" + std::to_string(epoll));
  int entries = 0;
  for (std::string line; std::getline(fdinfo, line);) entries += line.rfind("tfd:", 0) == 0;
  return entries;
}

// The child's connect. The address goes nowhere: the parent answers.
int Connect(int fd) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(1);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
}

int NewSocket() {
  return socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

class EpollMigrationTest : public testing::Test {
 protected:
  void SetUp() override {
    auto side = SideThread::Start();
    ASSERT_TRUE(side.ok()) << side.status();
    side_ = std::move(*side);
    server_.reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(bind(server_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    ASSERT_EQ(listen(server_.get(), 8), 0);
  }

  Result<void> RunOnSideThread(EpollMigration* job) {
    EXPECT_TRUE(side_->Submit(job));
    pollfd readable{side_->completion_fd(), POLLIN, 0};
    EXPECT_EQ(poll(&readable, 1, 10000), 1) << "the job does not end";
    uint64_t count = 0;
    EXPECT_EQ(read(side_->completion_fd(), &count, sizeof(count)), static_cast<ssize_t>(sizeof(count)));
    EXPECT_EQ(side_->TakeFinished(), job);
    return job->result();
  }

  // Plays the engine for one connect of the child: migration, swap, connect of the twin, answer. What it
  // found out is in epolls_, watchers_ and migrated_; the far end of the connection in peer_.
  void ServeConnect(const SeccompChild& child) {
    const auto call = child.Receive();
    ASSERT_TRUE(call.has_value());
    const int number = static_cast<int>(call->data.args[0]);
    Fd old(static_cast<int>(syscall(SYS_pidfd_getfd, child.pidfd(), number, 0)));
    ASSERT_TRUE(old.valid());
    const auto epolls = FindEpolls(static_cast<pid_t>(call->pid));
    ASSERT_TRUE(epolls.has_value()) << std::strerror(epolls.error().code);
    epolls_ = *epolls;
    const auto watchers = FindWatchers(static_cast<pid_t>(call->pid), number, old.get(), epolls_);
    ASSERT_TRUE(watchers.has_value()) << std::strerror(watchers.error().code);
    watchers_ = *watchers;
    const Fd twin(NewSocket());
    EpollMigration migration(child.pidfd(), number, old.get(), twin.get(), watchers_);
    migrated_ = RunOnSideThread(&migration);
    if (!migrated_) {
      ASSERT_TRUE(child.Answer(*call, 0, EHOSTUNREACH));
      return;
    }
    ASSERT_TRUE(child.Install(*call, twin.get(), number)) << std::strerror(errno);
    old.reset();
    sockaddr_in address{};
    socklen_t size = sizeof(address);
    ASSERT_EQ(getsockname(server_.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    ASSERT_TRUE(connect(twin.get(), reinterpret_cast<sockaddr*>(&address), size) == 0 ||
                errno == EINPROGRESS);
    peer_.reset(accept4(server_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    ASSERT_TRUE(peer_.valid());
    ASSERT_TRUE(child.Answer(*call, 0));
  }

  // The child asks for a byte from the far end by getppid(), which is trapped for that.
  void ServeByte(const SeccompChild& child) {
    const auto call = child.Receive();
    ASSERT_TRUE(call.has_value());
    ASSERT_EQ(write(peer_.get(), "x", 1), 1);
    ASSERT_TRUE(child.Answer(*call, 0));
  }

  // One connect and `bytes` bytes, and the child agrees.
  void Run(const std::function<int()>& body, int bytes = 0) {
    SeccompChild child({SYS_connect, SYS_getppid}, body);
    ASSERT_TRUE(child.ok()) << std::strerror(errno);
    ASSERT_NO_FATAL_FAILURE(ServeConnect(child));
    for (int i = 0; i < bytes; ++i) ASSERT_NO_FATAL_FAILURE(ServeByte(child));
    EXPECT_EQ(child.Wait(), 0);
  }

  std::unique_ptr<SideThread> side_;
  Fd server_;
  Fd peer_;
  EpollSet epolls_;
  EpollSet watchers_;
  Result<void> migrated_;
};

void AskForByte() {
  syscall(SYS_getppid);
}

// The socket at `number`, if that is not negative.
int LevelTriggered(int number) {
  const int low = epoll_create1(0);
  const int epoll = fcntl(low, F_DUPFD, 100);
  CHILD_CHECK(close(low) == 0);
  int fd = NewSocket();
  if (number >= 0 && number != fd) {
    CHILD_CHECK(dup2(fd, number) == number && close(fd) == 0);  // no second reference to the file may be left
    fd = number;
  }
  CHILD_CHECK(Add(epoll, fd, EPOLLIN | EPOLLOUT, kData) == 0);
  CHILD_CHECK(Connect(fd) == 0);
  CHILD_CHECK(EntriesOf(epoll) == 1);
  epoll_event event = Next(epoll);
  CHILD_CHECK(event.events == EPOLLOUT && event.data.u64 == kData);
  AskForByte();
  event = Next(epoll);
  CHILD_CHECK(event.events == (EPOLLIN | EPOLLOUT) && event.data.u64 == kData);
  CHILD_CHECK(Add(epoll, fd, EPOLLIN, kOtherData, EPOLL_CTL_MOD) == 0);
  event = Next(epoll);
  CHILD_CHECK(event.events == EPOLLIN && event.data.u64 == kOtherData);
  event = Next(epoll);
  CHILD_CHECK(event.events == EPOLLIN);  // level: again
  CHILD_CHECK(Add(epoll, fd, EPOLLIN, 0) == -1 && errno == EEXIST);
  CHILD_CHECK(epoll_ctl(epoll, EPOLL_CTL_DEL, fd, nullptr) == 0);
  CHILD_CHECK(Next(epoll, 0).events == 0);
  CHILD_CHECK(EntriesOf(epoll) == 0);
  return 0;
}

TEST_F(EpollMigrationTest, ALevelTriggeredRegistrationLivesOnAndTakesModAndDel) {
  Run([] { return LevelTriggered(-1); }, 1);
  EXPECT_EQ(watchers_.count, 1U);
}

// 0 to 12 are numbers that the side thread uses itself.
TEST_F(EpollMigrationTest, TheNumberMayBeAnyThatTheSideThreadUsesItself) {
  for (int number = 5; number <= 12; ++number) {
    SCOPED_TRACE(number);
    Run([number] { return LevelTriggered(number); }, 1);
  }
  SCOPED_TRACE("stdin");
  Run([] { return LevelTriggered(0); }, 1);
}

TEST_F(EpollMigrationTest, AHighNumberWorks) {
  Run([] { return LevelTriggered(1000); }, 1);
}

TEST_F(EpollMigrationTest, AnEdgeIsReportedOnceAndAgainForNewBytes) {
  Run(
      [] {
        const int epoll = epoll_create1(0);
        const int fd = NewSocket();
        CHILD_CHECK(Add(epoll, fd, EPOLLIN | EPOLLOUT | EPOLLET, kData) == 0);
        CHILD_CHECK(Connect(fd) == 0);
        CHILD_CHECK(Next(epoll).events == EPOLLOUT);
        CHILD_CHECK(Next(epoll, 0).events == 0);
        AskForByte();
        const epoll_event event = Next(epoll);
        CHILD_CHECK(event.events == (EPOLLIN | EPOLLOUT) && event.data.u64 == kData);
        CHILD_CHECK(Next(epoll, 0).events == 0);
        AskForByte();
        CHILD_CHECK((Next(epoll).events & EPOLLIN) != 0);
        return 0;
      },
      2);
}

TEST_F(EpollMigrationTest, AnArmedOneshotFiresOnceUntilItIsArmedAgain) {
  Run(
      [] {
        const int epoll = epoll_create1(0);
        const int fd = NewSocket();
        CHILD_CHECK(Add(epoll, fd, EPOLLOUT | EPOLLONESHOT, kData) == 0);
        CHILD_CHECK(Connect(fd) == 0);
        const epoll_event event = Next(epoll);
        CHILD_CHECK(event.events == EPOLLOUT && event.data.u64 == kData);
        AskForByte();
        CHILD_CHECK(Next(epoll, 0).events == 0);
        CHILD_CHECK(Add(epoll, fd, EPOLLIN | EPOLLONESHOT, kOtherData, EPOLL_CTL_MOD) == 0);
        CHILD_CHECK(Next(epoll).data.u64 == kOtherData);
        return 0;
      },
      1);
}

TEST_F(EpollMigrationTest, AOneshotThatHasFiredMeansTheOrdinaryPathAndIsLeftAsItWas) {
  Run([] {
    const int epoll = epoll_create1(0);
    const int fd = NewSocket();
    CHILD_CHECK(Add(epoll, fd, EPOLLOUT | EPOLLONESHOT, kData) == 0);
    CHILD_CHECK(Next(epoll).events == (EPOLLOUT | EPOLLHUP));  // of the unconnected socket
    CHILD_CHECK(Connect(fd) == -1 && errno == EHOSTUNREACH);   // so says the parent
    CHILD_CHECK(Next(epoll, 0).events == 0);
    CHILD_CHECK(EntriesOf(epoll) == 1);
    CHILD_CHECK(Add(epoll, fd, EPOLLOUT, kOtherData, EPOLL_CTL_MOD) == 0);
    CHILD_CHECK(Next(epoll).data.u64 == kOtherData);
    return 0;
  });
  ASSERT_FALSE(migrated_.has_value());
  EXPECT_EQ(migrated_.error().code, ENOTSUP);
}

TEST_F(EpollMigrationTest, AnExclusiveRegistrationStaysExclusive) {
  Run(
      [] {
        const int epoll = epoll_create1(0);
        const int fd = NewSocket();
        CHILD_CHECK(Add(epoll, fd, EPOLLIN | EPOLLEXCLUSIVE, kData) == 0);
        CHILD_CHECK(Connect(fd) == 0);
        AskForByte();
        const epoll_event event = Next(epoll);
        CHILD_CHECK(event.events == EPOLLIN && event.data.u64 == kData);
        // MOD of an exclusive entry is refused by the kernel: that it is one can be seen.
        CHILD_CHECK(Add(epoll, fd, EPOLLIN, kData, EPOLL_CTL_MOD) == -1 && errno == EINVAL);
        return 0;
      },
      1);
}

TEST_F(EpollMigrationTest, TwoEpollsThatWatchOneSocketBothGoOn) {
  Run(
      [] {
        const int one = epoll_create1(0);
        const int other = epoll_create1(0);
        const int unrelated = epoll_create1(0);
        const int fd = NewSocket();
        CHILD_CHECK(unrelated >= 0);
        CHILD_CHECK(Add(one, fd, EPOLLIN, kData) == 0);
        CHILD_CHECK(Add(other, fd, EPOLLIN | EPOLLET, kOtherData) == 0);
        CHILD_CHECK(Connect(fd) == 0);
        AskForByte();
        CHILD_CHECK(Next(one).data.u64 == kData);
        CHILD_CHECK(Next(other).data.u64 == kOtherData);
        return 0;
      },
      1);
  EXPECT_EQ(epolls_.count, 3U);
  EXPECT_EQ(watchers_.count, 2U);
}

TEST_F(EpollMigrationTest, AnEpollThatHasTwoDescriptorsIsServedOnce) {
  Run([] {
    const int epoll = epoll_create1(0);
    const int fd = NewSocket();
    CHILD_CHECK(Add(epoll, fd, EPOLLOUT, kData) == 0);
    CHILD_CHECK(dup(epoll) >= 0);
    CHILD_CHECK(Connect(fd) == 0);
    CHILD_CHECK(EntriesOf(epoll) == 1);
    const epoll_event event = Next(epoll);
    CHILD_CHECK(event.events == EPOLLOUT && event.data.u64 == kData);
    return 0;
  });
  EXPECT_EQ(watchers_.count, 2U);
}

TEST_F(EpollMigrationTest, AnEpollInsideAnotherGoesOn) {
  Run(
      [] {
        const int outer = epoll_create1(0);
        const int inner = epoll_create1(0);
        const int fd = NewSocket();
        CHILD_CHECK(Add(outer, inner, EPOLLIN, kOtherData) == 0);
        CHILD_CHECK(Add(inner, fd, EPOLLIN, kData) == 0);
        CHILD_CHECK(Connect(fd) == 0);
        AskForByte();
        CHILD_CHECK(Next(outer).data.u64 == kOtherData);
        CHILD_CHECK(Next(inner, 0).data.u64 == kData);
        return 0;
      },
      1);
  EXPECT_EQ(watchers_.count, 1U);
}

TEST_F(EpollMigrationTest, ASocketThatNobodyWatchesHasNoWatchers) {
  Run([] {
    const int epoll = epoll_create1(0);
    CHILD_CHECK(Add(epoll, eventfd(0, 0), EPOLLIN, kData) == 0);
    CHILD_CHECK(Connect(NewSocket()) == 0);
    return 0;
  });
  EXPECT_EQ(epolls_.count, 1U);
  EXPECT_EQ(watchers_.count, 0U);
}

TEST_F(EpollMigrationTest, OfManyFilesRegisteredUnderOneNumberTheRightOneIsMoved) {
  Run([] {
    constexpr int kEarlier = 6;
    const int epoll = epoll_create1(0);
    const int number = NewSocket();
    for (int i = 0; i < kEarlier;
         ++i) {  // each is kept alive by a dup, under whose number it is not registered
      CHILD_CHECK(Add(epoll, number, EPOLLIN, kOtherData) == 0 && dup(number) >= 0);
      const int next = NewSocket();
      CHILD_CHECK(dup2(next, number) == number && close(next) == 0);
    }
    CHILD_CHECK(Add(epoll, number, EPOLLOUT, kData) == 0);
    CHILD_CHECK(Connect(number) == 0);
    CHILD_CHECK(EntriesOf(epoll) == kEarlier + 1);
    // All report: the earlier ones their hang-up, ours that it is connected.
    epoll_event events[2 * kEarlier];
    const int count = epoll_wait(epoll, events, 2 * kEarlier, 0);
    CHILD_CHECK(count == kEarlier + 1);
    int ours = 0;
    for (int i = 0; i < count; ++i) ours += events[i].data.u64 == kData && events[i].events == EPOLLOUT;
    CHILD_CHECK(ours == 1);
    return 0;
  });
  EXPECT_EQ(watchers_.count, 1U);
}

TEST_F(EpollMigrationTest, AnEpollWithHundredsOfEntriesIsReadToTheEnd) {
  Run(
      [] {
        const int epoll = epoll_create1(0);
        const int fd = NewSocket();
        const int high = fcntl(fd, F_DUPFD, 900);
        CHILD_CHECK(high >= 900 && close(fd) == 0);
        for (int i = 0; i < 700; ++i) CHILD_CHECK(Add(epoll, eventfd(0, 0), EPOLLIN, kOtherData) == 0);
        CHILD_CHECK(Add(epoll, high, EPOLLOUT, kData) == 0);
        CHILD_CHECK(Connect(high) == 0);
        const epoll_event event = Next(epoll);
        CHILD_CHECK(event.events == EPOLLOUT && event.data.u64 == kData);
        return 0;
      },
      0);
}

TEST_F(EpollMigrationTest, MoreEpollsThanWeCountAreAnError) {
  std::vector<Fd> epolls;
  for (size_t i = 0; i <= EpollSet::kCapacity; ++i) epolls.emplace_back(epoll_create1(EPOLL_CLOEXEC));
  const auto found = FindEpolls(getpid());
  ASSERT_FALSE(found.has_value());
  EXPECT_EQ(found.error().code, E2BIG);
  epolls.resize(4);
  const auto fewer = FindEpolls(getpid());
  ASSERT_TRUE(fewer.has_value());
  EXPECT_GE(fewer->count, 4U);
}

// The side thread's numbers are not the engine's: what it opens has a low number, of which the engine may
// have nothing.
TEST_F(EpollMigrationTest, TheSideThreadFindsEpollsWhateverNumbersTheEngineHas) {
  class Search final : public SideJob {
   public:
    void Run(SideTable&) override { found = FindEpolls(getpid()); }
    Result<EpollSet> found = Fail(EAGAIN);
  };
  const Fd epoll(fcntl(Fd(epoll_create1(EPOLL_CLOEXEC)).get(), F_DUPFD_CLOEXEC, 100));
  ASSERT_TRUE(epoll.valid());
  constexpr int kLow = 3;  // more than the side thread opens
  std::array<Fd, kLow> kept;
  for (int number = 0; number < kLow; ++number) {
    kept[static_cast<size_t>(number)].reset(fcntl(number, F_DUPFD_CLOEXEC, 100));
    close(number);
  }
  Search search;
  const bool submitted = side_->Submit(&search);
  pollfd readable{side_->completion_fd(), POLLIN, 0};
  const int ready = poll(&readable, 1, 10000);
  for (int number = 0; number < kLow; ++number) {
    if (kept[static_cast<size_t>(number)].valid()) dup2(kept[static_cast<size_t>(number)].get(), number);
  }
  ASSERT_TRUE(submitted && ready == 1 && side_->TakeFinished() == &search);
  ASSERT_TRUE(search.found.has_value()) << std::strerror(search.found.error().code);
  EXPECT_NE(std::find(search.found->begin(), search.found->end(), epoll.get()), search.found->end());
}

TEST_F(EpollMigrationTest, AThreadWithATableOfItsOwnHasItsOwnEpolls) {
  std::promise<std::pair<pid_t, int>> made;
  std::promise<void> looked;
  std::thread thread([&made, end = looked.get_future()]() mutable {
    const bool apart = unshare(CLONE_FILES) == 0;
    const int low = apart ? epoll_create1(EPOLL_CLOEXEC) : -1;
    made.set_value({gettid(), fcntl(low, F_DUPFD_CLOEXEC, 200)});  // what the leader has none of
    end.wait();
  });
  const auto [tid, number] = made.get_future().get();
  const auto theirs = FindEpolls(tid);
  const auto ours = FindEpolls(getpid());
  looked.set_value();
  thread.join();
  ASSERT_GE(number, 200);
  ASSERT_TRUE(theirs.has_value() && ours.has_value());
  EXPECT_NE(std::find(theirs->begin(), theirs->end(), number), theirs->end());
  EXPECT_EQ(std::find(ours->begin(), ours->end(), number), ours->end());
}

TEST_F(EpollMigrationTest, ATargetThatLeftIsAnErrorAndNotACrash) {
  const pid_t gone = fork();
  if (gone == 0) _exit(0);
  ASSERT_GT(gone, 0);
  waitpid(gone, nullptr, 0);
  EXPECT_FALSE(FindEpolls(gone).has_value());
  EpollSet some;
  some.fds[some.count++] = 3;
  const auto watchers = FindWatchers(gone, 4, server_.get(), some);
  ASSERT_FALSE(watchers.has_value());
  EXPECT_EQ(watchers.error().code, ESRCH);
}

TEST_F(EpollMigrationTest, ClosedOrReusedEpollNumbersArePassedOver) {
  const Fd no_epoll(eventfd(0, EFD_CLOEXEC));
  EpollSet stale;
  stale.fds[stale.count++] = 60000;
  stale.fds[stale.count++] = no_epoll.get();
  const auto watchers = FindWatchers(getpid(), server_.get(), server_.get(), stale);
  ASSERT_TRUE(watchers.has_value());
  EXPECT_EQ(watchers->count, 0U);
  EXPECT_TRUE(watchers->stale);
}

}  // namespace
}  // namespace shunt::net
