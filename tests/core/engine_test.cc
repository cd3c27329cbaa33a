// SPDX-License-Identifier: Apache-2.0
#include "core/engine.h"

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <mutex>

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

}  // namespace
}  // namespace shunt
