// SPDX-License-Identifier: Apache-2.0
// Nothing that a container does leaves anything behind in the engine: no descriptor, no memory, no task slot.
//
// Each test warms the engine up, looks what it holds, does the same thing very often, and looks again when
// all containers have ended. SHUNT_ENDURE=N in the environment does N times as much; 10 is 100,000 connects,
// 1,000 containers and 1,000 killed processes.

#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "tests/endure/guest_sockets.h"
#include "tests/support/fleet.h"
#include "tests/support/sanitized.h"

namespace shunt {
namespace {

// What the heap's own bookkeeping may grow by.
constexpr size_t kSlackKib = 1024;

int Often(int times) {
  const char* const factor = getenv("SHUNT_ENDURE");
  return std::max(1, times * (factor != nullptr ? atoi(factor) : 1) / (kSanitized ? 10 : 1));
}

int ConnectsOften(int times) {
  for (int i = 0; i < times; ++i) {
    Fd fd = Tcp();
    if (Connect(fd.get(), To(kHost, kPort)) != 0) return 1;
    Reset(std::move(fd));
    fd = Tcp(AF_INET6);
    if (Connect(fd.get(), To(kHost6, kRefusedPort)) != ECONNREFUSED) return 2;
    fd = Tcp(AF_INET, SOCK_NONBLOCK);
    if (Connect(fd.get(), To(kHost, kPort)) != EINPROGRESS) return 3;
    Reset(std::move(fd));
    fd = Tcp();
    const Fd copy(dup(fd.get()));
    if (i % 16 == 0 && Connect(fd.get(), To(kHost, kPort)) != ENETUNREACH) return 4;
    const Fd epoll(i % 16 == 0 ? epoll_create1(0) : -1);
    fd = Tcp(AF_INET, SOCK_NONBLOCK);
    epoll_event event{.events = EPOLLIN};
    if (epoll.valid()) epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd.get(), &event);
    if (Connect(fd.get(), To(kHost, kPort)) != EINPROGRESS) return 5;
    Reset(std::move(fd));
  }
  return 0;
}

// For ever, until somebody kills it.
[[noreturn]] void ConnectsUntilKilled(int manner) {
  for (;;) {
    const Fd fd = Tcp(AF_INET, manner == 3 ? SOCK_NONBLOCK : 0);
    const Fd copy(manner == 1 ? dup(fd.get()) : -1);
    if (manner == 2) SetSendTimeout(fd.get(), 60'000);
    const Fd epoll(manner == 3 ? epoll_create1(0) : -1);
    epoll_event event{.events = EPOLLIN};
    if (manner == 3) epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd.get(), &event);
    Connect(fd.get(), To(manner == 2 ? kNobody : kHost, manner == 0 ? kRefusedPort : kPort));
  }
}

int KillsInTheMiddle(int times) {
  for (int i = 0; i < times; ++i) {
    const pid_t child = fork();
    if (child < 0) return 1;
    if (child == 0) ConnectsUntilKilled(i % 4);
    // The delay walks over everything from "has not begun" to "has done it several times".
    const auto delay = std::chrono::microseconds(i * 37 % 1500);
    const auto until = std::chrono::steady_clock::now() + delay;
    while (std::chrono::steady_clock::now() < until) sched_yield();
    kill(child, SIGKILL);
    if (waitpid(child, nullptr, 0) != child) return 2;
  }
  return 0;
}

int InterruptsTimedConnects(int times) {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  sigaction(SIGALRM, &action, nullptr);
  for (int i = 0; i < times; ++i) {
    const Fd fd = Tcp();
    SetSendTimeout(fd.get(), 300);
    // Again and again: on a busy machine the first signal can come before the call.
    const itimerval soon{.it_interval = {.tv_sec = 0, .tv_usec = 2000},
                         .it_value = {.tv_sec = 0, .tv_usec = 2000 + i % 8 * 100}};
    setitimer(ITIMER_REAL, &soon, nullptr);
    // Out of slots the kernel waits in our place, which says EALREADY when the time is over. After some
    // seconds it knows that the neighbour is missing.
    if (const int error = Connect(fd.get(), To(kNobody, kPort));
        error != EINTR && error != EALREADY && error != EHOSTUNREACH)
      return error;
  }
  const itimerval never{};
  setitimer(ITIMER_REAL, &never, nullptr);
  return 0;
}

class Leak : public ::testing::Test {
 protected:
  // Runs each of `bodies` in a container of its own, `warm_up` times, then `times` more, and compares.
  void Compare(const std::function<int()>& warm_up, const std::function<int()>& body, int containers) {
    AcceptingPeer peer;
    ASSERT_TRUE(peer.ok());
    Fleet fleet({.bodies = {warm_up, body}});
    ASSERT_EQ(fleet.Start(), "");
    for (int i = 0; i < 20 && !HasFailure(); ++i) Run(fleet, 0);
    const Footprint before = Settle(fleet, 0);
    for (int i = 0; i < containers && !HasFailure(); ++i) Run(fleet, 1);
    const Footprint after = Settle(fleet, before.descriptors);
    EXPECT_LE(after.descriptors, before.descriptors);
    if (!kSanitized) {
      EXPECT_LE(after.resident_kib, before.resident_kib + kSlackKib);
    }
    EXPECT_EQ(fleet.Counted(Counter::waits_begun), fleet.Counted(Counter::waits_ended));
    EXPECT_GT(fleet.Counted(Counter::accelerated), 0u);
    RecordProperty("resident_kib_before", static_cast<int>(before.resident_kib));
    RecordProperty("resident_kib_after", static_cast<int>(after.resident_kib));
    std::printf("descriptors %zu -> %zu, resident %zu -> %zu KiB, %llu calls\n", before.descriptors,
                after.descriptors, before.resident_kib, after.resident_kib,
                static_cast<unsigned long long>(fleet.Counted(Counter::received)));
  }

