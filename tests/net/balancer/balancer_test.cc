// SPDX-License-Identifier: Apache-2.0
// Balancer: which services and backends there are, what is kept of them, and when tables are made.

#include "net/balancer/balancer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/net/balancer/balancer_world.h"

namespace shunt::net {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class BalancerTables : public BalancerWorld {};

TEST_F(BalancerTables, TheFirstOneComesAtOnce) {
  EXPECT_EQ(balancer.NextDue(), kNever);
  EXPECT_FALSE(TakeTable());
  Configure({ServiceOf("web", BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}))});
  EXPECT_EQ(balancer.NextDue(), now);
  ASSERT_TRUE(TakeTable());
  EXPECT_THAT(In("web"), ElementsAre("10.0.0.1:80", "10.0.0.2:80"));
  EXPECT_EQ(balancer.NextDue(), kNever);
}

TEST_F(BalancerTables, TheNextOneComesTheIntervalLaterWithAllThatHasHappened) {
  Configure({ServiceOf("web", BackendsAt({"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"}))});
  TakeTable();
  const int64_t made = now;
  now += 10 * kMillisecond;
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDrain).ok());
  now += 10 * kMillisecond;
  ASSERT_TRUE(Say("web", "10.0.0.2:80", Kind::kDisable).ok());
  EXPECT_EQ(balancer.NextDue(), made + 100 * kMillisecond);
  now = made + 100 * kMillisecond - 1;
  balancer.Advance(now);
  EXPECT_FALSE(TakeTable());
  EXPECT_EQ(balancer.NextDue(), made + 100 * kMillisecond);
  now = made + 100 * kMillisecond;
  balancer.Advance(now);
  ASSERT_TRUE(TakeTable());
  EXPECT_THAT(In("web"), ElementsAre("10.0.0.3:80"));
  EXPECT_EQ(balancer.NextDue(), kNever);
}

TEST_F(BalancerTables, WhoWaitsForOneGetsItBeforeTheInterval) {
  Configure({ServiceOf("web", BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}))});
  TakeTable();
  EXPECT_EQ(balancer.TakeTable(now, /*at_once=*/true), nullptr) << "nothing has changed";
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDrain).ok());
  EXPECT_EQ(balancer.TakeTable(now), nullptr);
  table = balancer.TakeTable(now, /*at_once=*/true);
  ASSERT_NE(table, nullptr);
  EXPECT_THAT(In("web"), ElementsAre("10.0.0.2:80"));
}

TEST_F(BalancerTables, NothingIsEverDueBeforeTheTimeThatWasToldLast) {
  Configure({ServiceOf("web", BackendsAt({"10.0.0.1:80"}))});
  TakeTable();
  (void)Say("web", "10.0.0.1:80", Kind::kDrain);
  now += kSecond;
  balancer.Advance(now);
  EXPECT_EQ(balancer.NextDue(), now);
}

TEST_F(BalancerTables, ServicesThatDidNotChangeAreShared) {
  Configure({ServiceOf("a", BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}), 1),
             ServiceOf("b", BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}), 2)});
  TakeTable();
  const std::shared_ptr<const ServiceTable> first = table;
  (void)Say("b", "10.0.0.1:80", Kind::kDrain);
  Settle();
  ASSERT_NE(table, first);
  EXPECT_EQ(ServiceIn(*table, "a"), ServiceIn(*first, "a"));
  EXPECT_NE(ServiceIn(*table, "b"), ServiceIn(*first, "b"));

  // Also by Configure().
  const std::shared_ptr<const ServiceTable> second = table;
  Configure({ServiceOf("a", BackendsAt({"10.0.0.1:80", "10.0.0.3:80"}), 1),
             ServiceOf("b", BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}), 2)});
  Settle();
  EXPECT_NE(ServiceIn(*table, "a"), ServiceIn(*second, "a"));
  EXPECT_EQ(ServiceIn(*table, "b"), ServiceIn(*second, "b"));
}

