// SPDX-License-Identifier: Apache-2.0
// The keeper: engines die, and what they held goes on.

#include "tools/keeper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "absl/strings/str_cat.h"
#include "tests/support/seccomp_child.h"
#include "tests/tools/keeper_stage.h"

namespace shunt {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using Ms = std::chrono::milliseconds;

constexpr HoldingName kSettings{HoldingTag::kSettings, 0};

pid_t ParentOf(pid_t pid) {
  std::string state;
  pid_t parent = 0;
  KeeperStage::FieldsOf(pid) >> state >> parent;
  return parent;
}

// ---- restarts

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
  const Thing settings, listener, memory, journal;
  stage.Create();
  ASSERT_TRUE(stage.keeper->Hold(kSettings, Copies({&settings})).ok());
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
    const RemoteEngine* const engine = stage.NextEngine();
    ASSERT_NE(engine, nullptr);
    ASSERT_TRUE(stage.Until([&] { return engine->Heard("start"); }));
    EXPECT_TRUE(engine->Heard(GiveLine(kSettings, {&settings})));
    EXPECT_TRUE(engine->Heard(GiveLine(kOne, {&listener, &memory})));
    EXPECT_TRUE(engine->Heard(GiveLine(kJournal, {&journal})));
  }
  std::sort(times.begin(), times.end());
  std::printf("from SIGKILL to kReady: median %.2f ms, longest %.2f ms\n", times[times.size() / 2],
              times.back());
  EXPECT_FALSE(stage.keeper->gave_up());
}

TEST(KeeperTest, GivesWhatReplacedAHoldingAndNotWhatWasDropped) {
  KeeperStage stage;
  const Thing first, second, dropped;
  stage.Start();
  RemoteEngine* engine = stage.NextEngine();
  ASSERT_TRUE(stage.Ready(1));
  engine->Do("hold 5 1", {first.fd.get()});
  engine->Do("hold 5 2", {dropped.fd.get()});
  engine->Do("hold 5 1", {second.fd.get()});
  engine->Do("drop 5 2");
  engine->Do("drop 5 3");  // nothing is held there
  engine->Do("exit 1");
  ASSERT_TRUE(stage.Ready(2));
  engine = stage.NextEngine();
  ASSERT_TRUE(stage.Until([&] { return engine->Heard("start"); }));
  EXPECT_EQ(engine->Count("give"), 1U);
  EXPECT_TRUE(engine->Heard(GiveLine(kOne, {&second})));
  EXPECT_EQ(stage.keeper->holdings().descriptors(), 1U);
  EXPECT_THAT(stage.said, Contains(HasSubstr("ended with status 1")));
}

TEST(KeeperTest, PassesOnWhatItsOwnerAddsLater) {
  KeeperStage stage;
  const Thing thing;
  stage.Start();
  ASSERT_TRUE(stage.Ready(1));
  ASSERT_TRUE(stage.keeper->Hold(kOne, Copies({&thing})).ok());
  const RemoteEngine* const engine = stage.NextEngine();
  EXPECT_TRUE(stage.Until([&] { return engine->Heard(GiveLine(kOne, {&thing})); }));
}

TEST(KeeperTest, GivesOnceMoreWhatAnEngineAsksFor) {
  KeeperStage stage;
  const Thing thing;
  stage.Create();
  ASSERT_TRUE(stage.keeper->Hold(kOne, Copies({&thing})).ok());
  stage.keeper->Begin();
  const RemoteEngine* const engine = stage.NextEngine();
  ASSERT_TRUE(stage.Ready(1));
  engine->Do("again 5 2");  // nothing is held there
  engine->Do("again 5 1");
  ASSERT_TRUE(stage.Until([&] { return engine->Count("give") == 2; }));
  EXPECT_EQ(std::count(engine->heard.begin(), engine->heard.end(), GiveLine(kOne, {&thing})), 2);
  EXPECT_EQ(stage.ready, 1U);
}

TEST(KeeperTest, TellsWhatIsServedAndHasTheConfigurationReadAgain) {
  KeeperStage stage;
  stage.Start();
  const RemoteEngine* const engine = stage.NextEngine();
  ASSERT_TRUE(stage.Ready(1));
  engine->Do("serving 5 9");
  EXPECT_TRUE(stage.Until([&] { return !stage.serving.empty(); }));
  EXPECT_EQ(stage.serving[0], "5 9 a name");
  stage.keeper->Reload();
  EXPECT_TRUE(stage.Until([&] { return engine->Heard("reload"); }));
}

