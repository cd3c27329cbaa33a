// SPDX-License-Identifier: Apache-2.0
// One container cannot make others wait, whatever it hands the engine: each test has a hostile container and
// one with ordinary work on the same, single reactor, and the work must get done while the hostile one is at
// it.

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "core/clock.h"
#include "tests/endure/guest_sockets.h"
#include "tests/endure/stuck_file.h"
#include "tests/support/fleet.h"
#include "tests/support/shared.h"

namespace shunt {
namespace {

constexpr int kNoFuse = 77;
constexpr int kWorkTimeoutMs = 20'000;  // the work takes milliseconds

// Exchanges a socket for a file on a FUSE mount under the engine's hands, and calls with the file itself.
int HandsOverAStuckFile() {
  const StuckFile stuck("/mnt");
  if (stuck.fd() < 0) return kNoFuse;
  if (Connect(stuck.fd(), To(kHost, kPort)) != ENOTSOCK) return 1;
  const Address any = To("0.0.0.0", 8080);
  if (bind(stuck.fd(), any.get(), any.size) != -1 || errno != ENOTSOCK) return 2;
  const int one = 1;
  if (setsockopt(stuck.fd(), IPPROTO_IP, 21 /* IP_MINTTL */, &one, sizeof(one)) != -1 || errno != ENOTSOCK)
    return 3;
  const Fd spot(dup(stuck.fd()));
  const Fd socket = Tcp(AF_INET, SOCK_NONBLOCK);
  std::atomic<bool> done{false};
  std::thread exchanger([&] {
    while (!done.load()) {
      dup2(socket.get(), spot.get());
      dup2(stuck.fd(), spot.get());
    }
  });
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  while (std::chrono::steady_clock::now() < until) Connect(spot.get(), To(kHost, kRefusedPort));
  done = true;
  exchanger.join();
  pause();
  return 0;
}

// Takes every task slot that one container can get, for an hour.
int TakesEverySlot() {
  std::vector<std::thread> threads;
  for (int i = 0; i < 200; ++i) {
    threads.emplace_back([] {
      const Fd fd = Tcp();
      SetSendTimeout(fd.get(), 3'600'000);
      Connect(fd.get(), To(kNobody, kPort));
    });
  }
  for (std::thread& thread : threads) thread.join();
  return 0;
}

// Stops itself in the middle of a call, and one thread after the other stays there.
int StopsItself() {
  std::atomic<int> connects{0};
  std::thread connecting([&connects] {
    for (;; ++connects) Connect(Tcp().get(), To(kHost, kRefusedPort));
  });
  while (connects.load() < 60) sched_yield();
  raise(SIGSTOP);
  return 0;
}

int OpensThousandsOfDescriptors() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  std::vector<Fd> epolls;
  const Fd null(open("/dev/null", O_RDONLY));
  for (int i = 0; i < 40; ++i) epolls.emplace_back(epoll_create1(0));
  for (int i = 0; i < 4000; ++i) epolls.emplace_back(dup(null.get()));
  for (;;) {
    const Fd fd = Tcp(AF_INET, SOCK_NONBLOCK);
    epoll_event event{.events = EPOLLOUT};
    epoll_ctl(epolls[0].get(), EPOLL_CTL_ADD, fd.get(), &event);
    Connect(fd.get(), To(kHost, kRefusedPort));
  }
}

class Stall : public ::testing::Test {
 protected:
  static std::string Counted(const Fleet& fleet) {
    std::string text;
    for (const Accelerator::CounterValue& counter : fleet.accelerator().Counters())
      text += "\n  " + std::string(counter.text.name) + " " + std::to_string(counter.value);
    return text;
  }

  // Starts both, waits until `under_way`, and has the work done twice.
  void WorkBeside(const std::function<int()>& hostile, const std::function<bool(Fleet&)>& under_way,
                  bool may_end = false) {
    AcceptingPeer peer;
    ASSERT_TRUE(peer.ok());
    Fleet fleet({.bodies = {OrdinaryWork, hostile}, .accelerator = {.reactors = 1}});
    ASSERT_EQ(fleet.Start(), "");
    const pid_t hostile_pid = fleet.Launch(1);
    ASSERT_GT(hostile_pid, 0) << fleet.error();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!under_way(fleet) && std::chrono::steady_clock::now() < deadline) fleet.HandleEvents();
    EXPECT_TRUE(under_way(fleet));
    for (int i = 0; i < 2; ++i) {
      const pid_t pid = fleet.Launch(0);
      ASSERT_GT(pid, 0) << fleet.error();
      ASSERT_EQ(fleet.Join(pid, kWorkTimeoutMs), 0) << fleet.error() << Counted(fleet);
    }
    kill(hostile_pid, SIGKILL);
    const int result = fleet.Join(hostile_pid, kWorkTimeoutMs);
    if (result == kNoFuse) GTEST_SKIP() << "no /dev/fuse for a container here";
    EXPECT_TRUE(result == Fleet::kKilled || (may_end && result == 0)) << result;
    EXPECT_EQ(fleet.Counted(Counter::waits_begun), fleet.Counted(Counter::waits_ended));
  }
};

TEST_F(Stall, NotByAFileWhoseServerNeverAnswers) {
  WorkBeside(HandsOverAStuckFile, [](Fleet& fleet) { return fleet.Counted(Counter::received) > 50; });
}

TEST_F(Stall, NotByAContainerThatTakesEverySlot) {
  WorkBeside(TakesEverySlot, [](Fleet& fleet) { return fleet.Counted(Counter::no_slot) > 0; });
}