TEST_F(BalancerTables, WhatChangesNothingMakesNone) {
  ServiceSpec spec = ServiceOf("web", BackendsAt({"10.0.0.1:80"}));
  spec.discover.dns = "web.example:80";
  Configure({spec});
  balancer.Discover("web", BackendsAt({"10.0.0.2:80", "10.0.0.3:80"}), now);
  TakeTable();
  Configure({spec});
  balancer.Discover("web", BackendsAt({"10.0.0.2:80", "10.0.0.3:80"}), now);
  // As name servers do.
  balancer.Discover("web", BackendsAt({"10.0.0.3:80", "10.0.0.2:80"}), now);
  balancer.SourceFailed("web", "no answer", now);
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kEnable).ok());
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kWeight, 1).ok());
  EXPECT_EQ(balancer.NextDue(), kNever);
}

TEST_F(BalancerTables, TheOrderCountsWhereTheFirstOneIsPicked) {
  ServiceSpec spec = ServiceOf("web", {});
  spec.policy = PickPolicy::kFirst;
  spec.discover.file = "/etc/web.yaml";
  Configure({spec});
  balancer.Discover("web", BackendsAt({"10.0.0.2:80", "10.0.0.3:80"}), now);
  TakeTable();
  EXPECT_EQ(Picks("web", 1).begin()->first, "10.0.0.2:80");
  balancer.Discover("web", BackendsAt({"10.0.0.3:80", "10.0.0.2:80"}), now);
  Settle();
  EXPECT_EQ(Picks("web", 1).begin()->first, "10.0.0.3:80");
}

TEST_F(BalancerTables, HaveWhatTheServiceSays) {
  ServiceSpec spec = ServiceOf("web", BackendsAt({"10.0.0.1:80"}));
  spec.connect.attempts = 7;
  spec.connect.attempt_timeout = std::chrono::milliseconds(250);
  spec.network = ServiceNetwork::kContainer;
  spec.peer_name = PeerName::kService;
  ServiceSpec hashed = ServiceOf("hashed", BackendsAt({"10.0.0.1:80"}), 2);
  hashed.policy = PickPolicy::kMaglev;
  ServiceSpec by_user = ServiceOf("by-user", BackendsAt({"10.0.0.1:80"}), 3);
  by_user.affinity = AffinityKey::kUser;
  Configure({spec, hashed, by_user});
  TakeTable();
  const Service* web = table->Find(Transport::kTcp, SockAddrOf("10.96.0.1:80"));
  ASSERT_NE(web, nullptr);
  EXPECT_EQ(web->name, "web");
  EXPECT_EQ(table->At(web->id), web);
  EXPECT_EQ(web->attempts, 7);
  EXPECT_EQ(web->attempt_timeout_ns, 250 * kMillisecond);
  EXPECT_EQ(web->network, ServiceNetwork::kContainer);
  EXPECT_EQ(web->peer_name, PeerName::kService);
  EXPECT_EQ(web->affinity, AffinityKey::kNone);
  EXPECT_EQ(ServiceIn(*table, "hashed")->affinity, AffinityKey::kContainer);
  EXPECT_EQ(ServiceIn(*table, "by-user")->affinity, AffinityKey::kUser);
  EXPECT_EQ(table->Find(Transport::kTcp, SockAddrOf("10.96.0.1:81")), nullptr);
}

TEST_F(BalancerTables, FollowTheAddressesOfServices) {
  Configure({ServiceOf("web", BackendsAt({"10.0.0.1:80"}), 1)});
  TakeTable();
  Configure({ServiceOf("web", BackendsAt({"10.0.0.1:80"}), 2)});
  Settle();
  EXPECT_EQ(table->Find(Transport::kTcp, SockAddrOf("10.96.0.1:80")), nullptr);
  EXPECT_NE(table->Find(Transport::kTcp, SockAddrOf("10.96.0.2:80")), nullptr);
}

