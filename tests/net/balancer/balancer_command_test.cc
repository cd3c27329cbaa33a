// SPDX-License-Identifier: Apache-2.0
// Balancer: what the operator says at run time and sees, and whose connections are to be closed.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/net/balancer/balancer_world.h"

namespace shunt::net {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::Pair;

class BalancerCommands : public BalancerWorld {
 protected:
  void SetUp() override {
    Configure({ServiceOf("web", BackendsAt({"10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80"}), 1),
               ServiceOf("db", BackendsAt({"10.0.0.1:5432"}), 2)});
    TakeTable();
  }
};

TEST_F(BalancerCommands, DrainedAndDisabledBackendsGetNothingUntilTheyAreEnabled) {
  for (const auto& [kind, state] :
       {std::pair(Kind::kDrain, "draining"), std::pair(Kind::kDisable, "disabled")}) {
    ASSERT_TRUE(Say("web", "10.0.0.1:80", kind).ok());
    EXPECT_EQ(StateOf("web", "10.0.0.1:80"), state);
    Settle();
    EXPECT_THAT(In("web"), ElementsAre("10.0.0.2:80"));
    ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kEnable).ok());
    EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "up");
    Settle();
    EXPECT_THAT(In("web"), ElementsAre("10.0.0.1:80", "10.0.0.2:80"));
  }
}

TEST_F(BalancerCommands, NotEvenInPanic) {
  ServiceSpec spec = ServiceOf("web", BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}));
  spec.health.enabled = true;
  Configure({spec});
  bad = {"10.0.0.1:80", "10.0.0.2:80"};
  RunFor(10 * kSecond);
  ASSERT_TRUE(ReportOf("web").panic);
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDrain).ok());
  Settle();
  EXPECT_THAT(In("web"), ElementsAre("10.0.0.2:80"));
}

TEST_F(BalancerCommands, WeightsHoldUntilAnotherIsSaid) {
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kWeight, 3).ok());
  Settle();
  EXPECT_THAT(Picks("web", 400), ElementsAre(Pair("10.0.0.1:80", 300), Pair("10.0.0.2:80", 100)));
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDrain).ok());
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kEnable).ok());
  EXPECT_EQ(ReportOf("web", "10.0.0.1:80").weight, 3);
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kWeight, 0).ok());
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "off");
  Settle();
  EXPECT_THAT(In("web"), ElementsAre("10.0.0.2:80"));
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kWeight, kMostWeight).ok());
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "up");
}

TEST_F(BalancerCommands, ABackendIsNamedByItsAddressInAnySpelling) {
  EXPECT_TRUE(Say("web", "[fd00:0::0:1]:80", Kind::kDrain).ok());
  EXPECT_EQ(StateOf("web", "[fd00::1]:80"), "draining");
  EXPECT_TRUE(Say("web", "[::ffff:10.0.0.1]:80", Kind::kDrain).ok());
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "draining");
}

TEST_F(BalancerCommands, ErrorsNameWhatThereIs) {
  absl::Status status = Say("wbe", "10.0.0.1:80", Kind::kDrain);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), testing::AllOf(HasSubstr("\"wbe\""), HasSubstr("web, db")));
  for (const char* backend : {"10.0.0.1:5432", "backend-1", ""}) {
    status = Say("web", backend, Kind::kDrain);
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(std::string(status.message()),
                testing::AllOf(HasSubstr("\"web\""), HasSubstr(std::string("\"") + backend + "\""),
                               HasSubstr("10.0.0.1:80, 10.0.0.2:80, [fd00::1]:80"), Not(HasSubstr("more"))));
  }
  status = Say("web", "10.0.0.1:80", Kind::kWeight, kMostWeight + 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::AllOf(HasSubstr("65536"), HasSubstr("0 to 65535")));
  EXPECT_EQ(ReportOf("web", "10.0.0.1:80").weight, 1);

  Configure({ServiceOf("many", ManyBackends(20))});
  EXPECT_THAT(std::string(Say("many", "10.9.9.9:80", Kind::kDrain).message()),
              HasSubstr("10.0.0.8:80 and 12 more"));
  Configure({});
  EXPECT_THAT(std::string(Say("web", "10.0.0.1:80", Kind::kDrain).message()), HasSubstr("services: none"));
}

class BalancerClosings : public BalancerWorld {
 protected:
  static ServiceSpec Closing(std::vector<BackendSpec> backends) {
    ServiceSpec spec = ServiceOf("web", std::move(backends));
    spec.close_after = std::chrono::seconds(60);
    return spec;
  }
  void SetUp() override {
    Configure({both});
    TakeTable();
  }

  ServiceSpec both = Closing(BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}));
  ServiceSpec second_only = Closing(BackendsAt({"10.0.0.2:80"}));
};

