// SPDX-License-Identifier: Apache-2.0
// The keeper: engines die, and what they held goes on.

#include "tools/keeper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <ctime>

#include "tests/tools/keeper_stage.h"

namespace shunt {
namespace {

using ::testing::HasSubstr;
using Ms = std::chrono::milliseconds;

constexpr HoldingName kJournal{HoldingTag::kJournal, 0};
constexpr HoldingName kOne{HoldingTag::kContainer, 1};
constexpr HoldingName kTwo{HoldingTag::kContainer, 2};

TEST(KeeperTest, StartsAnEngineWithNothingButItsLink) {
  KeeperStage stage;
  stage.Start();
  const RemoteEngine* const engine = stage.NextEngine();
  ASSERT_NE(engine, nullptr);
  ASSERT_TRUE(stage.Ready(1));
  EXPECT_EQ(engine->descriptors, "3");
  EXPECT_EQ(stage.ready_text, "serving");
  EXPECT_EQ(stage.keeper->engine_pid(), engine->pid);
}

TEST(KeeperTest, GivesEveryEngineAllThatIsHeldAsOftenAsItDies) {
  constexpr size_t kDeaths = 50;
  KeeperStage stage;
  Thing settings, listener, memory, journal;
  stage.Create();
  ASSERT_TRUE(stage.keeper
                  ->Hold({HoldingTag::kSettings, 0},
                         [&] {
                           std::vector<Fd> fds;
                           fds.push_back(settings.Copy());
                           return fds;
                         }())
                  .ok());
  stage.keeper->Begin();
  ASSERT_TRUE(stage.Ready(1));
  stage.NextEngine()->Do("hold 5 1", {listener.fd.get(), memory.fd.get()});
  stage.engines[0]->Do("hold 4 0", {journal.fd.get()});
  ASSERT_TRUE(stage.Until([&] { return stage.keeper->holdings().all().size() == 3; }));

  std::vector<double> times;
  for (size_t death = 1; death <= kDeaths; ++death) {
    const auto start = std::chrono::steady_clock::now();
    ASSERT_EQ(kill(stage.keeper->engine_pid(), SIGKILL), 0);
    ASSERT_TRUE(stage.Ready(death + 1));
    times.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    RemoteEngine* const engine = stage.NextEngine();
    ASSERT_NE(engine, nullptr);
    ASSERT_TRUE(stage.Until([&] { return engine->Heard("start"); }));
    EXPECT_TRUE(engine->Heard(GiveLine({HoldingTag::kSettings, 0}, {&settings})));
    EXPECT_TRUE(engine->Heard(GiveLine(kOne, {&listener, &memory})));
    EXPECT_TRUE(engine->Heard(GiveLine(kJournal, {&journal})));
  }
  std::sort(times.begin(), times.end());
  std::printf("from SIGKILL to kReady: median %.2f ms, longest %.2f ms\n", times[times.size() / 2],
              times.back());
  EXPECT_FALSE(stage.keeper->gave_up());
}

}  // namespace
}  // namespace shunt