TEST_F(BalancerTables, BackendsAreThereByWhatTheSocketReaches) {
  Configure({ServiceOf("both", BackendsAt({"10.0.0.1:80", "[fd00::1]:80"}), 1),
             ServiceOf("v4", BackendsAt({"10.0.0.1:80"}), 2),
             ServiceOf("v6", BackendsAt({"[fd00::1]:80"}), 3), ServiceOf("empty", {}, 4)});
  TakeTable();
  EXPECT_THAT(In("both", true), ElementsAre("10.0.0.1:80"));
  EXPECT_THAT(In("both", false), ElementsAre("[fd00::1]:80"));
  EXPECT_THAT(In("v4", true), ElementsAre("10.0.0.1:80"));
  EXPECT_THAT(In("v4", false), ElementsAre("10.0.0.1:80"));
  EXPECT_THAT(In("v6", true), IsEmpty());
  EXPECT_THAT(In("v6", false), ElementsAre("[fd00::1]:80"));
  ASSERT_NE(ServiceIn(*table, "empty"), nullptr);
  EXPECT_EQ(ServiceIn(*table, "empty")->v4, nullptr);
  EXPECT_EQ(ServiceIn(*table, "empty")->v6, nullptr);
}

// Reactors may hold them for as long as they like.
TEST_F(BalancerTables, OutliveTheBalancer) {
  BackendCountBook book(1);
  std::shared_ptr<const ServiceTable> held;
  {
    Balancer short_lived(book, "");
    short_lived.Configure({ServiceOf("web", BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}))}, "", now);
    held = short_lived.TakeTable(now);
  }
  PickSeat seat(0, book, 1);
  EXPECT_NE(ServiceIn(*held, "web")->v4->Pick({}, seat), nullptr);
}

class BalancerMembership : public BalancerWorld {
 protected:
  static ServiceSpec Discovering(std::vector<BackendSpec> listed = {}) {
    ServiceSpec spec = ServiceOf("web", std::move(listed));
    spec.discover.file = "/etc/web.yaml";
    return spec;
  }
  std::vector<std::string> Listed(const std::string& service) {
    std::vector<std::string> texts;
    for (const BackendReport& backend : ReportOf(service).backends) texts.push_back(backend.address);
    return texts;
  }
};

TEST_F(BalancerMembership, WhatWasFoundBeforeHoldsUntilTheSourceAnswers) {
  const DiscoverSpec source = Discovering().discover;
  now = 100 * kSecond;
  balancer.Remember({{"web", source, BackendsAt({"10.0.0.2:80", "10.0.0.3:80"}), now - 7 * kSecond},
                     {"elsewhere", {.file = "/other"}, BackendsAt({"10.0.0.4:80"}), now}});
  ServiceSpec web = Discovering(BackendsAt({"10.0.0.1:80"}));
  web.slow_start.window = std::chrono::seconds(30);
  ServiceSpec elsewhere = Discovering();
  elsewhere.name = "elsewhere";
  Configure({web, elsewhere});
  TakeTable();
  EXPECT_THAT(In("web"), ElementsAre("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"));
  EXPECT_FALSE(ServiceIn(*table, "web")->pending);
  EXPECT_THAT(In("elsewhere"), IsEmpty()) << "it is looked for in another place";
  EXPECT_TRUE(ServiceIn(*table, "elsewhere")->pending);
  const ServiceReport report = balancer.Describe(now)[0];
  EXPECT_EQ(report.source_age_s, 7);
  EXPECT_THAT(report.source_error, testing::HasSubstr("it has not answered yet"));
  for (const BackendReport& backend : report.backends) EXPECT_EQ(backend.state, "up") << backend.address;
  EXPECT_EQ(balancer.Found("web").found_at, now - 7 * kSecond) << "for the next one";
  EXPECT_EQ(balancer.Found("web").source, source);
  EXPECT_TRUE(balancer.Found("elsewhere").source.none());

  balancer.Discover("web", BackendsAt({"10.0.0.3:80"}), now);
  Settle();
  EXPECT_THAT(In("web"), ElementsAre("10.0.0.1:80", "10.0.0.3:80"));
  EXPECT_EQ(balancer.Describe(now)[0].source_error, "");
  EXPECT_EQ(balancer.Found("web").backends, BackendsAt({"10.0.0.3:80"}));

  // Who comes later was not there before.
  Configure({web});
  Configure({web, elsewhere});
  elsewhere.name = "web";
  Configure({});
  Configure({elsewhere});
  Settle();
  EXPECT_THAT(In("web"), IsEmpty());
}

