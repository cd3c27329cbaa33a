// SPDX-License-Identifier: Apache-2.0
// Balancer: how weights grow after a return, and which zone comes first.

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

class BalancerSlowStart : public BalancerWorld {
 protected:
  static ServiceSpec Slow(std::vector<BackendSpec> backends) {
    ServiceSpec spec = ServiceOf("web", std::move(backends));
    spec.slow_start.window = std::chrono::seconds(10);
    return spec;
  }
  // 10.0.0.1 has been there for long, 10.0.0.2 comes at the time that this returns.
  int64_t OneComes(ServiceSpec spec = Slow({})) {
    spec.backends = BackendsAt({"10.0.0.1:80"});
    Configure({spec});
    RunFor(60 * kSecond);
    tables_at.clear();
    spec.backends = BackendsAt({"10.0.0.1:80", "10.0.0.2:80"});
    Configure({spec});
    TakeTable();
    return now;
  }
};

TEST_F(BalancerSlowStart, AWeightGrowsOverTheWindow) {
  const int64_t start = OneComes();
  EXPECT_EQ(StateOf("web", "10.0.0.2:80"), "slow-start");
  EXPECT_THAT(Picks("web", 110), ElementsAre(Pair("10.0.0.1:80", 100), Pair("10.0.0.2:80", 10)));
  RunUntil(start + 5 * kSecond);
  EXPECT_DOUBLE_EQ(ReportOf("web", "10.0.0.2:80").effective_weight, 0.5);
  EXPECT_DOUBLE_EQ(ReportOf("web", "10.0.0.1:80").effective_weight, 1);
  EXPECT_THAT(Picks("web", 150), ElementsAre(Pair("10.0.0.1:80", 100), Pair("10.0.0.2:80", 50)));
  RunUntil(start + 10 * kSecond);
  EXPECT_EQ(StateOf("web", "10.0.0.2:80"), "up");
  EXPECT_THAT(Picks("web", 200), ElementsAre(Pair("10.0.0.1:80", 100), Pair("10.0.0.2:80", 100)));
  EXPECT_EQ(balancer.NextDue(), kNever);
  EXPECT_EQ(ServiceIn(*table, "web")->v4->size(), 2);
  for (const Backend& backend : AllPicks(ServiceIn(*table, "web")->v4.get(), counts))
    EXPECT_EQ(backend.weight, 1) << "no longer scaled";
}

TEST_F(BalancerSlowStart, MakesATableEachSecond) {
  const int64_t start = OneComes();
  RunUntil(start + 60 * kSecond);
  ASSERT_THAT(tables_at, SizeIs(11));
  for (int i = 0; i <= 10; ++i) EXPECT_EQ(tables_at[static_cast<size_t>(i)], start + i * kSecond);
}

TEST_F(BalancerSlowStart, MakesTheLastTableWhenTheWindowEnds) {
  ServiceSpec spec = Slow({});
  spec.slow_start.window = std::chrono::milliseconds(1300);
  const int64_t start = OneComes(spec);
  RunUntil(start + 60 * kSecond);
  EXPECT_THAT(tables_at, ElementsAre(start, start + kSecond, start + 1300 * kMillisecond));
}

TEST_F(BalancerSlowStart, HasAHundredTablesAtMost) {
  ServiceSpec spec = Slow({});
  spec.slow_start.window = std::chrono::minutes(10);
  const int64_t start = OneComes(spec);
  RunUntil(start + 600 * kSecond);
  EXPECT_THAT(tables_at, SizeIs(101));
  EXPECT_EQ(balancer.NextDue(), kNever);
}

TEST_F(BalancerSlowStart, AggressionAndLeastWeightAreEnvoys) {
  ServiceSpec spec = Slow({});
  spec.slow_start.aggression = 2;
  spec.slow_start.min_weight = 0.25;
  const int64_t start = OneComes(spec);
  EXPECT_DOUBLE_EQ(ReportOf("web", "10.0.0.2:80").effective_weight, 0.25);
  RunUntil(start + 4900 * kMillisecond);
  EXPECT_DOUBLE_EQ(ReportOf("web", "10.0.0.2:80").effective_weight, 0.7);  // the root of 0.49
  spec.slow_start.aggression = 0.5;
  spec.backends = BackendsAt({"10.0.0.1:80", "10.0.0.2:80"});
  Configure({spec});
  RunUntil(start + 7 * kSecond);
  EXPECT_DOUBLE_EQ(ReportOf("web", "10.0.0.2:80").effective_weight, 0.49);  // 0.7 squared
}

TEST_F(BalancerSlowStart, HeavyBackendsKeepTheirProportion) {
  ServiceSpec spec = Slow({BackendAt("10.0.0.1:80", 65535)});
  Configure({spec});
  Settle();
  spec.backends.push_back(BackendAt("10.0.0.2:80", 65535));
  Configure({spec});
  RunFor(5 * kSecond);
  std::map<std::string, uint32_t> weights;
  for (const Backend& backend : AllPicks(ServiceIn(*table, "web")->v4.get(), counts))
    weights[backend.address.ToString()] = backend.weight;
  // Half of it, but for what cannot be split.
  EXPECT_THAT(weights, ElementsAre(Pair("10.0.0.1:80", 65535), Pair("10.0.0.2:80", 32768)));
}

TEST_F(BalancerSlowStart, IsNotForTheFirstBackendsOfAService) {
  ServiceSpec spec = Slow({});
  spec.discover.dns = "web:80";
  Configure({spec});
  Settle();
  balancer.Discover("web", BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}), now);
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "up");
  EXPECT_EQ(StateOf("web", "10.0.0.2:80"), "up");
  balancer.Discover("web", BackendsAt({"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"}), now);
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "up");
  EXPECT_EQ(StateOf("web", "10.0.0.3:80"), "slow-start");
}

