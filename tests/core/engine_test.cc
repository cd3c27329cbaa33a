// SPDX-License-Identifier: Apache-2.0
#include "core/engine.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <set>

#include "tests/support/listener.h"

namespace shunt {
namespace {

// A container's calls wait for the next engine from the moment in which its reactor stops.
TEST(EngineTest, ReactorsStopBesideEachOtherAndNotInTurn) {
  constexpr int kReactors = 3;
  std::mutex mutex;
  std::condition_variable changed;
  int stopping = 0;
  bool together = true;
  EngineOptions options{.reactors = kReactors, .pin = false};
  options.on_reactor_stop = [&] {
    std::unique_lock lock(mutex);
    ++stopping;
    changed.notify_all();
    if (!changed.wait_for(lock, std::chrono::seconds(10), [&] { return stopping == kReactors; }))
      together = false;
  };
  auto engine = Engine::Start(options, {});
  ASSERT_TRUE(engine.ok()) << engine.status();
  (*engine)->Halt();
  EXPECT_EQ(stopping, kReactors);
  EXPECT_TRUE(together);
}

// A process that does nothing, on these CPUs.
class Pinned {
 public:
  explicit Pinned(const std::set<int>& cpus) : pid_(fork()) {
    if (pid_ == 0) {
      for (;;) pause();
    }
    cpu_set_t mask;
    CPU_ZERO(&mask);
    for (const int cpu : cpus) CPU_SET(static_cast<size_t>(cpu), &mask);
    pinned_ = pid_ > 0 && sched_setaffinity(pid_, sizeof(mask), &mask) == 0;
  }
  ~Pinned() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  pid_t pid() const { return pinned_ ? pid_ : -1; }

 private:
  const pid_t pid_;
  bool pinned_ = false;
};

class PlaceTest : public testing::Test {
 protected:
  void SetUp() override {
    cpus_ = AllowedCpus();
    if (cpus_.size() < 2) GTEST_SKIP() << "this needs two CPUs";
  }

  void Start(bool pin) {
    auto engine = Engine::Start({.pin = pin}, {});
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }

  // Where the reactor is that has been chosen, and the one that may help; -1: none.
  struct Place {
    int cpu;
    int helper;
  };
  Place PlaceOf(pid_t task) {
    absl::StatusOr<Listener> listener = Listener::Adopt(MakeListener());
    if (!listener.ok()) return {-2, -2};
    ServedListener& served =
        engine_->Serve(++key_, *std::move(listener), std::make_unique<Guest>(), task, nullptr);
    return {served.main.reactor->cpu(), served.helper.reactor == nullptr ? -1 : served.helper.reactor->cpu()};
  }

  // Nobody is under these listeners, so they end at once, but not before the engine looks.
  std::vector<int> cpus_;
  std::unique_ptr<Engine> engine_;
  uint64_t key_ = 0;
};

TEST_F(PlaceTest, WhoMayNotMoveIsServedWhereHeIs) {
  Start(/*pin=*/true);
  for (int round = 0; round < 3; ++round) {
    for (const int cpu : cpus_) {
      const Pinned there({cpu});
      ASSERT_GT(there.pid(), 0);
      const Place place = PlaceOf(there.pid());
      EXPECT_EQ(place.cpu, cpu);
      EXPECT_EQ(place.helper, -1) << "somebody helps from another CPU";
    }
  }
}

TEST_F(PlaceTest, OfSeveralCpusTheOneWithTheFewestListenersIsTakenAndAnotherHelps) {
  Start(/*pin=*/true);
  const std::set<int> two = {cpus_[0], cpus_[1]};
  const Pinned there(two);
  ASSERT_GT(there.pid(), 0);
  std::multiset<int> taken;
  for (int i = 0; i < 4; ++i) {
    const Place place = PlaceOf(there.pid());
    EXPECT_EQ((std::set{place.cpu, place.helper}), two);
    taken.insert(place.cpu);
  }
  EXPECT_EQ(taken.count(cpus_[0]), 2u);
}

TEST_F(PlaceTest, WhoIsNotKnownOrNowhereNearIsServedAnyhow) {
  Start(/*pin=*/true);
  for (const pid_t nobody : {0, 0x7fffffff}) {
    std::multiset<int> taken;
    for (size_t i = 0; i < 2 * cpus_.size(); ++i) taken.insert(PlaceOf(nobody).cpu);
    for (const int cpu : cpus_) EXPECT_EQ(taken.count(cpu), 2u);
  }
}

TEST_F(PlaceTest, ReactorsThatMoveAreNearEverybody) {
  Start(/*pin=*/false);
  const Pinned there({cpus_[1]});
  ASSERT_GT(there.pid(), 0);
  EXPECT_NE(
      engine_->Serve(1, *Listener::Adopt(MakeListener()), std::make_unique<Guest>(), there.pid(), nullptr)
          .helper.reactor,
      nullptr);
}

}  // namespace
}  // namespace shunt