TEST_F(BalancerMembership, WhatIsInForceOfASourceIsOfTheOneThatFoundIt) {
  ServiceSpec spec = Discovering();
  Configure({spec});
  EXPECT_TRUE(balancer.Found("web").source.none());
  balancer.Discover("web", BackendsAt({"10.0.0.2:80"}), now);
  const DiscoverSpec former = std::exchange(spec.discover, {.dns = "web.svc:80"});
  Configure({spec});
  EXPECT_EQ(balancer.Found("web"), (FoundBackends{"web", former, BackendsAt({"10.0.0.2:80"}), now}));
  spec.discover = {};
  spec.backends = BackendsAt({"10.0.0.1:80"});
  Configure({spec});
  EXPECT_EQ(balancer.Found("web"), FoundBackends{.service = "web"});
}

TEST_F(BalancerMembership, ListedAndDiscoveredBackendsAddUp) {
  Configure({Discovering(BackendsAt({"10.0.0.1:80"}))});
  balancer.Discover("web", BackendsAt({"10.0.0.2:80", "10.0.0.3:80"}), now);
  EXPECT_THAT(Listed("web"), ElementsAre("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"));
  balancer.Discover("web", BackendsAt({"10.0.0.3:80"}), now);
  EXPECT_THAT(Listed("web"), ElementsAre("10.0.0.1:80", "10.0.0.3:80"));
  TakeTable();
  EXPECT_THAT(In("web"), ElementsAre("10.0.0.1:80", "10.0.0.3:80"));
}

TEST_F(BalancerMembership, OfAnAddressThatIsThereTwiceTheFirstCounts) {
  Configure({Discovering({BackendAt("10.0.0.1:80", 3), BackendAt("10.0.0.1:80", 4)})});
  balancer.Discover(
      "web", {BackendAt("10.0.0.1:80", 5), BackendAt("10.0.0.2:80", 6), BackendAt("10.0.0.2:80", 7)}, now);
  EXPECT_THAT(Listed("web"), ElementsAre("10.0.0.1:80", "10.0.0.2:80"));
  EXPECT_EQ(ReportOf("web", "10.0.0.1:80").weight, 3);
  EXPECT_EQ(ReportOf("web", "10.0.0.2:80").weight, 6);
  // Once the listed one has gone, the discovered one is what there is.
  Configure({Discovering()});
  EXPECT_EQ(ReportOf("web", "10.0.0.1:80").weight, 5);
}

TEST_F(BalancerMembership, BothSpellingsOfIPv4AreOneBackend) {
  sockaddr_in6 mapped{};
  mapped.sin6_family = AF_INET6;
  mapped.sin6_port = htons(80);
  mapped.sin6_addr = IpAddress::Parse("10.0.0.1").value().ToV6();
  BackendSpec spec;
  spec.address = SockAddr::Parse(std::as_bytes(std::span(&mapped, 1))).value();
  ASSERT_EQ(spec.address.family(), AF_INET6);
  Configure({ServiceOf("web", {spec, BackendAt("10.0.0.1:80")})});
  TakeTable();
  EXPECT_THAT(Listed("web"), ElementsAre("10.0.0.1:80"));
  ASSERT_NE(ServiceIn(*table, "web")->v4, nullptr);
  EXPECT_EQ(AllPicks(ServiceIn(*table, "web")->v4.get(), counts)[0].address.family(), AF_INET);
}

TEST_F(BalancerMembership, OnlyBackendsWithAllLabelsOfTheSubsetCount) {
  BackendSpec stable = BackendAt("10.0.0.1:80"), canary = BackendAt("10.0.0.2:80"),
              elsewhere = BackendAt("10.0.0.3:80");
  stable.labels = {{"version", "1"}, {"region", "east"}, {"team", "x"}};
  canary.labels = {{"version", "2"}, {"region", "east"}};
  elsewhere.labels = {{"version", "1"}};
  ServiceSpec spec = Discovering({stable, canary, BackendAt("10.0.0.4:80")});
  spec.subset = {{"version", "1"}, {"region", "east"}};
  Configure({spec});
  balancer.Discover("web", {elsewhere}, now);
  EXPECT_THAT(Listed("web"), ElementsAre("10.0.0.1:80"));
  spec.subset = {{"version", "1"}};
  Configure({spec});
  EXPECT_THAT(Listed("web"), ElementsAre("10.0.0.1:80", "10.0.0.3:80"));
}