TEST(KeeperTest, KillsAnEngineThatDoesNotAnswer) {
  KeeperStage stage;
  stage.options.patience.ping = Ms(20);
  stage.options.patience.pong = Ms(100);
  stage.Start();
  const RemoteEngine* const engine = stage.NextEngine();
  ASSERT_TRUE(stage.Ready(1));
  ASSERT_TRUE(stage.Until([&] { return engine->Count("ping") >= 10; })) << "who answers may stay";
  EXPECT_EQ(stage.ready, 1U);
  kill(engine->pid, SIGSTOP);
  EXPECT_TRUE(stage.Ready(2));
  EXPECT_THAT(stage.said, Contains(HasSubstr("does not answer")));
  EXPECT_TRUE(stage.Ends(engine->pid));
}

TEST(KeeperTest, LeavesInOrder) {
  KeeperStage stage;
  stage.Start();
  const RemoteEngine* const engine = stage.NextEngine();
  ASSERT_TRUE(stage.Ready(1));
  stage.keeper->Leave();
  ASSERT_TRUE(stage.Until([&] { return stage.ended.has_value(); }));
  EXPECT_TRUE(stage.ended->ok());
  EXPECT_TRUE(stage.Until([&] { return engine->Heard("leave"); }));
  EXPECT_EQ(stage.engines.size(), 1U) << "nobody is started any more";
}

TEST(KeeperTest, KillsWhoDoesNotLeave) {
  KeeperStage stage;
  stage.options.patience.leave = Ms(50);
  stage.Start();
  const RemoteEngine* const engine = stage.NextEngine();
  ASSERT_TRUE(stage.Ready(1));
  kill(engine->pid, SIGSTOP);
  stage.keeper->Leave();
  EXPECT_TRUE(stage.Until([&] { return stage.ended.has_value(); }));
  EXPECT_TRUE(stage.Ends(engine->pid));
}

TEST(KeeperTest, SaysSoWhenNoEngineCanBeStartedAnyMore) {
  KeeperStage stage;
  stage.Start();
  const RemoteEngine* const engine = stage.NextEngine();
  ASSERT_TRUE(stage.Ready(1));
  kill(ParentOf(engine->pid), SIGKILL);
  ASSERT_TRUE(stage.Until([&] { return stage.ended.has_value(); }));
  EXPECT_FALSE(stage.ended->ok());
  EXPECT_TRUE(stage.Ends(engine->pid));
}

TEST(KeeperTest, NothingOutlivesAKilledKeeper) {
  KeeperStage stage;
  const pid_t keeper = fork();
  if (keeper == 0) {
    stage.Start();
    for (;;) {
      pollfd event{stage.keeper->event_fd(), POLLIN, 0};
      poll(&event, 1, -1);
      stage.keeper->HandleEvents();
    }
  }
  const RemoteEngine* const engine = stage.NextEngine();
  ASSERT_NE(engine, nullptr);
  ASSERT_TRUE(stage.Until([&] { return engine->Heard("start"); }));
  const pid_t starter = ParentOf(engine->pid);
  EXPECT_EQ(ParentOf(starter), keeper);
  kill(keeper, SIGKILL);
  waitpid(keeper, nullptr, 0);
  EXPECT_TRUE(stage.Ends(starter));
  EXPECT_TRUE(stage.Ends(engine->pid));
}

// ---- giving up

