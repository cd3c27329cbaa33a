// SPDX-License-Identifier: Apache-2.0
// Balancer: active checks, ejections, slow start, panic and zones. Times are worked out by hand from what
// HAProxy (checks) and Envoy (the rest) document.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/net/balancer/balancer_world.h"

namespace shunt::net {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;
using testing::SizeIs;
using testing::UnorderedElementsAre;

class BalancerChecks : public BalancerWorld {
 protected:
  // One service whose backends are checked every two seconds, three times to fall, twice to rise.
  static ServiceSpec Checked(std::vector<BackendSpec> backends) {
    ServiceSpec spec = ServiceOf("web", std::move(backends));
    spec.health.enabled = true;
    return spec;
  }
  // The first check of all is due then.
  int64_t Start(std::vector<BackendSpec> backends) {
    Configure({Checked(std::move(backends))});
    TakeTable();
    return balancer.NextDue();
  }
};

TEST_F(BalancerChecks, ComeAnIntervalApart) {
  const int64_t first = Start(BackendsAt({"10.0.0.1:80"}));
  EXPECT_GE(first, now);
  EXPECT_LT(first, now + 2 * kSecond);
  EXPECT_THAT(balancer.TakeChecks(first - 1), IsEmpty());
  RunUntil(first + 5 * kSecond);
  EXPECT_THAT(checks, ElementsAre(Pair(first, "10.0.0.1:80"), Pair(first + 2 * kSecond, "10.0.0.1:80"),
                                  Pair(first + 4 * kSecond, "10.0.0.1:80")));
}

TEST_F(BalancerChecks, SayWhatIsToBeTried) {
  ServiceSpec spec = Checked(BackendsAt({"[fd00::1]:80"}));
  spec.health.timeout = std::chrono::milliseconds(700);
  spec.network = ServiceNetwork::kContainer;
  Configure({spec});
  TakeTable();
  const std::vector<DueCheck> due = balancer.TakeChecks(now + 2 * kSecond);
  ASSERT_THAT(due, SizeIs(1));
  EXPECT_EQ(due[0].address, SockAddrOf("[fd00::1]:80"));
  EXPECT_EQ(due[0].slot, SlotOf("web", "[fd00::1]:80"));
  EXPECT_EQ(due[0].network, ServiceNetwork::kContainer);
  EXPECT_EQ(due[0].timeout_ns, 700 * kMillisecond);
}

TEST_F(BalancerChecks, AreSpreadOverTheInterval) {
  const int64_t start = now;
  Start(ManyBackends(1000));
  RunUntil(start + 2 * kSecond - 1);
  ASSERT_THAT(checks, SizeIs(1000));
  std::vector<int> tenths(10);
  for (const auto& [time, address] : checks)
    ++tenths[static_cast<size_t>((time - start) * 10 / (2 * kSecond))];
  // Of chance alone, 100 each, give or take 10.
  EXPECT_THAT(tenths, Each(testing::AllOf(testing::Gt(50), testing::Lt(150))));
}

TEST_F(BalancerChecks, AreSpreadTheSameWayEveryTimeAndAnotherWayForEachService) {
  const int64_t start = now;
  Start(ManyBackends(20));
  RunUntil(start + 2 * kSecond - 1);
  const auto once = std::move(checks);
  checks.clear();
  now = start;

  BackendCountBook book(1);
  Balancer again(book, "");
  again.Configure({Checked(ManyBackends(20))}, "", start);
  for (const auto& [time, address] : once) {
    const std::vector<DueCheck> due = again.TakeChecks(time);
    ASSERT_THAT(due, SizeIs(1));
    EXPECT_EQ(due[0].address.ToString(), address);
  }
  Balancer other(book, "");
  ServiceSpec spec = Checked(ManyBackends(20));
  spec.name = "other";
  other.Configure({spec}, "", start);
  EXPECT_THAT(other.TakeChecks(once.front().first), IsEmpty());
}

TEST_F(BalancerChecks, AreNeverTwoAtOnce) {
  const int64_t first = Start(BackendsAt({"10.0.0.1:80"}));
  const std::vector<DueCheck> slow = balancer.TakeChecks(first);
  ASSERT_THAT(slow, SizeIs(1));
  EXPECT_EQ(balancer.NextDue(), kNever);
  EXPECT_THAT(balancer.TakeChecks(first + 3 * kSecond), IsEmpty());
  // It has taken longer than the interval: the next one follows at once.
  now = first + 3500 * kMillisecond;
  balancer.Checked(slow[0].slot, slow[0].check, true, "", now);
  EXPECT_EQ(balancer.NextDue(), now);
  EXPECT_THAT(balancer.TakeChecks(now), SizeIs(1));
}

TEST_F(BalancerChecks, KeepTheirRhythmOverAPause) {
  const int64_t first = Start(BackendsAt({"10.0.0.1:80"}));
  RunUntil(first);
  // The one of first + 2 s starts five seconds late; first + 8 s comes next.
  now = first + 7 * kSecond;
  balancer.Advance(now);
  EXPECT_EQ(balancer.NextDue(), now);
  TakeAll();
  EXPECT_THAT(checks, SizeIs(2));
  EXPECT_EQ(balancer.NextDue(), first + 8 * kSecond);
}

TEST_F(BalancerChecks, FailuresInARowTakeABackendDownAndSuccessesBringItBack) {
  const int64_t first = Start(BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}));
  // Which of the two is checked first is known by now.
  RunUntil(first);
  const std::string one = checks.at(0).second, other = one == "10.0.0.1:80" ? "10.0.0.2:80" : "10.0.0.1:80";
  const int64_t start = first + 2 * kSecond;
  bad = {one};
  RunUntil(start + 4 * kSecond - 1);
  EXPECT_EQ(StateOf("web", one), "up");
  RunUntil(start + 4 * kSecond);
  EXPECT_EQ(StateOf("web", one), "down");
  EXPECT_EQ(ReportOf("web", one).last_error, "Connection refused");
  EXPECT_THAT(In("web"), ElementsAre(other));
  bad.clear();
  RunUntil(start + 8 * kSecond - 1);
  EXPECT_EQ(StateOf("web", one), "down");
  RunUntil(start + 8 * kSecond);
  EXPECT_EQ(StateOf("web", one), "up");
  EXPECT_EQ(ReportOf("web", one).last_error, "");
  Settle();
  EXPECT_THAT(In("web"), ElementsAre("10.0.0.1:80", "10.0.0.2:80"));
}