TEST_F(BalancerMembership, AServiceWithoutASourceIgnoresWhatIsFound) {
  Configure({ServiceOf("web", BackendsAt({"10.0.0.1:80"}))});
  balancer.Discover("web", BackendsAt({"10.0.0.2:80"}), now);
  balancer.Discover("other", BackendsAt({"10.0.0.2:80"}), now);
  balancer.SourceFailed("web", "no answer", now);
  balancer.SourceFailed("other", "no answer", now);
  EXPECT_THAT(Listed("web"), ElementsAre("10.0.0.1:80"));
  EXPECT_EQ(ReportOf("web").source_error, "");
}

TEST_F(BalancerMembership, WhatWasFoundStaysUntilAnotherSourceAnswers) {
  Configure({Discovering()});
  balancer.Discover("web", BackendsAt({"10.0.0.2:80"}), now);
  balancer.SourceFailed("web", "it cannot be read", now);
  EXPECT_THAT(Listed("web"), ElementsAre("10.0.0.2:80"));
  EXPECT_EQ(ReportOf("web").source_error, "it cannot be read");

  ServiceSpec spec = Discovering();
  spec.discover.file = "/etc/other.yaml";
  Configure({spec});
  EXPECT_THAT(Listed("web"), ElementsAre("10.0.0.2:80"));
  EXPECT_EQ(ReportOf("web").source_error, "");
  EXPECT_EQ(ReportOf("web").source, "/etc/other.yaml");
  balancer.Discover("web", {}, now);
  EXPECT_THAT(Listed("web"), IsEmpty());

  balancer.Discover("web", BackendsAt({"10.0.0.2:80"}), now);
  spec.discover = {};
  Configure({spec});
  EXPECT_THAT(Listed("web"), IsEmpty());
}

TEST_F(BalancerMembership, WhatIsKnownOfABackendThatStaysIsKept) {
  const auto specs = [](std::vector<BackendSpec> backends) {
    ServiceSpec spec = Discovering(std::move(backends));
    spec.outlier.enabled = spec.health.enabled = true;
    return std::vector{spec};
  };
  Configure(specs(BackendsAt({"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"})));
  TakeTable();
  const uint32_t ejected = SlotOf("web", "10.0.0.1:80"), down = SlotOf("web", "10.0.0.2:80");
  Fail(ejected, 5);
  bad = {"10.0.0.2:80"};
  RunFor(6 * kSecond);
  ASSERT_TRUE(Say("web", "10.0.0.3:80", Kind::kDrain).ok());
  ASSERT_TRUE(Say("web", "10.0.0.4:80", Kind::kWeight, 9).ok());
  BackendCounts::Add(counts.At(1, down).picks, 17);

  const auto expect_it = [&] {
    EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "ejected");
    EXPECT_EQ(StateOf("web", "10.0.0.2:80"), "down");
    EXPECT_EQ(ReportOf("web", "10.0.0.2:80").picks, 17);
    EXPECT_EQ(ReportOf("web", "10.0.0.2:80").last_error, "Connection refused");
    EXPECT_EQ(StateOf("web", "10.0.0.3:80"), "draining");
    EXPECT_EQ(ReportOf("web", "10.0.0.4:80").weight, 9);
  };
  expect_it();
  // Another order, another weight, and one more.
  Configure(specs({BackendAt("10.0.0.5:80"), BackendAt("10.0.0.4:80", 2), BackendAt("10.0.0.3:80"),
                   BackendAt("10.0.0.2:80"), BackendAt("10.0.0.1:80")}));
  expect_it();
  Settle();
  EXPECT_EQ(SlotOf("web", "10.0.0.5:80"), 4);
}

