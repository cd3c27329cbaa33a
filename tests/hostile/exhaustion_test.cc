// SPDX-License-Identifier: Apache-2.0
// What one container takes, another does not miss: each test has a container that uses something up, and one
// with ordinary work on the same reactors, whose every call must succeed while the first is at it.
//
// tests/endure/stall_test.cc has more of these: all task slots, stopped threads, files whose server never
// answers, thousands of descriptors, an engine without descriptors.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/endure/guest_sockets.h"
#include "tests/endure/stuck_file.h"
#include "tests/support/fleet.h"

namespace shunt {
namespace {

// tests/hostile/with_black_hole makes it one: packets to it leave and nothing ever comes back.
constexpr char kBlackHole[] = "203.0.113.77";
constexpr int kNoFuse = 77;
constexpr int kWorkTimeoutMs = 60'000;  // the work takes milliseconds

using Clock = std::chrono::steady_clock;

int64_t MillisecondsSince(Clock::time_point begin) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin).count();
}

void UseEveryDescriptor() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// Ten thousand connects to a peer that never answers: from processes, because a descriptor limit may be low,
// and one in a hundred from a thread that waits, half of these with a timeout. All stay pending.
int ConnectsToABlackHole() {
  constexpr int kProcesses = 10, kEach = 1000, kThreads = 10;
  const pid_t parent = getpid();
  for (int i = 0; i < kProcesses; ++i) {
    const pid_t child = fork();
    if (child < 0) return 1;
    if (child > 0) continue;
    EndWith(parent);
    UseEveryDescriptor();
    std::vector<std::thread> threads;
    for (int j = 0; j < kThreads; ++j) {
      threads.emplace_back([j] {
        const Fd fd = Tcp();
        if (j % 2 == 0) SetSendTimeout(fd.get(), 3'600'000);
        Connect(fd.get(), To(kBlackHole, kPort));
      });
    }
    std::vector<Fd> pending;
    for (int j = kThreads; j < kEach; ++j) {
      pending.push_back(Tcp(AF_INET, SOCK_NONBLOCK));
      if (Connect(pending.back().get(), To(kBlackHole, kPort)) != EINPROGRESS) _exit(1);
    }
    pause();
  }
  pause();
  return 0;
}

// Processes that come and go, each in the middle of a trapped call when its parent kills it.
int ForksAndCalls() {
  const pid_t parent = getpid();
  for (;;) {
    std::array<pid_t, 32> children;
    for (pid_t& child : children) {
      child = fork();
      if (child != 0) continue;
      EndWith(parent);
      for (;;) Connect(Tcp().get(), To(kHost, kRefusedPort));
    }
    for (const pid_t child : children) {
      if (child > 0) kill(child, SIGKILL);
    }
    while (waitpid(-1, nullptr, 0) > 0) {
    }
  }
}

// A process that is stopped and continued at every moment of its connects.
int IsStoppedAndContinued() {
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child == 0) {
    EndWith(parent);
    for (;;) {
      Fd fd = Tcp();
      // Each call gives what it would without the stop.
      if (Connect(fd.get(), To(kHost, kPort)) != 0) _exit(errno);
      Reset(std::move(fd));
    }
  }
  for (unsigned i = 0;; ++i) {
    // The moment walks over everything from "just called" to "has called several times".
    const auto until = Clock::now() + std::chrono::microseconds(i * 37 % 900);
    while (Clock::now() < until) sched_yield();
    kill(child, SIGSTOP);
    const auto go = Clock::now() + std::chrono::milliseconds(i % 16 == 0 ? 20 : 0);
    while (Clock::now() < go) sched_yield();
    kill(child, SIGCONT);
    int status = 0;  // the child's errno, if it has ended
    if (waitpid(child, &status, WNOHANG) == child) return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
  }
}

// Calls from threads that hardly get a CPU, beside others that take them all: what has to run in the caller
// takes its time.
int CallsWithoutACpu() {
  for (long i = 0; i < sysconf(_SC_NPROCESSORS_ONLN); ++i) {
    std::thread([] {
      for (;;) {
      }
    }).detach();
  }
  std::vector<std::thread> threads;
  for (int i = 0; i < 64; ++i) {
    threads.emplace_back([] {
      const sched_param none{};
      sched_setscheduler(0, SCHED_IDLE, &none);
      for (;;) Connect(Tcp().get(), To(kHost, kRefusedPort));
    });
  }
  for (std::thread& thread : threads) thread.join();
  return 0;
}