TEST_F(BalancerChecks, OnlyThoseInARowCount) {
  const int64_t first = Start(BackendsAt({"10.0.0.1:80"}));
  int64_t time = first;
  const auto check = [&](bool well) {
    bad.clear();
    if (!well) bad = {"10.0.0.1:80"};
    RunUntil(time);
    time += 2 * kSecond;
    return StateOf("web", "10.0.0.1:80");
  };
  for (const bool well : {false, false, true, false, false, true, false, false}) EXPECT_EQ(check(well), "up");
  EXPECT_EQ(check(false), "down");
  for (const bool well : {true, false, true, false}) EXPECT_EQ(check(well), "down");
  EXPECT_EQ(check(true), "down");
  EXPECT_EQ(check(true), "up");
}

TEST_F(BalancerChecks, AnOldResultIsIgnored) {
  ServiceSpec spec = Checked(BackendsAt({"10.0.0.1:80"}));
  spec.health.fall = spec.health.rise = 1;
  Configure({spec});
  TakeTable();
  const std::vector<DueCheck> due = balancer.TakeChecks(now + 2 * kSecond);
  now += 2 * kSecond;
  balancer.Checked(due[0].slot, due[0].check, true, "", now);
  balancer.Checked(due[0].slot, due[0].check, false, "twice", now);
  balancer.Checked(due[0].slot, 0, false, "of no number", now);
  balancer.Checked(due[0].slot + 5000, due[0].check, false, "of no slot", now);
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "up");

  // The slot is another backend's by now.
  const std::vector<DueCheck> next = balancer.TakeChecks(now + 2 * kSecond);
  now += 2 * kSecond;
  spec.backends.clear();
  Configure({spec});
  balancer.Checked(next[0].slot, next[0].check, false, "of nobody", now);
  Settle();
  spec.backends = BackendsAt({"10.0.0.2:80"});
  Configure({spec});
  Settle();
  ASSERT_EQ(SlotOf("web", "10.0.0.2:80"), next[0].slot);
  ASSERT_THAT(balancer.TakeChecks(now + 2 * kSecond), SizeIs(1));
  now += 2 * kSecond;
  balancer.Checked(next[0].slot, next[0].check, false, "of another", now);
  EXPECT_EQ(StateOf("web", "10.0.0.2:80"), "up");
}