TEST_F(BalancerClosings, ComeWhenABackendHasBeenGoneForTheTime) {
  Configure({second_only});
  const int64_t gone = now;
  Settle();
  EXPECT_EQ(balancer.NextDue(), gone + 60 * kSecond);
  EXPECT_THAT(balancer.TakeClosings(gone + 60 * kSecond - 1), IsEmpty());
  RunUntil(gone + 200 * kSecond);
  EXPECT_THAT(closings, ElementsAre(Pair(gone + 60 * kSecond, "web 10.0.0.1:80")));
}

TEST_F(BalancerClosings, DoNotComeIfItComesBackBefore) {
  Configure({second_only});
  RunFor(59 * kSecond);
  Configure({both});
  RunFor(200 * kSecond);
  EXPECT_THAT(closings, IsEmpty());
}

TEST_F(BalancerClosings, ComeForAWholeService) {
  Configure({});
  const int64_t gone = now;
  RunFor(60 * kSecond);
  EXPECT_THAT(closings, ElementsAre(Pair(gone + 60 * kSecond, "web 10.0.0.1:80"),
                                    Pair(gone + 60 * kSecond, "web 10.0.0.2:80")));
}

TEST_F(BalancerClosings, ComeForADrainedBackend) {
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDrain).ok());
  const int64_t drained = now;
  RunFor(30 * kSecond);
  // Saying it again changes nothing.
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDrain).ok());
  RunFor(200 * kSecond);
  EXPECT_THAT(closings, ElementsAre(Pair(drained + 60 * kSecond, "web 10.0.0.1:80")));
}

TEST_F(BalancerClosings, ADrainedBackendThatGoesKeepsItsTime) {
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDrain).ok());
  const int64_t drained = now;
  RunFor(30 * kSecond);
  Configure({second_only});
  RunFor(200 * kSecond);
  EXPECT_THAT(closings, ElementsAre(Pair(drained + 60 * kSecond, "web 10.0.0.1:80")));
}

TEST_F(BalancerClosings, DoNotComeIfADrainedBackendIsEnabled) {
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDrain).ok());
  RunFor(59 * kSecond);
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kEnable).ok());
  RunFor(200 * kSecond);
  EXPECT_THAT(closings, IsEmpty());
}

TEST_F(BalancerClosings, DoNotComeForADisabledBackendOrWithoutATime) {
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDisable).ok());
  RunFor(200 * kSecond);
  both.close_after.reset();
  second_only.close_after.reset();
  Configure({both});
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDrain).ok());
  RunFor(200 * kSecond);
  Configure({second_only});
  RunFor(200 * kSecond);
  EXPECT_THAT(closings, IsEmpty());
}

TEST_F(BalancerClosings, FollowTheConfigurationWhileABackendIsDrained) {
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDrain).ok());
  const int64_t drained = now;
  RunFor(kSecond);
  both.close_after = std::chrono::seconds(10);
  Configure({both});
  RunUntil(drained + 20 * kSecond);
  EXPECT_THAT(closings, ElementsAre(Pair(drained + 10 * kSecond, "web 10.0.0.1:80")));
  // Once is enough.
  both.close_after = std::chrono::seconds(30);
  Configure({both});
  RunFor(200 * kSecond);
  EXPECT_EQ(closings.size(), 1);

  both.close_after.reset();
  Configure({both});
  ASSERT_TRUE(Say("web", "10.0.0.2:80", Kind::kDrain).ok());
  const int64_t second = now;
  RunFor(kSecond);
  both.close_after = std::chrono::seconds(5);
  Configure({both});
  RunUntil(second + 5 * kSecond);
  EXPECT_THAT(closings.back(), Pair(second + 5 * kSecond, "web 10.0.0.2:80"));
}

class BalancerReports : public BalancerWorld {};