// Changes the mappings of its memory without a pause, each time for as long as a page table with entries for
// gigabytes takes (all of the one page of zeros), and connects meanwhile: to where nothing has to be
// installed for, so that its memory is all that the engine can wait for.
int ConnectsWhileItsMappingsChange() {
  constexpr size_t kBytes = size_t{4} << 30;
  void* const memory = mmap(nullptr, kBytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return 1;
  madvise(memory, kBytes, MADV_NOHUGEPAGE);
  for (size_t at = 0; at < kBytes; at += 4096)
    static_cast<void>(*(static_cast<const volatile char*>(memory) + at));
  std::thread([memory] {
    for (;;) {
      mprotect(memory, kBytes, PROT_NONE);
      mprotect(memory, kBytes, PROT_READ);
    }
  }).detach();
  for (;;) Connect(Tcp(AF_INET, SOCK_NONBLOCK).get(), To("127.0.0.1", kRefusedPort));
}

int DoesNothing() {
  pause();
  return 0;
}

// Exchanges a socket for another file under the engine's hands, for ever.
int ExchangesItsSocket() {
  const Fd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const Fd socket = Tcp(AF_INET, SOCK_NONBLOCK);
  const Fd spot(dup(null.get()));
  std::thread([&] {
    for (;;) {
      dup2(socket.get(), spot.get());
      dup2(null.get(), spot.get());
    }
  }).detach();
  for (;;) Connect(spot.get(), To(kHost, kRefusedPort));
}

// Keeps thousands of epolls, and a socket in each of them.
int WatchesWithThousandsOfEpolls() {
  UseEveryDescriptor();
  std::vector<Fd> epolls;
  for (int i = 0; i < 3000; ++i) epolls.emplace_back(epoll_create1(0));
  for (;;) {
    const Fd fd = Tcp(AF_INET, SOCK_NONBLOCK);
    for (size_t i = 0; i < 64; ++i) {
      epoll_event event{.events = EPOLLOUT};
      epoll_ctl(epolls[i * 40].get(), EPOLL_CTL_ADD, fd.get(), &event);
    }
    Connect(fd.get(), To(kHost, kRefusedPort));
  }
}

// Has sixty-four sockets at a time moved that an epoll watches, each of which takes a look at thousands of
// descriptors.
int WatchesAmongThousandsOfDescriptors() {
  UseEveryDescriptor();
  const Fd null(open("/dev/null", O_RDONLY | O_CLOEXEC)), epoll(epoll_create1(0));
  std::vector<Fd> descriptors;
  for (int i = 0; i < 3500; ++i) descriptors.emplace_back(dup(null.get()));
  std::vector<std::thread> threads;
  for (int i = 0; i < 64; ++i) {
    threads.emplace_back([&epoll] {
      for (;;) {
        const Fd fd = Tcp(AF_INET, SOCK_NONBLOCK);
        epoll_event event{.events = EPOLLOUT};
        epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd.get(), &event);
        Connect(fd.get(), To(kHost, kRefusedPort));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return 0;
}

constexpr uint64_t kWatchedConnects = 100;

int WatchedWork() {
  const Fd epoll(epoll_create1(0));
  for (uint64_t i = 0; i < kWatchedConnects; ++i) {
    Fd fd = Tcp();
    epoll_event event{.events = EPOLLIN};
    epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd.get(), &event);
    if (const int error = Connect(fd.get(), To(kHost, kPort)); error != 0) return error;
    Reset(std::move(fd));
  }
  return 0;
}

// Passes an address that lies in memory which nobody will ever bring.
int PassesMemoryThatNobodyServes() {
  const StuckFile stuck("/mnt");
  if (stuck.fd() < 0) return kNoFuse;
  void* const memory = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, stuck.fd(), 0);
  if (memory == MAP_FAILED) return 1;
  const Fd fd = Tcp();
  connect(fd.get(), static_cast<const sockaddr*>(memory), sizeof(sockaddr_in));
  return 2;
}

class Exhaustion : public ::testing::Test {
 protected:
  static std::string Counted(const Fleet& fleet) {
    std::string text;
    for (const Accelerator::CounterValue& counter : fleet.accelerator().Counters())
      text += "\n  " + std::string(counter.text.name) + " " + std::to_string(counter.value);
    return text;
  }

  // Serves until `reached`, for at most a minute.
  static void ServeUntil(Fleet& fleet, const std::function<bool(Fleet&)>& reached) {
    const auto begin = Clock::now();
    while (!reached(fleet) && MillisecondsSince(begin) < kWorkTimeoutMs) fleet.HandleEvents();
    EXPECT_TRUE(reached(fleet)) << Counted(fleet);
  }

  static void Work(Fleet& fleet, const char* when) {
    const auto begin = Clock::now();
    const pid_t pid = fleet.Launch(0);
    ASSERT_GT(pid, 0) << fleet.error();
    ASSERT_EQ(fleet.Join(pid, kWorkTimeoutMs), 0) << fleet.error() << Counted(fleet);
    std::printf("100 connects %s: %lld ms\n", when, static_cast<long long>(MillisecondsSince(begin)));
  }

  // Has the work done alone, while `hostile` is at what `under_way` looks for, and after its end.
  void WorkBeside(
      const std::function<int()>& hostile, const std::function<bool(Fleet&)>& under_way, int reactors,
      const std::function<void(Fleet&)>& look = [](Fleet&) {}) {
    AcceptingPeer peer;
    ASSERT_TRUE(peer.ok());
    Fleet fleet({.bodies = {OrdinaryWork, hostile}, .accelerator = {.reactors = reactors}});
    ASSERT_EQ(fleet.Start(), "");
    Work(fleet, "alone");
    const pid_t hostile_pid = fleet.Launch(1);
    ASSERT_GT(hostile_pid, 0) << fleet.error();
    ServeUntil(fleet, under_way);
    for (int i = 0; i < 2 && !HasFatalFailure(); ++i) Work(fleet, "beside it");
    look(fleet);
    kill(hostile_pid, SIGKILL);
    EXPECT_EQ(fleet.Join(hostile_pid, kWorkTimeoutMs), Fleet::kKilled);
    Work(fleet, "afterwards");
    EXPECT_EQ(fleet.Counted(Counter::waits_begun), fleet.Counted(Counter::waits_ended));
    // (Who was killed before his call was received has gone, too.)
    EXPECT_LE(fleet.Counted(Counter::received),
              fleet.Counted(Counter::answered) + fleet.Counted(Counter::gone))
        << Counted(fleet);
  }
};

TEST_F(Exhaustion, TenThousandConnectsToABlackHole) {
  WorkBeside(
      ConnectsToABlackHole, [](Fleet& fleet) { return fleet.Counted(Counter::accelerated) >= 10'000 + 100; },
      /*reactors=*/2);
}

TEST_F(Exhaustion, ProcessesThatAreKilledInTheMiddleOfTheirCalls) {
  WorkBeside(
      ForksAndCalls, [](Fleet& fleet) { return fleet.Counted(Counter::gone) > 20; }, /*reactors=*/1);
}

TEST_F(Exhaustion, AProcessThatIsStoppedAtEveryMoment) {
  WorkBeside(
      IsStoppedAndContinued, [](Fleet& fleet) { return fleet.Counted(Counter::received) > 500; },
      /*reactors=*/1);
}

TEST_F(Exhaustion, CallsOfThreadsWithoutACpu) {
  WorkBeside(
      CallsWithoutACpu, [](Fleet& fleet) { return fleet.Counted(Counter::received) > 155; }, /*reactors=*/1,
      [](Fleet& fleet) { EXPECT_GT(fleet.Counted(Counter::stalled), 0u); });
}

// What they have made the engine wait is counted, which is what they rest for.
TEST_F(Exhaustion, MappingsThatChangeWithoutAPause) {
  AcceptingPeer peer;
  ASSERT_TRUE(peer.ok());
  Fleet fleet({.bodies = {OrdinaryWork, ConnectsWhileItsMappingsChange, DoesNothing},
               .accelerator = {.reactors = 1}});
  ASSERT_EQ(fleet.Start(), "");
  // With one container alone there is nobody to protect.
  const pid_t bystander = fleet.Launch(2), hostile = fleet.Launch(1);
  ASSERT_GT(bystander, 0) << fleet.error();
  ASSERT_GT(hostile, 0) << fleet.error();
  ServeUntil(fleet, [](Fleet& at) { return at.Counted(Counter::stalled) > 0; });
  Work(fleet, "beside it");
  // Whoever ends while the engine rests from him is noticed at once.
  kill(hostile, SIGKILL);
  EXPECT_EQ(fleet.Join(hostile, kWorkTimeoutMs), Fleet::kKilled);
  Work(fleet, "afterwards");
}

TEST_F(Exhaustion, ASocketThatIsExchangedUnderTheEnginesHandsIsCounted) {
  WorkBeside(
      ExchangesItsSocket, [](Fleet& fleet) { return fleet.Counted(Counter::exchanged) > 0; }, /*reactors=*/1);
}

TEST_F(Exhaustion, ThousandsOfEpolls) {
  WorkBeside(
      WatchesWithThousandsOfEpolls, [](Fleet& fleet) { return fleet.Counted(Counter::received) > 105; },
      /*reactors=*/1);
}

// The side thread has one job of each container at a time, however many wait: while a container moves one
// socket, another one that has 64 under way gets one or two moved.
TEST_F(Exhaustion, SlowCallsInPlentyTakeTurnsWithTheOtherContainers) {
  AcceptingPeer peer;
  ASSERT_TRUE(peer.ok());
  Fleet fleet({.bodies = {WatchedWork, WatchesAmongThousandsOfDescriptors}, .accelerator = {.reactors = 1}});
  ASSERT_EQ(fleet.Start(), "");
  const pid_t hostile = fleet.Launch(1);
  ASSERT_GT(hostile, 0) << fleet.error();
  ServeUntil(fleet, [](Fleet& its) { return its.Counted(Counter::epolls_migrated) > 64; });
  const uint64_t before = fleet.Counted(Counter::epolls_migrated);
  const pid_t working = fleet.Launch(0);
  ASSERT_GT(working, 0) << fleet.error();
  ASSERT_EQ(fleet.Join(working, kWorkTimeoutMs), 0) << fleet.error() << Counted(fleet);
  // Some more, for the time in which the work is not in a connect.
  EXPECT_LT(fleet.Counted(Counter::epolls_migrated) - before, 10 * kWatchedConnects);
  kill(hostile, SIGKILL);
  EXPECT_EQ(fleet.Join(hostile, kWorkTimeoutMs), Fleet::kKilled);
}

// A weakness that docs/security.md names: the reactor waits as long as the server of that memory likes. But
// it is over with the container, and nobody has lost a call.
TEST_F(Exhaustion, MemoryThatNobodyServesIsForgottenWithItsContainer) {
  AcceptingPeer peer;
  ASSERT_TRUE(peer.ok());
  Fleet fleet({.bodies = {OrdinaryWork, PassesMemoryThatNobodyServes}, .accelerator = {.reactors = 1}});
  ASSERT_EQ(fleet.Start(), "");
  Work(fleet, "alone");
  const uint64_t before = fleet.Counted(Counter::received);
  const pid_t hostile = fleet.Launch(1);
  ASSERT_GT(hostile, 0) << fleet.error();
  const auto begin = Clock::now();
  while (fleet.Counted(Counter::received) == before && MillisecondsSince(begin) < 5000) fleet.HandleEvents();
  if (fleet.Counted(Counter::received) == before) {
    if (fleet.Join(hostile, kWorkTimeoutMs) == kNoFuse) GTEST_SKIP() << "no /dev/fuse for a container here";
    FAIL() << "the call did not come";
  }
  const pid_t calm = fleet.Launch(0);
  ASSERT_GT(calm, 0) << fleet.error();
  const auto held_up_from = Clock::now();
  while (MillisecondsSince(held_up_from) < 300) fleet.HandleEvents();
  std::printf("the other container has made %llu calls in 300 ms\n",
              static_cast<unsigned long long>(fleet.Counted(Counter::received) - before - 1));
  kill(hostile, SIGKILL);
  EXPECT_EQ(fleet.Join(calm, kWorkTimeoutMs), 0) << Counted(fleet);
  EXPECT_EQ(fleet.Join(hostile, kWorkTimeoutMs), Fleet::kKilled);
}

// Ports of the host are shared by all its programs: who finds none is told so, and only as long as there are
// none.
TEST_F(Exhaustion, EphemeralPortsThatAreUsedUp) {
  constexpr char kSetting[] = "/proc/sys/net/ipv4/ip_local_port_range";
  std::ifstream reading(kSetting);
  std::string before;
  std::getline(reading, before);
  std::ofstream(kSetting) << "45000 45007" << std::flush;
  std::string now;
  std::ifstream again(kSetting);
  std::getline(again, now);
  if (now.find("45007") == std::string::npos) GTEST_SKIP() << "an ordinary user cannot set " << kSetting;
  AcceptingPeer peer;
  ASSERT_TRUE(peer.ok());
  const auto takes_all = [] {
    std::vector<Fd> held;
    int connected = 0;
    for (int i = 0; i < 40; ++i) {
      held.push_back(Tcp());
      const int error = Connect(held.back().get(), To(kHost, kPort));
      if (error == 0 && connected == i) {
        ++connected;
      } else if (error != EADDRNOTAVAIL) {
        return error == 0 ? 255 : error;
      }
    }
    if (connected < 4 || connected > 8) return 253;
    // Another peer is another pair of addresses: no port is used up for it.
    if (Connect(Tcp().get(), To(kHost, kRefusedPort)) != ECONNREFUSED) return 254;
    for (Fd& fd : held) Reset(std::move(fd));
    return 0;
  };
  Fleet fleet({.bodies = {OrdinaryWork, takes_all}, .accelerator = {.reactors = 1}});
  ASSERT_EQ(fleet.Start(), "");
  const pid_t pid = fleet.Launch(1);
  ASSERT_GT(pid, 0) << fleet.error();
  EXPECT_EQ(fleet.Join(pid, kWorkTimeoutMs), 0) << Counted(fleet);
  std::ofstream(kSetting) << before << std::flush;
  Work(fleet, "afterwards");
}

}  // namespace
}  // namespace shunt