TEST_F(BalancerChecks, DrainedBackendsAreCheckedAndDisabledOnesAreNot) {
  const int64_t first = Start(BackendsAt({"10.0.0.1:80"}));
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDrain).ok());
  RunUntil(first + 2 * kSecond);
  EXPECT_THAT(checks, SizeIs(2));
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDisable).ok());
  RunFor(100 * kSecond);
  EXPECT_THAT(checks, SizeIs(2));
  // It counts as up, and is checked at once.
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kEnable).ok());
  EXPECT_EQ(balancer.NextDue(), now);
  TakeAll();
  EXPECT_THAT(checks, SizeIs(3));
}

TEST_F(BalancerChecks, ABackendThatWasDownCountsAsUpWhenItIsEnabled) {
  bad = {"10.0.0.1:80"};
  Start(BackendsAt({"10.0.0.1:80"}));
  RunFor(10 * kSecond);
  ASSERT_EQ(StateOf("web", "10.0.0.1:80"), "down");
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kEnable).ok());
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "down") << "it was not disabled";
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDisable).ok());
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kEnable).ok());
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "up");
}

// What is under way goes on when a backend is disabled; so the next check has to wait for it.
TEST_F(BalancerChecks, ADisabledBackendsCheckIsWaitedForAndDoesNotCount) {
  ServiceSpec spec = Checked(BackendsAt({"10.0.0.1:80"}));
  spec.health.fall = 1;
  Configure({spec});
  TakeTable();
  now += 2 * kSecond;
  const std::vector<DueCheck> due = balancer.TakeChecks(now);
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDisable).ok());
  balancer.Checked(due[0].slot, due[0].check, false, "late", now);
  Settle();
  EXPECT_EQ(balancer.NextDue(), kNever);
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kEnable).ok());
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "up");

  const std::vector<DueCheck> again = balancer.TakeChecks(now);
  ASSERT_THAT(again, SizeIs(1));
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDisable).ok());
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kEnable).ok());
  EXPECT_THAT(balancer.TakeChecks(now), IsEmpty());
  balancer.Checked(again[0].slot, again[0].check, true, "", now);
  EXPECT_THAT(balancer.TakeChecks(now), SizeIs(1));
}

TEST_F(BalancerChecks, TheConfigurationTurnsThemOnAndOff) {
  bad = {"10.0.0.1:80"};
  ServiceSpec spec = Checked(BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}));
  Configure({spec});
  RunFor(10 * kSecond);
  ASSERT_EQ(StateOf("web", "10.0.0.1:80"), "down");
  spec.health.enabled = false;
  Configure({spec});
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "up");
  EXPECT_EQ(ReportOf("web", "10.0.0.1:80").last_error, "");
  Settle();
  EXPECT_THAT(In("web"), ElementsAre("10.0.0.1:80", "10.0.0.2:80"));
  EXPECT_EQ(balancer.NextDue(), kNever);
  spec.health.enabled = true;
  spec.health.interval = std::chrono::seconds(3600);
  Configure({spec});
  checks.clear();
  RunFor(3600 * kSecond - 1);
  EXPECT_THAT(checks, SizeIs(2));
  // A shorter interval holds at once.
  spec.health.interval = std::chrono::seconds(1);
  Configure({spec});
  checks.clear();
  RunFor(10 * kSecond - 1);
  EXPECT_THAT(checks, SizeIs(20));
}

class BalancerEjections : public BalancerWorld {
 protected:
  static ServiceSpec Watched(std::vector<BackendSpec> backends) {
    ServiceSpec spec = ServiceOf("web", std::move(backends));
    spec.outlier.enabled = true;
    return spec;
  }
  // Has it ejected, and says for how long.
  int64_t EjectedFor(const std::string& address) {
    const uint32_t slot = slots.at(address);
    Fail(slot, 5);
    EXPECT_EQ(StateOf("web", address), "ejected");
    const int64_t since = now;
    while (StateOf("web", address) == "ejected") {
      const int64_t due = balancer.NextDue();
      if (due == kNever) break;
      RunUntil(due);
    }
    return now - since;
  }
  void Start(ServiceSpec spec) {
    Configure({std::move(spec)});
    TakeTable();
    Learn();
  }
  void Learn() {
    for (const Backend& backend : AllPicks(ServiceIn(*table, "web")->v4.get(), counts))
      slots[backend.address.ToString()] = backend.slot;
  }
  int Ejected() {
    int ejected = 0;
    for (const BackendReport& backend : ReportOf("web").backends) ejected += backend.state == "ejected";
    return ejected;
  }