TEST_F(BalancerReports, SayWhatAServiceIs) {
  ServiceSpec spec = ServiceOf("web", {});
  spec.addresses = {{ParseSubnet("10.96.0.10").value(), 80, 80, Transport::kTcp},
                    {ParseSubnet("10.97.0.0/16").value(), 8000, 8999, Transport::kUdp},
                    {ParseSubnet("fd00:96::10").value(), 80, 80, Transport::kTcp},
                    {ParseSubnet("fd00:97::/64").value(), 1, 65535, Transport::kTcp}};
  spec.policy = PickPolicy::kRingHash;
  spec.discover.dns = "_http._tcp.web.example";
  BackendSpec backend = BackendAt("10.0.0.1:80", 7);
  backend.zone = "east";
  backend.backup = true;
  spec.backends = {backend};
  Configure({spec});
  ServiceReport report = ReportOf("web");
  EXPECT_THAT(report.addresses, ElementsAre("10.96.0.10:80/tcp", "10.97.0.0/16:8000-8999/udp",
                                            "[fd00:96::10]:80/tcp", "[fd00:97::/64]:1-65535/tcp"));
  EXPECT_EQ(report.policy, "ring-hash");
  EXPECT_EQ(report.affinity, "container");
  EXPECT_EQ(report.source, "_http._tcp.web.example");
  EXPECT_EQ(report.source_age_s, 0);
  ASSERT_EQ(report.backends.size(), 1);
  EXPECT_EQ(report.backends[0].address, "10.0.0.1:80");
  EXPECT_EQ(report.backends[0].zone, "east");
  EXPECT_TRUE(report.backends[0].backup);
  EXPECT_EQ(report.backends[0].weight, 7);
  EXPECT_EQ(report.backends[0].mean_connect_us, 0);

  balancer.Discover("web", {}, now);
  now += 2500 * kMillisecond;
  balancer.SourceFailed("web", "SERVFAIL", now);
  report = ReportOf("web");
  EXPECT_DOUBLE_EQ(report.source_age_s, 2.5);
  EXPECT_EQ(report.source_error, "SERVFAIL");
  balancer.Discover("web", {}, now);
  EXPECT_EQ(ReportOf("web").source_error, "");
  EXPECT_EQ(ReportOf("web").source_age_s, 0);
}

TEST_F(BalancerReports, HaveEachPolicyAndKeyByItsWord) {
  const std::pair<PickPolicy, const char*> policies[] = {
      {PickPolicy::kRoundRobin, "round-robin"},     {PickPolicy::kRandom, "random"},
      {PickPolicy::kLeastRequest, "least-request"}, {PickPolicy::kLeastConnections, "least-connections"},
      {PickPolicy::kLeastRtt, "least-rtt"},         {PickPolicy::kMaglev, "maglev"},
      {PickPolicy::kRingHash, "ring-hash"},         {PickPolicy::kFirst, "first"}};
  for (const auto& [policy, word] : policies) {
    ServiceSpec spec = ServiceOf("web", {});
    spec.policy = policy;
    Configure({spec});
    EXPECT_EQ(ReportOf("web").policy, word);
    EXPECT_EQ(ReportOf("web").affinity,
              policy == PickPolicy::kMaglev || policy == PickPolicy::kRingHash ? "container" : "none");
  }
  const std::pair<AffinityKey, const char*> keys[] = {{AffinityKey::kNone, "none"},
                                                      {AffinityKey::kContainer, "container"},
                                                      {AffinityKey::kUser, "user"},
                                                      {AffinityKey::kProcess, "process"}};
  for (const auto& [key, word] : keys) {
    ServiceSpec spec = ServiceOf("web", {});
    spec.policy = PickPolicy::kMaglev;
    spec.affinity = key;
    Configure({spec});
    EXPECT_EQ(ReportOf("web").affinity, word);
  }
}

TEST_F(BalancerReports, AddUpWhatReactorsHaveCounted) {
  Configure({ServiceOf("web", BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}))});
  TakeTable();
  const uint32_t slot = SlotOf("web", "10.0.0.2:80");
  for (size_t reactor = 0; reactor < 2; ++reactor) {
    BackendCounts& of_one = counts.At(reactor, slot);
    BackendCounts::Add(of_one.picks, 10 + reactor);
    BackendCounts::Add(of_one.connected, 4 + reactor);
    BackendCounts::Add(of_one.failed, 2 + reactor);
    BackendCounts::Add(of_one.connect_ns, 9'000);
    of_one.Begin();
  }
  const BackendReport report = ReportOf("web", "10.0.0.2:80");
  EXPECT_EQ(report.picks, 21);
  EXPECT_EQ(report.connected, 9);
  EXPECT_EQ(report.failed, 5);
  EXPECT_EQ(report.in_flight, 2);
  EXPECT_DOUBLE_EQ(report.mean_connect_us, 2);
  EXPECT_EQ(ReportOf("web", "10.0.0.1:80").picks, 0);
}

// Of several reasons, the one that has to go first.
TEST_F(BalancerReports, HaveOneStateForEachBackend) {
  ServiceSpec spec = ServiceOf("web", BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}));
  spec.health.enabled = spec.outlier.enabled = true;
  Configure({spec});
  TakeTable();
  const auto state = [&] { return StateOf("web", "10.0.0.1:80"); };
  Fail(SlotOf("web", "10.0.0.1:80"), 5);
  EXPECT_EQ(state(), "ejected");
  bad = {"10.0.0.1:80"};
  RunFor(6 * kSecond);
  EXPECT_EQ(state(), "down");
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kWeight, 0).ok());
  EXPECT_EQ(state(), "off");
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDrain).ok());
  EXPECT_EQ(state(), "draining");
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDisable).ok());
  EXPECT_EQ(state(), "disabled");
}

}  // namespace
}  // namespace shunt::net