TEST(KeeperTest, AnswersCallsItselfWhileNoEngineStaysAliveAndThenNoMore) {
  KeeperStage stage;
  stage.options.patience.give_up = Ms(300);
  std::vector<int> journals;
  uint64_t in_flight = 0;
  stage.options.fail_in_flight = [&](int journal_fd, const FindListener& find) {
    journals.push_back(journal_fd);
    EXPECT_EQ(find(2), -1);
    FailCall(find(1), in_flight);
  };
  // Each thread of a program in a container makes one call: one is received by an engine that dies, the other
  // by nobody.
  const auto call = [] { return syscall(SYS_getpgid, 0) == -1 && errno == EIO ? 0 : 1; };
  testing_support::SeccompChild received({SYS_getpgid}, call);
  ASSERT_TRUE(received.ok());
  const std::optional<seccomp_notif> notification = received.Receive();
  ASSERT_TRUE(notification.has_value());
  in_flight = notification->id;
  const Thing journal;
  stage.Create();
  std::vector<Fd> listener;
  listener.emplace_back(dup(received.listener()));
  ASSERT_TRUE(stage.keeper->Hold(kOne, std::move(listener)).ok());
  ASSERT_TRUE(stage.keeper->Hold(kJournal, Copies({&journal})).ok());
  testing_support::SeccompChild waiting({SYS_getpgid}, call);
  listener.clear();
  listener.emplace_back(dup(waiting.listener()));
  ASSERT_TRUE(stage.keeper->Hold({HoldingTag::kContainer, 5}, std::move(listener)).ok());

  stage.obliging = false;
  stage.keeper->Begin();
  for (int i = 0; i < 5; ++i) {
    RemoteEngine* const engine = stage.NextEngine();
    ASSERT_NE(engine, nullptr);
    engine->Do(i == 4 ? "failed" : "prepared");
    engine->Do("exit 1");
  }
  ASSERT_TRUE(stage.Until([&] { return stage.keeper->gave_up(); }));
  pollfd ends[] = {{received.pidfd(), POLLIN, 0}, {waiting.pidfd(), POLLIN, 0}};
  ASSERT_TRUE(stage.Until([&] { return poll(ends, 2, 0) == 2; }));
  EXPECT_EQ(received.Wait(), 0);
  EXPECT_EQ(waiting.Wait(), 0);
  EXPECT_EQ(journals.size(), 1U);
  EXPECT_THAT(stage.said, Contains(HasSubstr("the reason why")));
  EXPECT_EQ(stage.said.size(), 1U);

  stage.obliging = true;
  ASSERT_TRUE(stage.Ready(1));
  EXPECT_FALSE(stage.keeper->gave_up());
  // From now on calls wait for the engine.
  testing_support::SeccompChild later({SYS_getpgid}, call);
  listener.clear();
  listener.emplace_back(dup(later.listener()));
  ASSERT_TRUE(stage.keeper->Hold(kOne, std::move(listener)).ok());
  const RemoteEngine* const engine = stage.engines.back().get();
  ASSERT_TRUE(stage.Until([&] { return engine->Count("give") == 4; }));
  EXPECT_TRUE(later.Receive().has_value()) << "nobody else takes it";
}