TEST_F(Stall, NotByAStoppedContainer) {
  WorkBeside(StopsItself, [](Fleet& fleet) { return fleet.Counted(Counter::received) > 50; });
}

TEST_F(Stall, NotByThousandsOfDescriptorsWithEpolls) {
  WorkBeside(OpensThousandsOfDescriptors, [](Fleet& fleet) { return fleet.Counted(Counter::received) > 60; });
}

TEST_F(Stall, AnEngineWithoutDescriptorsAnswersAllTheSame) {
  AcceptingPeer peer;
  ASSERT_TRUE(peer.ok());
  // Every connect is answered; where no twin can be made the ordinary path, which leads nowhere.
  const auto connects = [] {
    for (int i = 0; i < 200; ++i) {
      const int error = Connect(Tcp().get(), To(kHost, kPort));
      if (error != 0 && error != ENETUNREACH) return 1;
    }
    return 0;
  };
  Fleet fleet({.bodies = {connects, OrdinaryWork}, .accelerator = {.reactors = 1}});
  ASSERT_EQ(fleet.Start(), "");
  std::vector<Fd> hoard;
  const auto until_full = [&] {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    const rlimit low{.rlim_cur = 200, .rlim_max = limit.rlim_max};
    setrlimit(RLIMIT_NOFILE, &low);
    for (Fd fd(dup(0)); fd.valid(); fd = Fd(dup(0))) hoard.push_back(std::move(fd));
    return limit;
  };
  const pid_t pid = fleet.Launch(0);
  ASSERT_GT(pid, 0) << fleet.error();
  const rlimit before = until_full();
  const int starved = fleet.Join(pid, kWorkTimeoutMs);
  hoard.clear();
  setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_EQ(starved, 0);
  const pid_t later = fleet.Launch(1);
  ASSERT_GT(later, 0) << fleet.error();
  EXPECT_EQ(fleet.Join(later, kWorkTimeoutMs), 0) << "descriptors are back, and so is the work";
}

uint64_t CookieOf(const Fd& fd) {
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  getsockopt(fd.get(), SOL_SOCKET, SO_COOKIE, &cookie, &size);
  return cookie;
}

// Of the lowest priority, on one CPU with a program that never stops.
int SharesSocketsWithoutCpu() {
  cpu_set_t first;
  CPU_ZERO(&first);
  CPU_SET(0, &first);
  sched_setaffinity(0, sizeof(first), &first);
  const Shared<std::atomic<bool>> busy;
  const pid_t hog = fork();
  if (hog == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) *busy = true;
  }
  while (!*busy) sched_yield();
  const sched_param none{};
  sched_setscheduler(0, SCHED_IDLE, &none);
  // What the scheduler still owes it would last for all of the test.
  const int64_t begin = NowOn(CLOCK_THREAD_CPUTIME_ID);
  while (NowOn(CLOCK_THREAD_CPUTIME_ID) - begin < 3'000'000) {
  }
  int result = 0;
  for (int i = 0; i < 12 && result == 0; ++i) {
    const Fd fd = Tcp();
    const Fd copy(dup(fd.get()));
    const int error = Connect(fd.get(), To(kHost, kPort));
    if (error != ENETUNREACH) result = 1;  // the ordinary path leads nowhere
    if (CookieOf(fd) != CookieOf(copy)) result = 2;
  }
  kill(hog, SIGKILL);
  return result;
}

TEST_F(Stall, ASharedSocketStaysOneThoughItsProgramGetsHardlyAnyCpu) {
  AcceptingPeer peer;
  ASSERT_TRUE(peer.ok());
  // Waits are short where there are others whom they could hurt.
  Fleet fleet({.bodies = {SharesSocketsWithoutCpu, [] { return pause(); }}, .accelerator = {.reactors = 1}});
  ASSERT_EQ(fleet.Start(), "");
  const pid_t other = fleet.Launch(1), pid = fleet.Launch(0);
  ASSERT_GT(other, 0) << fleet.error();
  ASSERT_GT(pid, 0) << fleet.error();
  EXPECT_EQ(fleet.Join(pid, 2 * kWorkTimeoutMs), 0);
  EXPECT_GT(fleet.Counted(Counter::stalled), 0) << "it got enough CPU to prove nothing";
  EXPECT_GT(fleet.Counted(Counter::kept_shared), 0);
  EXPECT_EQ(fleet.Counted(Counter::shared_lost), 0);
  kill(other, SIGKILL);
  EXPECT_EQ(fleet.Join(other, kWorkTimeoutMs), Fleet::kKilled);
}

TEST_F(Stall, ATargetWithoutDescriptorsGetsTheKernelsErrors) {
  AcceptingPeer peer;
  ASSERT_TRUE(peer.ok());
  const auto body = [] {
    const Fd fd = Tcp();
    const rlimit few{.rlim_cur = 100, .rlim_max = 100};
    setrlimit(RLIMIT_NOFILE, &few);
    std::vector<Fd> hoard;
    for (Fd copy(dup(0)); copy.valid(); copy = Fd(dup(0))) hoard.push_back(std::move(copy));
    if (errno != EMFILE || epoll_create1(0) != -1 || errno != EMFILE) return 1;
    return Connect(fd.get(), To(kHost, kPort));  // needs no new number
  };
  Fleet fleet({.bodies = {body}, .accelerator = {.reactors = 1}});
  ASSERT_EQ(fleet.Start(), "");
  const pid_t pid = fleet.Launch(0);
  ASSERT_GT(pid, 0) << fleet.error();
  EXPECT_EQ(fleet.Join(pid, kWorkTimeoutMs), 0);
}

}  // namespace
}  // namespace shunt