  std::map<std::string, uint32_t> slots;
};

TEST_F(BalancerEjections, FailuresInARowEjectForTheBaseTime) {
  Start(Watched(BackendsAt({"10.0.0.1:80", "10.0.0.2:80"})));
  const uint32_t slot = slots.at("10.0.0.1:80");
  Fail(slot, 4);
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "up");
  balancer.Connected(slot, true, now);
  Fail(slot, 4);
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "up");
  now += kSecond;
  const int64_t since = now;
  Fail(slot, 1);
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "ejected");
  EXPECT_EQ(ReportOf("web", "10.0.0.1:80").ejections, 1);
  Settle();
  EXPECT_THAT(In("web"), ElementsAre("10.0.0.2:80"));
  EXPECT_EQ(balancer.NextDue(), since + 30 * kSecond);
  RunUntil(since + 30 * kSecond - 1);
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "ejected");
  RunUntil(since + 30 * kSecond);
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "up");
  EXPECT_THAT(In("web"), ElementsAre("10.0.0.1:80", "10.0.0.2:80"));
}

TEST_F(BalancerEjections, FailuresAreCountedFromZeroAfterwards) {
  Start(Watched(BackendsAt({"10.0.0.1:80", "10.0.0.2:80"})));
  const uint32_t slot = slots.at("10.0.0.1:80");
  Fail(slot, 5);
  Fail(slot, 14);  // they were under way
  EXPECT_EQ(ReportOf("web", "10.0.0.1:80").ejections, 1);
  RunFor(30 * kSecond);
  ASSERT_EQ(StateOf("web", "10.0.0.1:80"), "up");
  Fail(slot, 4);
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "up");
  Fail(slot, 1);
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "ejected");
}

TEST_F(BalancerEjections, GrowLongerWithEachOneAndShorterWithEachIntervalWithout) {
  Start(Watched(BackendsAt({"10.0.0.1:80", "10.0.0.2:80"})));
  const std::string address = "10.0.0.1:80";
  EXPECT_EQ(EjectedFor(address), 30 * kSecond);
  EXPECT_EQ(EjectedFor(address), 60 * kSecond);
  EXPECT_EQ(EjectedFor(address), 90 * kSecond);
  RunFor(10 * kSecond - 1);
  EXPECT_EQ(EjectedFor(address), 120 * kSecond);
  RunFor(10 * kSecond);
  EXPECT_EQ(EjectedFor(address), 120 * kSecond);
  RunFor(29 * kSecond);
  EXPECT_EQ(EjectedFor(address), 90 * kSecond);
  RunFor(1000 * kSecond);
  EXPECT_EQ(EjectedFor(address), 30 * kSecond);
  EXPECT_EQ(ReportOf("web", address).ejections, 7);
}

TEST_F(BalancerEjections, NeverLastLongerThanTheMost) {
  Start(Watched(BackendsAt({"10.0.0.1:80", "10.0.0.2:80"})));
  const std::string address = "10.0.0.1:80";
  for (int64_t number = 1; number <= 10; ++number) EXPECT_EQ(EjectedFor(address), number * 30 * kSecond);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(EjectedFor(address), 300 * kSecond);
  // The ones beyond are not held against it: two intervals, and it is the ninth.
  RunFor(20 * kSecond);
  EXPECT_EQ(EjectedFor(address), 270 * kSecond);
}

TEST_F(BalancerEjections, AreOfNoMoreThanTheirShareAtATime) {
  ServiceSpec spec = Watched(ManyBackends(29));
  Start(spec);  // 10% of 29: two
  for (const auto& [address, slot] : slots) Fail(slot, 5);
  EXPECT_EQ(Ejected(), 2);
  RunFor(30 * kSecond);
  EXPECT_EQ(Ejected(), 0);
  // Who was refused has to fail as often again.
  Fail(slots.at("10.0.0.9:80"), 4);
  EXPECT_EQ(Ejected(), 0);
  Fail(slots.at("10.0.0.9:80"), 1);
  EXPECT_EQ(Ejected(), 1);
}

