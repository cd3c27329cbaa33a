// SPDX-License-Identifier: Apache-2.0
// Upgrades: a new engine takes over from one that serves, or does not, at every step of the way.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "tests/tools/engine_script.h"
#include "tests/tools/keeper_stage.h"

namespace shunt {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using Ms = std::chrono::milliseconds;

constexpr HoldingName kOne{HoldingTag::kContainer, 1};
constexpr HoldingName kTwo{HoldingTag::kContainer, 2};

class KeeperUpgradeTest : public ::testing::Test {
 protected:
  // An engine serves, and another program lies at its path.
  void SetUp() override {
    stage_.Start();
    ASSERT_TRUE(stage_.Ready(1));
    old_ = stage_.NextEngine();
    old_program_ = old_->program;
    stage_.ReplaceProgram(KeeperStage::ScriptedEngine());
    new_program_ = Identity(stage_.program.c_str());
  }

  // Both engines only do what they are told from here on.
  void BeginByHand() {
    ASSERT_TRUE(stage_.Until([&] { return old_->Heard("start"); }));
    old_->Do("wait");
    stage_.obliging = false;
    ASSERT_TRUE(stage_.keeper->Upgrade().ok());
    new_ = stage_.NextEngine();
    ASSERT_NE(new_, nullptr);
    ASSERT_TRUE(stage_.Until([&] { return new_->Heard("given"); }));
  }

  // The next engine serves, and was executed from `program`.
  void ExpectServing(size_t ready, const std::string& program) {
    ASSERT_TRUE(stage_.Ready(ready));
    ASSERT_TRUE(stage_.Until([&] { return stage_.engines.back()->pid == stage_.keeper->engine_pid(); }));
    EXPECT_EQ(stage_.engines.back()->program, program);
  }

  void ExpectUpgraded(bool well) {
    ASSERT_TRUE(stage_.Until([&] { return !stage_.upgrades.empty(); }));
    EXPECT_EQ(stage_.upgrades[0].ok(), well) << stage_.upgrades[0];
    EXPECT_EQ(stage_.upgrades.size(), 1U);
  }

