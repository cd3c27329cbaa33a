// SPDX-License-Identifier: Apache-2.0
// Services that limit the connections of their backends, on the real kernel: who is full gets none, and who
// finds all full waits for one to end, or is refused. Stage as in balance_test.cc.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "core/clock.h"
#include "tests/kernel/service_stage.h"
#include "tests/support/guest_container.h"
#include "tests/support/shared.h"

namespace shunt {
namespace {

constexpr int64_t kLimitMs = 1'000'000;

net::ServiceSpec LimitedTo(uint32_t connections, std::vector<net::SockAddr> backends, uint32_t queue = 0,
                           milliseconds queue_timeout = milliseconds(20'000)) {
  net::ServiceSpec service = ServiceOf(std::move(backends));
  service.limits = {.max_connections = connections, .queue = queue, .queue_timeout = queue_timeout};
  return service;
}

// A socket that has connected to the service; the error is told by `error`.
Fd Connected(int& error, int flags = 0) {
  Fd fd(socket(AF_INET, SOCK_STREAM | flags, 0));
  error = Connect(fd.get());
  return fd;
}

// What is known outside, for the guest: who waits in the queue of the service, and how often the engine has
// put a call off.
class WaitersSeen {
 public:
  GuestOptions Options(net::ServiceSpec service, bool wait_killable = false) {
    return {.wait_killable = wait_killable,
            .operate =
                [this](Accelerator& engine) {
                  seen_->queued = engine.DescribeServices().at(0).queued;
                  seen_->waits = engine.Counters().at(static_cast<size_t>(Counter::waits_begun)).value;
                },
            .services = {std::move(service)}};
  }
  // Until so many wait.
  void Await(uint64_t queued) const {
    while (seen_->queued != queued) usleep(200);
  }
  uint64_t waits() const { return seen_->waits; }
  void AwaitWaits(uint64_t wanted) const {
    while (seen_->waits < wanted) usleep(200);
  }

 private:
  struct Seen {
    std::atomic<uint64_t> queued, waits;
  };
  const Shared<Seen> seen_;
};

TEST(BalanceLimit, AFullBackendIsPassedOverAndWhenAllAreFullConnectsAreRefused) {
  const Backend one, two;
  GuestContainer container({.services = {LimitedTo(2, {one.address(), two.address()})}});
  EXPECT_EQ(container.Run([] {
    std::vector<Fd> held;
    for (int i = 0; i < 4; ++i) {
      int error = 0;
      held.push_back(Connected(error, i % 2 == 0 ? 0 : SOCK_NONBLOCK));
      if (error != 0 && error != EINPROGRESS) return error;
    }
    if (ConnectOnce() != ECONNREFUSED) return 200;
    int error = 0;
    Connected(error, SOCK_NONBLOCK);
    return error == ECONNREFUSED ? 0 : 201;
  }),
            0)
      << container.error();
  EXPECT_EQ(one.Arrived().size(), 2u);
  EXPECT_EQ(two.Arrived().size(), 2u);
  EXPECT_EQ(container.services().at(0).refused, 2u);
  EXPECT_EQ(container.services().at(0).backends.at(0).limit, 2u);
}

TEST(BalanceLimit, ConnectionsOfOthersCount) {
  const Backend backend;
  const Fd others(socket(AF_INET, SOCK_STREAM, 0));
  ASSERT_EQ(connect(others.get(), backend.address().data(), backend.address().size()), 0);
  GuestContainer container({.services = {LimitedTo(1, {backend.address()})}});
  EXPECT_EQ(container.Run([] { return ConnectOnce(); }), ECONNREFUSED) << container.error();
  EXPECT_EQ(container.services().at(0).backends.at(0).state, "full");
}

TEST(BalanceLimit, AnAttemptThatIsRefusedAtOnceLeavesItsPlace) {
  const Closed closed;
  GuestContainer container({.services = {LimitedTo(1, {closed.address()})}});
  EXPECT_EQ(container.Run([] {
    for (int i = 0; i < 5; ++i) {
      if (ConnectOnce() != ECONNREFUSED) return 200;
    }
    return 0;
  }),
            0)
      << container.error();
  EXPECT_EQ(container.services().at(0).backends.at(0).failed, 5u);
  EXPECT_EQ(container.services().at(0).refused, 0u);
}

TEST(BalanceLimit, WhoFindsAllFullWaitsUntilAConnectionEnds) {
  const Backend backend;
  WaitersSeen waiters;
  GuestContainer container(waiters.Options(LimitedTo(1, {backend.address()}, /*queue=*/1)));
  EXPECT_EQ(container.Run([&] {
    int error = 0, other_error = -1;
    Fd first = Connected(error);
    if (error != 0) return error;
    std::thread other([&] { other_error = ConnectOnce(); });
    waiters.Await(1);
    // There is room for one; others are not let in before it.
    if (ConnectOnce() != ECONNREFUSED) return 200;
    first.reset();
    const int64_t closed = MonotonicNow();
    other.join();
    if (other_error != 0) return other_error;
    return MonotonicNow() - closed < 2000 * kLimitMs ? 0 : 201;
  }),
            0)
      << container.error();
  EXPECT_EQ(backend.Arrived().size(), 2u);
  const net::ServiceReport& report = container.services().at(0);
  EXPECT_EQ(report.waited, 1u);
  EXPECT_EQ(report.refused, 1u);
  EXPECT_EQ(report.queued, 0u);
  EXPECT_GT(report.waited_s, 0);
}

TEST(BalanceLimit, TheQueueIsFirstComeFirstServed) {
  const Backend backend;
  constexpr int kWaiters = 6;
  WaitersSeen waiters;
  GuestContainer container(waiters.Options(LimitedTo(1, {backend.address()}, kWaiters)));
  EXPECT_EQ(container.Run([&] {
    int error = 0;
    Fd first = Connected(error);
    if (error != 0) return error;
    std::atomic<int> served = 0;
    std::vector<int> order(kWaiters, -1);
    std::vector<std::thread> threads;
    // Children of one thread each have their turn at one reactor.
    for (int i = 0; i < kWaiters; ++i) {
      threads.emplace_back([&, i] {
        int its_error = 0;
        const Fd fd = Connected(its_error);
        order[static_cast<size_t>(i)] = its_error == 0 ? served++ : 100 + its_error;
      });
      waiters.Await(static_cast<uint64_t>(i) + 1);
    }
    first.reset();
    for (std::thread& thread : threads) thread.join();
    for (int i = 0; i < kWaiters; ++i) {
      if (order[static_cast<size_t>(i)] != i) return 100 + i;
    }
    return 0;
  }),
            0)
      << container.error();
  EXPECT_EQ(container.services().at(0).waited, static_cast<uint64_t>(kWaiters));
}

TEST(BalanceLimit, WhoHasWaitedForTooLongIsRefused) {
  const Backend backend;
  GuestContainer container({.services = {LimitedTo(1, {backend.address()}, 4, milliseconds(300))}});
  EXPECT_EQ(container.Run([] {
    int error = 0;
    const Fd first = Connected(error);
    if (error != 0) return error;
    const int64_t begun = MonotonicNow();
    if (ConnectOnce() != ECONNREFUSED) return 200;
    return MonotonicNow() - begun >= 300 * kLimitMs ? 0 : 201;
  }),
            0)
      << container.error();
  EXPECT_EQ(container.services().at(0).refused, 1u);
}

TEST(BalanceLimit, TheProgramsOwnTimeoutIsForTheWaitAsWell) {
  const Backend backend;
  GuestContainer container({.services = {LimitedTo(1, {backend.address()}, 4)}});
  EXPECT_EQ(container.Run([] {
    int error = 0;
    const Fd first = Connected(error);
    if (error != 0) return error;
    const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
    const timeval timeout{.tv_sec = 0, .tv_usec = 300'000};
    setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    return Connect(fd.get());
  }),
            EINPROGRESS)
      << container.error();
}

TEST(BalanceLimit, ASignalEndsTheWaitAndARestartedConnectWaitsAgain) {
  const Backend backend;
  for (const bool wait_killable : {false, true}) {
    for (const int flags : {0, SA_RESTART}) {
      WaitersSeen waiters;
      // Where signals are kept back until the answer, nobody restarts.
      const bool restarts = flags != 0 && !wait_killable;
      GuestContainer container(
          waiters.Options(LimitedTo(1, {backend.address()}, /*queue=*/1), wait_killable));
      EXPECT_EQ(container.Run([&] {
        int error = 0;
        Fd first = Connected(error);
        if (error != 0) return error;
        struct sigaction action {};
        action.sa_handler = [](int) {};
        action.sa_flags = flags;
        sigaction(SIGALRM, &action, nullptr);
        std::thread other([&, caller = gettid()] {
          waiters.Await(1);
          const uint64_t waits = waiters.waits(), signals = restarts ? 20 : 1;
          for (uint64_t i = 1; i <= signals; ++i) {
            tgkill(getpid(), caller, SIGALRM);
            if (restarts) waiters.AwaitWaits(waits + i);
          }
          if (restarts) first.reset();
        });
        const int result = ConnectOnce();
        other.join();
        return result;
      }),
                restarts ? 0 : EINTR)
          << container.error() << " killable " << wait_killable << " flags " << flags;
      EXPECT_EQ(container.services().at(0).queued, 0u);
      backend.Arrived();
    }
  }
}

TEST(BalanceLimit, AnEngineThatDiesKeepsNobodyFromWaitingAndLetsNobodyInBeyondTheLimit) {
  const Backend backend;
  Shared<std::atomic<bool>> killed;
  GuestContainer* self = nullptr;
  bool has_died = false;
  GuestContainer container({.engine_dies =
                                [&] {
                                  if (has_died || self->Counted(Counter::waits_begun) == 0) return false;
                                  has_died = true;
                                  *killed = true;
                                  return true;
                                },
                            .services = {LimitedTo(1, {backend.address()}, /*queue=*/2)}});
  self = &container;
  EXPECT_EQ(container.Run([&] {
    int error = 0, other_error = -1;
    Fd first = Connected(error);
    if (error != 0) return error;
    std::thread other([&] { other_error = ConnectOnce(); });
    while (!*killed) usleep(200);
    // The next engine looks before it lets anybody in.
    for (int i = 0; i < 20; ++i) {
      int refused = 0;
      Connected(refused, SOCK_NONBLOCK);
      if (refused != ECONNREFUSED) return 200;
    }
    if (other_error != -1) return 201;
    first.reset();
    other.join();
    return other_error;
  }),
            0)
      << container.error();
  EXPECT_TRUE(has_died);
  EXPECT_EQ(backend.Arrived().size(), 2u);
}

TEST(BalanceLimit, HoweverManyConnectAtOnceThereAreNeverMoreThanTheLimit) {
  constexpr uint32_t kPlaces = 3;
  const Backend backend;
  struct Counts {
    std::atomic<int> open{0}, most{0}, connected{0}, failed_with{0};
  };
  Shared<Counts> counts;
  GuestContainer container({.meanwhile = [&](pid_t) { backend.Arrived(); },
                            .services = {LimitedTo(kPlaces, {backend.address()}, 100)}});
  EXPECT_EQ(container.Run([&] {
    std::vector<pid_t> children;
    for (int child = 0; child < 4; ++child) {
      children.push_back(fork());
      if (children.back() != 0) continue;
      std::vector<std::thread> threads;
      for (int thread = 0; thread < 4; ++thread) {
        threads.emplace_back([&] {
          for (int i = 0; i < 25; ++i) {
            int error = 0;
            Fd fd = Connected(error);
            if (error != 0) {
              counts->failed_with = error;
              continue;
            }
            ++counts->connected;
            const int now = ++counts->open;
            int most = counts->most;
            while (now > most && !counts->most.compare_exchange_weak(most, now)) {
            }
            --counts->open;
          }
        });
      }
      for (std::thread& thread : threads) thread.join();
      _exit(0);
    }
    for (const pid_t child : children) waitpid(child, nullptr, 0);
    return 0;
  }),
            0)
      << container.error();
  EXPECT_EQ(counts->failed_with, 0) << strerror(counts->failed_with);
  EXPECT_EQ(counts->connected, 400);
  EXPECT_LE(counts->most, static_cast<int>(kPlaces));
}

// Whatever becomes of those who connect or wait, their places are there for others afterwards.
TEST(BalanceLimit, PlacesOfCallersThatAreKilledAreNotLost) {
  const Full silent;
  const Backend backend;
  net::ServiceSpec service = LimitedTo(2, {silent.address(), backend.address()}, 50);
  service.connect.attempt_timeout = milliseconds(30);
  GuestContainer container({.meanwhile = [&](pid_t) { backend.Arrived(); }, .services = {service}});
  EXPECT_EQ(container.Run([&] {
    for (int round = 0; round < 12; ++round) {
      std::vector<pid_t> children;
      for (int child = 0; child < 8; ++child) {
        children.push_back(fork());
        if (children.back() == 0) {
          for (;;) ConnectOnce();
        }
      }
      usleep(static_cast<useconds_t>(5000 + 3000 * round));
      for (const pid_t child : children) kill(child, SIGKILL);
      for (const pid_t child : children) waitpid(child, nullptr, 0);
    }
    // Two at the one that answers; and two at the silent one, which are there until their time is over.
    for (int i = 0; i < 2; ++i) {
      int error = 0;
      [[maybe_unused]] const int kept = Connected(error).release();
      if (error != 0) return error;
    }
    return 0;
  }),
            0)
      << container.error();
  const net::ServiceReport& report = container.services().at(0);
  EXPECT_EQ(report.queued, 0u);
}

}  // namespace
}  // namespace shunt