TEST(KeeperTest, GivesUpWhenEnginesThatServedDieTooOften) {
  KeeperStage stage;
  stage.options.patience.death_window = Ms(600'000);  // however slow this machine is
  stage.Start();
  for (size_t i = 1; i <= kMostDeaths; ++i) {
    ASSERT_TRUE(stage.Ready(i));
    ASSERT_FALSE(stage.keeper->gave_up());
    kill(stage.keeper->engine_pid(), SIGABRT);
  }
  ASSERT_TRUE(stage.Ready(kMostDeaths + 1));
  kill(stage.keeper->engine_pid(), SIGABRT);
  EXPECT_TRUE(stage.Until([&] { return stage.keeper->gave_up(); }));
}

TEST(KeeperTest, NeverGivesUpBecauseSomebodyKillsEnginesThatServed) {
  KeeperStage stage;
  stage.options.patience.death_window = Ms(600'000);
  stage.Start();
  for (size_t i = 1; i <= kMostDeaths + 20; ++i) {
    ASSERT_TRUE(stage.Ready(i));
    ASSERT_FALSE(stage.keeper->gave_up());
    kill(stage.keeper->engine_pid(), SIGKILL);
  }
  EXPECT_TRUE(stage.Ready(kMostDeaths + 21));
}

TEST(KeeperTest, TriesAgainWhenAnEngineDoesNotGetReadyInTime) {
  KeeperStage stage;
  stage.options.patience.prepare = Ms(1000);  // it has to say who it is within this
  stage.obliging = false;
  stage.Start();
  const RemoteEngine* const silent = stage.NextEngine();
  ASSERT_NE(silent, nullptr);
  ASSERT_TRUE(stage.Until([&] { return stage.engines.size() >= 2; }));
  EXPECT_TRUE(stage.Ends(silent->pid));
  stage.obliging = true;
}

// ---- strangers

class HostileEngineTest : public ::testing::Test {
 protected:
  // The engine that is about to misbehave.
  RemoteEngine& Start() {
    stage_.Start();
    EXPECT_TRUE(stage_.Ready(1));
    return *stage_.NextEngine();
  }
  void ExpectReplaced(const RemoteEngine& engine) {
    EXPECT_TRUE(stage_.Ready(2));
    EXPECT_TRUE(stage_.Ends(engine.pid));
  }

  KeeperStage stage_;
};

TEST_F(HostileEngineTest, IsReplacedWhenItSendsTooLittle) {
  RemoteEngine& engine = Start();
  engine.Do("bytes 3");
  ExpectReplaced(engine);
}

TEST_F(HostileEngineTest, IsReplacedWhenItSendsTooMuch) {
  RemoteEngine& engine = Start();
  engine.Do("bytes 4096");
  ExpectReplaced(engine);
}

TEST_F(HostileEngineTest, IsReplacedWhenItSendsNoise) {
  RemoteEngine& engine = Start();
  engine.Do("bytes " + std::to_string(sizeof(KeeperPacket)));
  ExpectReplaced(engine);
}

TEST_F(HostileEngineTest, IsReplacedWhenItSendsTooManyDescriptors) {
  RemoteEngine& engine = Start();
  const Thing thing;
  const int fd = thing.fd.get();
  engine.Do("hold 5 1", {fd, fd, fd, fd, fd});
  ExpectReplaced(engine);
  EXPECT_EQ(stage_.keeper->holdings().descriptors(), 0U);
}

TEST_F(HostileEngineTest, IsReplacedWhenItSendsDescriptorsThatNobodyWants) {
  RemoteEngine& engine = Start();
  const Thing thing;
  engine.Do("message 7 0 0", {thing.fd.get()});  // a kPong
  ExpectReplaced(engine);
}

TEST_F(HostileEngineTest, IsReplacedWhenItNamesAnUnknownTag) {
  RemoteEngine& engine = Start();
  const Thing thing;
  engine.Do(absl::StrCat("message 1 ", kHighestHoldingTag + 1, " 0"), {thing.fd.get()});  // a kHold
  ExpectReplaced(engine);
}

TEST_F(HostileEngineTest, IsReplacedWhenItSaysHowLongAWrongTextIs) {
  RemoteEngine& engine = Start();
  engine.Do("message 9 0 401");  // a kFailed
  ExpectReplaced(engine);
}

TEST_F(HostileEngineTest, IsReplacedWhenItTalksLikeAKeeper) {
  RemoteEngine& engine = Start();
  engine.Do("message 66 0 0");  // a kStart
  ExpectReplaced(engine);
}

TEST_F(HostileEngineTest, IsReplacedWhenItSaysThingsOutOfOrder) {
  RemoteEngine& engine = Start();
  engine.Do("ready");  // again
  ExpectReplaced(engine);
}

TEST_F(HostileEngineTest, IsReplacedWhenItNeverReads) {
  RemoteEngine& engine = Start();
  engine.Do("deaf");
  const Thing thing;
  // Far more than its socket takes. None of it may block.
  for (int i = 0; i < 3000 && stage_.ready == 1; ++i) {
    ASSERT_TRUE(stage_.keeper->Hold(kOne, Copies({&thing})).ok());
    ASSERT_TRUE(stage_.Until([] { return true; }));
    stage_.keeper->HandleEvents();
  }
  ExpectReplaced(engine);
  EXPECT_THAT(stage_.said, Contains(HasSubstr("does not read")));
}

TEST(KeeperTest, RefusesWhatItHasNoDescriptorsForAndLivesOn) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit low = before;
  low.rlim_cur = 140;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  {
    KeeperStage stage;
    stage.Start();
    const RemoteEngine* const engine = stage.NextEngine();
    ASSERT_TRUE(stage.Ready(1));
    const Thing thing;
    for (int i = 0; i < 100; ++i) engine->Do("hold 5 " + std::to_string(i), {thing.fd.get()});
    EXPECT_TRUE(stage.Until([&] { return engine->Count("failed") == 24; }));
    EXPECT_EQ(stage.keeper->holdings().descriptors(), 76U);
    EXPECT_EQ(stage.ready, 1U);
  }
  setrlimit(RLIMIT_NOFILE, &before);
}

}  // namespace
}  // namespace shunt