TEST_F(BalancerMembership, ABackendMayMoveBetweenTheListAndTheSource) {
  ServiceSpec spec = Discovering(BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}));
  Configure({spec});
  balancer.Discover("web", BackendsAt({"10.0.0.1:80"}), now);
  TakeTable();
  const uint32_t slot = SlotOf("web", "10.0.0.1:80");
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDrain).ok());
  spec.backends = BackendsAt({"10.0.0.2:80"});
  Configure({spec});
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "draining");
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kEnable).ok());
  Settle();
  EXPECT_EQ(SlotOf("web", "10.0.0.1:80"), slot);
}

TEST_F(BalancerMembership, OfOneThatHadGoneNothingIsKept) {
  Configure({ServiceOf("web", BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}))});
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDrain).ok());
  Configure({ServiceOf("web", BackendsAt({"10.0.0.2:80"}))});
  Configure({ServiceOf("web", BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}))});
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "up");
  // The same for a whole service.
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDrain).ok());
  Configure({});
  Configure({ServiceOf("web", BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}))});
  EXPECT_EQ(StateOf("web", "10.0.0.1:80"), "up");
}

TEST_F(BalancerMembership, TheSameAddressOfTwoServicesIsTwoBackends) {
  Configure({ServiceOf("a", BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}), 1),
             ServiceOf("b", BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}), 2)});
  TakeTable();
  EXPECT_NE(SlotOf("a", "10.0.0.1:80"), SlotOf("b", "10.0.0.1:80"));
  ASSERT_TRUE(Say("a", "10.0.0.1:80", Kind::kDrain).ok());
  EXPECT_EQ(StateOf("b", "10.0.0.1:80"), "up");
}

TEST_F(BalancerMembership, AServiceMayLeadToItself) {
  Configure({ServiceOf("web", BackendsAt({"10.96.0.1:80"}), 1)});
  TakeTable();
  EXPECT_THAT(In("web"), ElementsAre("10.96.0.1:80"));
}

class BalancerNumbers : public BalancerWorld {
 protected:
  uint32_t IdOf(const std::string& service) { return ServiceIn(*table, service)->id; }
};

TEST_F(BalancerNumbers, AServiceKeepsItsIdWhereverItStands) {
  Configure({ServiceOf("a", {}, 1), ServiceOf("b", {}, 2), ServiceOf("c", {}, 3)});
  TakeTable();
  const uint32_t b = IdOf("b"), c = IdOf("c");
  Configure({ServiceOf("d", {}, 4), ServiceOf("c", {}, 3), ServiceOf("b", {}, 2)});
  Settle();
  EXPECT_EQ(IdOf("b"), b);
  EXPECT_EQ(IdOf("c"), c);
}

TEST_F(BalancerNumbers, AnIdIsGivenOutAgainAfterATableWithoutItHasRetired) {
  retire = false;
  Configure({ServiceOf("a", {}, 1), ServiceOf("b", {}, 2)});
  TakeTable();
  const std::shared_ptr<const ServiceTable> with = table;
  const uint32_t id = IdOf("a");
  Configure({ServiceOf("b", {}, 2)});
  Settle();
  const std::shared_ptr<const ServiceTable> without = table;
  EXPECT_EQ(table->At(id), nullptr);
  Configure({ServiceOf("b", {}, 2), ServiceOf("c", {}, 3)});
  Settle();
  EXPECT_NE(IdOf("c"), id);

  // The table that had it has gone: what waits may still have the id.
  balancer.TableRetired(*with);
  Configure({ServiceOf("b", {}, 2), ServiceOf("c", {}, 3), ServiceOf("d", {}, 4)});
  Settle();
  EXPECT_NE(IdOf("d"), id);

  balancer.TableRetired(*without);
  Configure({ServiceOf("b", {}, 2), ServiceOf("c", {}, 3), ServiceOf("d", {}, 4), ServiceOf("e", {}, 5)});
  Settle();
  EXPECT_EQ(IdOf("e"), id);
}