 private:
  static void Run(Fleet& fleet, size_t body) {
    const pid_t pid = fleet.Launch(body);
    ASSERT_GT(pid, 0) << fleet.error();
    EXPECT_EQ(fleet.Join(pid, 280'000), 0) << fleet.error();
  }

  // When a container has ended, the reactors still throw away what they had in store for it: waits until
  // there are no more than `wanted` descriptors, or until their number has not changed for a while.
  static Footprint Settle(Fleet& fleet, size_t wanted) {
    Footprint now = Footprint::Now();
    auto changed = std::chrono::steady_clock::now();
    while (now.descriptors > wanted &&
           std::chrono::steady_clock::now() - changed < std::chrono::milliseconds(wanted == 0 ? 300 : 5000)) {
      fleet.HandleEvents();
      std::this_thread::yield();
      const Footprint next = Footprint::Now();
      if (next.descriptors != now.descriptors) changed = std::chrono::steady_clock::now();
      now = next;
    }
    return now;
  }
};

TEST_F(Leak, NothingIsLeftAfterManyConnects) {
  // Five connects each time.
  Compare([] { return ConnectsOften(20); }, [] { return ConnectsOften(Often(2500)); }, 1);
}

TEST_F(Leak, NothingIsLeftAfterManyContainers) {
  const auto body = [] { return ConnectsOften(1); };
  Compare(body, body, Often(100));
}

TEST_F(Leak, NothingIsLeftAfterKillsInTheMiddleOfConnects) {
  Compare([] { return KillsInTheMiddle(4); }, [] { return KillsInTheMiddle(Often(100)); }, 1);
}

TEST_F(Leak, NothingIsLeftAfterTimedConnectsThatSignalsCutShort) {
  // In this order: a thread's next connect after one that was cut short, whichever socket it is for, may be
  // told of it.
  Compare(
      [] {
        const int error = ConnectsOften(1);
        return error != 0 ? error : InterruptsTimedConnects(2);
      },
      [] { return InterruptsTimedConnects(Often(200)); }, 1);
}

TEST_F(Leak, ASlotIsFreeSoonAfterASignalHasCutItsCallShort) {
  AcceptingPeer peer;
  ASSERT_TRUE(peer.ok());
  Fleet fleet({.bodies = {[] {
                 struct sigaction action {};
                 action.sa_handler = [](int) {};
                 sigaction(SIGALRM, &action, nullptr);
                 const Fd fd = Tcp();
                 SetSendTimeout(fd.get(), 3'600'000);
                 const itimerval soon{.it_interval = {.tv_sec = 0, .tv_usec = 50'000},
                                      .it_value = {.tv_sec = 0, .tv_usec = 50'000}};
                 setitimer(ITIMER_REAL, &soon, nullptr);
                 if (Connect(fd.get(), To(kNobody, kPort)) != EINTR) return 1;
                 const itimerval never{};
                 setitimer(ITIMER_REAL, &never, nullptr);
                 pause();
                 return 0;
               }}});
  ASSERT_EQ(fleet.Start(), "");
  const pid_t pid = fleet.Launch(0);
  ASSERT_GT(pid, 0) << fleet.error();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (fleet.Counted(Counter::waits_ended) == 0 && std::chrono::steady_clock::now() < deadline) {
    fleet.HandleEvents();
    std::this_thread::yield();
  }
  EXPECT_EQ(fleet.Counted(Counter::waits_begun), 1u);
  EXPECT_EQ(fleet.Counted(Counter::waits_ended), 1u) << "an hour is too long";
  kill(pid, SIGKILL);
  EXPECT_EQ(fleet.Join(pid), Fleet::kKilled) << "the container is what ended the call";
}

}  // namespace
}  // namespace shunt