  KeeperStage stage_;
  RemoteEngine* old_ = nullptr;
  RemoteEngine* new_ = nullptr;
  std::string old_program_, new_program_;
};

TEST_F(KeeperUpgradeTest, TheNewProgramTakesOverAndIsTheOneThatIsStartedFromThenOn) {
  const Thing thing;
  ASSERT_TRUE(stage_.keeper->Hold(kOne, Copies({&thing})).ok());
  old_->Do("upgrade");
  ExpectServing(2, new_program_);
  ExpectUpgraded(true);
  EXPECT_TRUE(stage_.engines[1]->Heard(GiveLine(kOne, {&thing})));
  EXPECT_TRUE(stage_.Until([&] { return old_->Heard("closed"); }));
  EXPECT_TRUE(old_->Heard("stop"));
  EXPECT_TRUE(old_->Heard("upgrade-done"));
  EXPECT_TRUE(stage_.Ends(old_->pid));
  kill(stage_.keeper->engine_pid(), SIGKILL);
  ExpectServing(3, new_program_);
}

TEST_F(KeeperUpgradeTest, NobodyStartsBeforeTheOtherHasStopped) {
  BeginByHand();
  EXPECT_FALSE(old_->Heard("stop")) << "it serves until its successor is prepared";
  new_->Do("prepared");
  ASSERT_TRUE(stage_.Until([&] { return old_->Heard("stop"); }));
  EXPECT_FALSE(new_->Heard("start"));
  old_->Do("stopped");
  ASSERT_TRUE(stage_.Until([&] { return new_->Heard("start"); }));
  EXPECT_FALSE(old_->Heard("upgrade-done")) << "its successor does not serve yet";
  new_->Do("ready");
  ExpectUpgraded(true);
  EXPECT_TRUE(stage_.Ends(old_->pid));
}

TEST_F(KeeperUpgradeTest, WhatTheOldEngineAddsMeanwhileReachesTheNewOne) {
  BeginByHand();
  const Thing thing;
  old_->Do("hold 5 2", {thing.fd.get()});
  EXPECT_TRUE(stage_.Until([&] { return new_->Heard(GiveLine(kTwo, {&thing})); }));
  EXPECT_EQ(old_->Count("give"), 0U) << "it has that";
}

TEST_F(KeeperUpgradeTest, WhoDoesNotStopIsKilledFirst) {
  stage_.options.patience.stop = Ms(50);
  KeeperStage stage;
  stage.options.patience.stop = Ms(50);
  stage.Start();
  ASSERT_TRUE(stage.Ready(1));
  RemoteEngine* const old = stage.NextEngine();
  kill(old->pid, SIGSTOP);
  ASSERT_TRUE(stage.keeper->Upgrade().ok());
  ASSERT_TRUE(stage.Ready(2));
  EXPECT_FALSE(KeeperStage::MayAct(old->pid)) << "it had its end before the new one served";
  EXPECT_TRUE(stage.upgrades.at(0).ok());
}

TEST_F(KeeperUpgradeTest, AProgramThatCannotRunChangesNothing) {
  stage_.ReplaceProgram("/usr/bin/false");
  old_->Do("upgrade");
  ExpectUpgraded(false);
  EXPECT_TRUE(stage_.Until([&] { return old_->Count("upgrade-failed") == 1; }));
  EXPECT_FALSE(old_->Heard("stop"));
  EXPECT_EQ(stage_.keeper->engine_pid(), old_->pid);
  kill(old_->pid, SIGKILL);
  ExpectServing(2, old_program_);
}

TEST_F(KeeperUpgradeTest, AProgramThatIsNotThereChangesNothing) {
  ASSERT_EQ(unlink(stage_.program.c_str()), 0);
  old_->Do("upgrade");
  ExpectUpgraded(false);
  EXPECT_TRUE(stage_.Until([&] { return old_->Count("upgrade-failed") == 1; }));
  EXPECT_THAT(stage_.said, Contains(HasSubstr("No such file")));
}

TEST_F(KeeperUpgradeTest, ASilentSuccessorIsGivenUp) {
  KeeperStage stage;
  stage.options.patience.prepare = Ms(2000);  // the first engine's, too
  stage.Start();
  ASSERT_TRUE(stage.Ready(1));
  RemoteEngine* const old = stage.NextEngine();
  stage.obliging = false;
  ASSERT_TRUE(stage.keeper->Upgrade().ok());
  ASSERT_TRUE(stage.Until([&] { return old->Count("upgrade-failed") == 1; }));
  EXPECT_EQ(stage.keeper->engine_pid(), old->pid);
  EXPECT_FALSE(old->Heard("stop"));
}

TEST_F(KeeperUpgradeTest, ASuccessorThatDiesBeforeItIsPreparedChangesNothing) {
  BeginByHand();
  kill(new_->pid, SIGKILL);
  ExpectUpgraded(false);
  EXPECT_TRUE(stage_.Until([&] { return old_->Count("upgrade-failed") == 1; }));
  EXPECT_EQ(stage_.keeper->engine_pid(), old_->pid);
}

TEST_F(KeeperUpgradeTest, ASuccessorThatDiesWhileTheOldEngineStopsIsReplacedByTheOldProgram) {
  BeginByHand();
  new_->Do("prepared");
  ASSERT_TRUE(stage_.Until([&] { return old_->Heard("stop"); }));
  stage_.obliging = true;
  kill(new_->pid, SIGKILL);
  ExpectUpgraded(false);
  ExpectServing(2, old_program_);
  EXPECT_NE(stage_.keeper->engine_pid(), old_->pid);
  EXPECT_TRUE(stage_.Ends(old_->pid));
}

TEST_F(KeeperUpgradeTest, ASuccessorThatDiesAfterItsStartIsReplacedByTheOldProgram) {
  BeginByHand();
  new_->Do("prepared");
  ASSERT_TRUE(stage_.Until([&] { return old_->Heard("stop"); }));
  old_->Do("stopped");
  ASSERT_TRUE(stage_.Until([&] { return new_->Heard("start"); }));
  stage_.obliging = true;
  kill(new_->pid, SIGKILL);
  ExpectUpgraded(false);
  ExpectServing(2, old_program_);
  EXPECT_TRUE(stage_.Ends(old_->pid));
}

TEST_F(KeeperUpgradeTest, AnOldEngineThatDiesEarlyHastensItsSuccessor) {
  BeginByHand();
  kill(old_->pid, SIGKILL);
  ASSERT_TRUE(stage_.Until([&] { return stage_.keeper->engine_pid() == 0; }));
  new_->Do("prepared");
  ASSERT_TRUE(stage_.Until([&] { return new_->Heard("start"); }));
  new_->Do("ready");
  ExpectUpgraded(true);
  EXPECT_EQ(stage_.keeper->engine_pid(), new_->pid);
}

TEST_F(KeeperUpgradeTest, AnOldEngineThatDiesWhileItStopsHastensItsSuccessor) {
  BeginByHand();
  new_->Do("prepared");
  ASSERT_TRUE(stage_.Until([&] { return old_->Heard("stop"); }));
  kill(old_->pid, SIGKILL);
  ASSERT_TRUE(stage_.Until([&] { return new_->Heard("start"); }));
  new_->Do("ready");
  ExpectUpgraded(true);
}

TEST_F(KeeperUpgradeTest, IfBothDieTheOldProgramServesAgain) {
  BeginByHand();
  stage_.obliging = true;
  kill(old_->pid, SIGKILL);
  kill(new_->pid, SIGKILL);
  ExpectUpgraded(false);
  ExpectServing(2, old_program_);
}

TEST_F(KeeperUpgradeTest, OneAtATime) {
  BeginByHand();
  EXPECT_FALSE(stage_.keeper->Upgrade().ok());
  old_->Do("upgrade");
  EXPECT_TRUE(stage_.Until([&] { return old_->Count("upgrade-failed") == 1; }));
}

}  // namespace
}  // namespace shunt