TEST_F(BalancerEjections, AShareIsWhatItSaysInDecimal) {
  ServiceSpec spec = Watched(ManyBackends(100));
  spec.outlier.max_ejected = 0.29;
  Start(spec);
  for (const auto& [address, slot] : slots) Fail(slot, 5);
  EXPECT_EQ(Ejected(), 29);
}

TEST_F(BalancerEjections, OneMayAlwaysBeEjected) {
  ServiceSpec spec = Watched(BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}));
  spec.outlier.max_ejected = 0;
  Start(spec);
  for (const auto& [address, slot] : slots) Fail(slot, 5);
  EXPECT_EQ(Ejected(), 1);
}

TEST_F(BalancerEjections, WhereBackendsGoSoDoEjections) {
  ServiceSpec spec = Watched(ManyBackends(30));
  Start(spec);
  Fail(slots.at("10.0.0.1:80"), 5);
  now += kSecond;
  Fail(slots.at("10.0.0.2:80"), 5);
  Fail(slots.at("10.0.0.3:80"), 5);
  ASSERT_EQ(Ejected(), 3);
  // An ejected one goes: there is room for another.
  spec.backends.erase(spec.backends.begin() + 2);
  spec.backends.push_back(BackendAt("10.0.0.31:80"));
  Configure({spec});
  EXPECT_EQ(Ejected(), 2);
  Fail(slots.at("10.0.0.4:80"), 5);
  EXPECT_EQ(Ejected(), 3);
  // 10% of 19 is one: those stay that have longest to go.
  spec.backends.resize(19);
  Configure({spec});
  EXPECT_EQ(Ejected(), 1);
  EXPECT_EQ(StateOf("web", "10.0.0.4:80"), "ejected");
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "up");
}

TEST_F(BalancerEjections, EndWhenTheConfigurationHasNone) {
  ServiceSpec spec = Watched(BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}));
  Start(spec);
  Fail(slots.at("10.0.0.1:80"), 5);
  spec.outlier.enabled = false;
  Configure({spec});
  EXPECT_EQ(Ejected(), 0);
  Fail(slots.at("10.0.0.1:80"), 50);
  EXPECT_EQ(Ejected(), 0);
  Settle();
  EXPECT_EQ(balancer.NextDue(), kNever);
}

TEST_F(BalancerEjections, ConnectsOfASlotThatIsNobodysAreIgnored) {
  Start(Watched(BackendsAt({"10.0.0.1:80", "10.0.0.2:80"})));
  const uint32_t slot = slots.at("10.0.0.1:80");
  Configure({});
  Fail(slot, 50);
  Fail(1'000'000, 50);
  Settle();
  EXPECT_EQ(balancer.NextDue(), kNever);
}

TEST_F(BalancerEjections, AllAreTakenWhereTooFewAreLeft) {
  ServiceSpec spec = Watched(BackendsAt({"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"}));
  spec.outlier.max_ejected = 1;
  Start(spec);
  Fail(slots.at("10.0.0.1:80"), 5);
  Fail(slots.at("10.0.0.2:80"), 5);
  Settle();
  EXPECT_THAT(In("web"), ElementsAre("10.0.0.3:80", "10.0.0.4:80"));
  EXPECT_FALSE(ReportOf("web").panic);
  Fail(slots.at("10.0.0.3:80"), 5);
  Settle();
  EXPECT_THAT(In("web"), ElementsAre("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"));
  EXPECT_TRUE(ReportOf("web").panic);
  EXPECT_EQ(Ejected(), 3);
  RunFor(30 * kSecond);
  Settle();
  EXPECT_FALSE(ReportOf("web").panic);
}

// An AF_INET6 socket may still reach the others.
TEST_F(BalancerEjections, AFamilyOfWhichNobodyIsFitHasNoTable) {
  ServiceSpec spec = Watched(BackendsAt({"10.0.0.1:80", "[fd00::1]:80"}));
  spec.panic = 0;
  Start(spec);
  Fail(SlotOf("web", "[fd00::1]:80"), 5);
  Settle();
  EXPECT_THAT(In("web", false), ElementsAre("10.0.0.1:80"));
}

}  // namespace
}  // namespace shunt::net