TEST_F(BalancerSlowStart, IsForThoseThatComeBack) {
  ServiceSpec spec = Slow(BackendsAt({"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"}));
  spec.outlier.enabled = spec.health.enabled = true;
  Configure({spec});
  TakeTable();
  Fail(SlotOf("web", "10.0.0.1:80"), 5);
  RunFor(30 * kSecond - 1);
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "ejected");
  RunFor(1);
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "slow-start");
  bad = {"10.0.0.2:80"};
  RunFor(6 * kSecond);
  EXPECT_EQ(StateOf("web", "10.0.0.2:80"), "down");
  bad.clear();
  RunFor(4 * kSecond);
  EXPECT_EQ(StateOf("web", "10.0.0.2:80"), "slow-start");
  for (const Kind kind : {Kind::kDrain, Kind::kDisable}) {
    ASSERT_TRUE(Say("web", "10.0.0.3:80", kind).ok());
    ASSERT_TRUE(Say("web", "10.0.0.3:80", Kind::kEnable).ok());
    EXPECT_EQ(StateOf("web", "10.0.0.3:80"), "slow-start");
    RunFor(10 * kSecond);
    EXPECT_EQ(StateOf("web", "10.0.0.3:80"), "up");
  }
  ASSERT_TRUE(Say("web", "10.0.0.4:80", Kind::kWeight, 0).ok());
  ASSERT_TRUE(Say("web", "10.0.0.4:80", Kind::kWeight, 5).ok());
  EXPECT_EQ(StateOf("web", "10.0.0.4:80"), "slow-start");
}

TEST_F(BalancerSlowStart, BeginsAnewWithEachReturn) {
  const int64_t start = OneComes();
  RunUntil(start + 5 * kSecond);
  ASSERT_TRUE(Say("web", "10.0.0.2:80", Kind::kDrain).ok());
  ASSERT_TRUE(Say("web", "10.0.0.2:80", Kind::kEnable).ok());
  RunUntil(start + 6 * kSecond);
  EXPECT_DOUBLE_EQ(ReportOf("web", "10.0.0.2:80").effective_weight, 0.1);
  RunUntil(start + 15 * kSecond);
  EXPECT_EQ(StateOf("web", "10.0.0.2:80"), "up");
  EXPECT_EQ(balancer.NextDue(), kNever);
}

TEST_F(BalancerSlowStart, WhatIsOverStaysOverWithALongerWindow) {
  const int64_t start = OneComes();
  RunUntil(start + 20 * kSecond);
  ServiceSpec spec = Slow(BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}));
  spec.slow_start.window = std::chrono::seconds(3600);
  Configure({spec});
  EXPECT_EQ(StateOf("web", "10.0.0.2:80"), "up");
}

TEST_F(BalancerSlowStart, EndsWhenTheConfigurationHasNone) {
  OneComes();
  ServiceSpec spec = Slow(BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}));
  spec.slow_start.window = std::chrono::seconds(0);
  Configure({spec});
  EXPECT_EQ(StateOf("web", "10.0.0.2:80"), "up");
  Settle();
  EXPECT_EQ(balancer.NextDue(), kNever);
  EXPECT_THAT(Picks("web", 200), ElementsAre(Pair("10.0.0.1:80", 100), Pair("10.0.0.2:80", 100)));
}

// Whoever looks seldom sees what he would have seen anyway.
TEST_F(BalancerSlowStart, BeginsWhenAnEjectionEndsAndNotWhenSomebodyLooks) {
  ServiceSpec spec = Slow(BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}));
  spec.outlier.enabled = true;
  Configure({spec});
  TakeTable();
  Fail(SlotOf("web", "10.0.0.1:80"), 5);
  now += 35 * kSecond;
  balancer.Advance(now);
  EXPECT_DOUBLE_EQ(ReportOf("web", "10.0.0.1:80").effective_weight, 0.5);
}

class BalancerZones : public BalancerWorld {
 protected:
  // So many, the first `own` of which are in "here".
  static ServiceSpec Zoned(int count, int own) {
    ServiceSpec spec = ServiceOf("web", ManyBackends(count));
    for (int i = 0; i < count; ++i) spec.backends[static_cast<size_t>(i)].zone = i < own ? "here" : "there";
    return spec;
  }
  size_t Picked() {
    Settle();
    return Picks("web", 600).size();
  }
};

TEST_F(BalancerZones, TheOwnOneComesFirstWhereThereAreEnoughBackends) {
  zone = "here";
  Configure({Zoned(6, 3)});
  EXPECT_EQ(Picked(), 3);
  Configure({Zoned(5, 3)});
  EXPECT_EQ(Picked(), 5);
  ServiceSpec spec = Zoned(5, 3);
  spec.zone_aware_from = 5;
  Configure({spec});
  EXPECT_EQ(Picked(), 3);
  spec.zone_aware_from = 0;
  Configure({spec});
  EXPECT_EQ(Picked(), 5);
}

TEST_F(BalancerZones, CountForNothingWhileTheOwnOneIsUnknown) {
  ServiceSpec spec = Zoned(6, 3);
  for (BackendSpec& backend : spec.backends) {
    if (backend.zone == "here") backend.zone = "";
  }
  Configure({spec});
  EXPECT_EQ(Picked(), 6);
  zone = "there";
  Configure({spec});
  EXPECT_EQ(Picked(), 3);
}

}  // namespace
}  // namespace shunt::net