// It would go on with another service's backends.
TEST_F(BalancerNumbers, AnIdIsNotGivenOutWhileAnAttemptForItsServiceIsUnderWay) {
  Configure({ServiceOf("a", BackendsAt({"10.0.0.1:80"}), 1)});
  TakeTable();
  const uint32_t id = IdOf("a"), slot = SlotOf("a", "10.0.0.1:80");
  counts.At(1, slot).Begin();
  Configure({});
  Settle();
  Configure({ServiceOf("x", {}, 2)});
  Settle();
  ASSERT_NE(IdOf("x"), id);
  Configure({ServiceOf("x", {}, 2), ServiceOf("y", {}, 3)});
  Settle();
  EXPECT_NE(IdOf("y"), id);
  counts.At(1, slot).End();
  Configure({ServiceOf("x", {}, 2), ServiceOf("y", {}, 3), ServiceOf("z", {}, 4)});
  Settle();
  EXPECT_EQ(IdOf("z"), id);
}

TEST_F(BalancerNumbers, ASlotIsGivenOutAgainWhenNoTableAndNoAttemptHasIt) {
  retire = false;
  ServiceSpec spec = ServiceOf("web", {});
  spec.discover.dns = "web:80";
  Configure({spec});
  const auto discover = [&](std::initializer_list<const char*> addresses) {
    balancer.Discover("web", BackendsAt(addresses), now);
    Settle();
  };
  discover({"10.0.0.1:80"});
  const std::shared_ptr<const ServiceTable> first = table;
  const uint32_t slot = SlotOf("web", "10.0.0.1:80");
  counts.At(0, slot).Begin();
  discover({"10.0.0.2:80"});
  EXPECT_NE(SlotOf("web", "10.0.0.2:80"), slot);
  const std::shared_ptr<const ServiceTable> second = table;
  balancer.TableRetired(*second);  // out of order, and without a meaning for the slot
  discover({"10.0.0.2:80", "10.0.0.3:80"});
  EXPECT_NE(SlotOf("web", "10.0.0.3:80"), slot);
  balancer.TableRetired(*first);
  discover({"10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"});
  EXPECT_NE(SlotOf("web", "10.0.0.4:80"), slot);
  counts.At(0, slot).End();
  discover({"10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80", "10.0.0.5:80"});
  EXPECT_EQ(SlotOf("web", "10.0.0.5:80"), slot);
}

TEST_F(BalancerNumbers, ASlotThatNoTableNamedIsFreeAtOnce) {
  Configure({ServiceOf("web", BackendsAt({"10.0.0.1:80"}))});
  for (int i = 0; i < 100; ++i) {
    Configure({ServiceOf("web", BackendsAt({"10.0.0.2:80"}))});
    Configure({ServiceOf("web", BackendsAt({"10.0.0.1:80"}))});
  }
  TakeTable();
  EXPECT_LT(SlotOf("web", "10.0.0.1:80"), 4);
}

TEST_F(BalancerNumbers, WhatASlotHasCountedBeforeIsNotItsNewBackends) {
  ServiceSpec spec = ServiceOf("web", BackendsAt({"10.0.0.1:80"}));
  Configure({spec});
  TakeTable();
  const uint32_t slot = SlotOf("web", "10.0.0.1:80");
  BackendCounts& old_counts = counts.At(1, slot);
  BackendCounts::Add(old_counts.picks, 5);
  BackendCounts::Add(old_counts.connected, 4);
  BackendCounts::Add(old_counts.failed, 1);
  BackendCounts::Add(old_counts.connect_ns, 40'000);
  Configure({});
  Settle();
  Configure({ServiceOf("web", BackendsAt({"10.0.0.2:80"}))});
  Settle();
  ASSERT_EQ(SlotOf("web", "10.0.0.2:80"), slot);
  EXPECT_EQ(ReportOf("web", "10.0.0.2:80").picks, 0);
  BackendCounts::Add(counts.At(0, slot).picks, 3);
  BackendCounts::Add(counts.At(0, slot).connected, 2);
  BackendCounts::Add(counts.At(0, slot).failed, 1);
  BackendCounts::Add(counts.At(0, slot).connect_ns, 5'000);
  const BackendReport report = ReportOf("web", "10.0.0.2:80");
  EXPECT_EQ(report.picks, 3);
  EXPECT_EQ(report.connected, 2);
  EXPECT_EQ(report.failed, 1);
  EXPECT_DOUBLE_EQ(report.mean_connect_us, 2.5);
}

}  // namespace
}  // namespace shunt::net
