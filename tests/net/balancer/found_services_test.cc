// SPDX-License-Identifier: Apache-2.0
// Balancer: services that a source finds beside those that are configured.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "net/balancer/found.h"
#include "tests/net/balancer/balancer_world.h"

namespace shunt::net {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

BackendSpec Leads(const std::string& service, const std::string& backend) {
  return {.address = SockAddrOf(backend), .service = SockAddrOf(service)};
}

// One that finds services in 10.0.0.0/8 and fd00::/8.
ServiceSpec Finder() {
  ServiceSpec spec;
  spec.name = "finder";
  spec.discover.etcd.endpoints = {"http://127.0.0.1:1"};
  spec.discover.services_in = {ParseSubnet("10.0.0.0/8").value(), ParseSubnet("fd00::/8").value()};
  return spec;
}

class FoundServices : public BalancerWorld {
 protected:
  FoundServices() { Configure({Finder()}); }

  void Find(std::vector<BackendSpec> found) {
    balancer.Discover("finder", std::move(found), now);
    Settle();
  }
  // Where a connect to this address goes; "-": where it says.
  std::string WayTo(const std::string& address) {
    const SockAddr peer = SockAddrOf(address);
    const Service* service = table->Find(Transport::kTcp, peer);
    if (service == nullptr) return "-";
    const std::vector<Backend> picks = AllPicks(service->TableFor(peer.ip().IsV4()), counts);
    return picks.size() == 1 ? picks[0].address.ToString() : absl::StrCat(picks.size(), " backends");
  }
  std::vector<std::string> Names() {
    std::vector<std::string> names;
    for (const ServiceReport& report : balancer.Describe(now)) names.push_back(report.name);
    return names;
  }
};

TEST_F(FoundServices, LeadTheirAddressesToTheirBackends) {
  Find({Leads("10.1.0.5:80", "192.168.7.1:8080"), Leads("[fd00::5]:80", "[2001:db8::1]:8080")});
  EXPECT_EQ(WayTo("10.1.0.5:80"), "192.168.7.1:8080");
  EXPECT_EQ(WayTo("[fd00::5]:80"), "[2001:db8::1]:8080");
  EXPECT_EQ(WayTo("10.1.0.5:81"), "-");
  EXPECT_EQ(WayTo("10.1.0.6:80"), "-");
  EXPECT_EQ(table->Find(Transport::kUdp, SockAddrOf("10.1.0.5:80")), nullptr);
  EXPECT_THAT(Names(), ElementsAre("finder", "10.1.0.5:80", "[fd00::5]:80"));
  EXPECT_THAT(balancer.Describe(now)[0].backends, IsEmpty());
}

TEST_F(FoundServices, ComeChangeAndGo) {
  Find({Leads("10.1.0.5:80", "192.168.7.1:8080"), Leads("10.1.0.6:80", "192.168.7.1:8081")});
  const Service* kept = table->Find(Transport::kTcp, SockAddrOf("10.1.0.6:80"));
  Find({Leads("10.1.0.6:80", "192.168.7.1:8081"), Leads("10.1.0.7:80", "192.168.7.1:8082")});
  EXPECT_EQ(WayTo("10.1.0.5:80"), "-");
  EXPECT_EQ(table->Find(Transport::kTcp, SockAddrOf("10.1.0.6:80")), kept) << "it is not made anew";
  EXPECT_EQ(WayTo("10.1.0.7:80"), "192.168.7.1:8082");
  Find({Leads("10.1.0.6:80", "192.168.7.2:8081")});
  EXPECT_EQ(WayTo("10.1.0.6:80"), "192.168.7.2:8081");
  EXPECT_EQ(WayTo("10.1.0.7:80"), "-");
  Configure({});
  Settle();
  EXPECT_EQ(WayTo("10.1.0.6:80"), "-");
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(FoundServices, StayWhereTheSourceFailsAndWhereTheRestIsConfiguredAnew) {
  Find({Leads("10.1.0.5:80", "192.168.7.1:8080")});
  balancer.SourceFailed("finder", "away", now);
  Configure({ServiceOf("web", BackendsAt({"10.0.0.1:80"})), Finder()});
  Settle();
  EXPECT_EQ(WayTo("10.1.0.5:80"), "192.168.7.1:8080");
  EXPECT_EQ(balancer.Describe(now)[1].source_error, "away");
}

TEST_F(FoundServices, TakeNoAddressOfAServiceThatIsConfigured) {
  ServiceSpec network = ServiceOf("network", BackendsAt({"10.0.0.2:80"}), 9);
  network.addresses = {{ParseSubnet("10.97.0.0/16").value(), 80, 90, Transport::kTcp}};
  Configure({Finder(), ServiceOf("web", BackendsAt({"10.0.0.1:80"})), network});
  const std::vector<BackendSpec> found = {Leads("10.96.0.1:80", "192.168.7.1:8080"),
                                          Leads("10.97.0.5:85", "192.168.7.1:8081"),
                                          Leads("10.97.0.5:91", "192.168.7.1:8082")};
  Find(found);
  EXPECT_EQ(WayTo("10.96.0.1:80"), "10.0.0.1:80");
  EXPECT_EQ(WayTo("10.97.0.5:85"), "10.0.0.2:80");
  EXPECT_EQ(WayTo("10.97.0.5:91"), "192.168.7.1:8082");
  EXPECT_THAT(balancer.TakeRemarks(), ElementsAre(HasSubstr("10.96.0.1:80, 10.97.0.5:85")));

  std::vector<BackendSpec> more = found;
  more.push_back(Leads("10.1.0.5:80", "192.168.7.1:8083"));
  Find(more);
  EXPECT_THAT(balancer.TakeRemarks(), IsEmpty()) << "that was told";

  // One that is configured later takes its address back, and who goes leaves it.
  Configure({Finder(), ServiceOf("web", BackendsAt({"10.0.0.1:80"}), 5)});
  Settle();
  EXPECT_EQ(WayTo("10.96.0.5:80"), "10.0.0.1:80");
  EXPECT_EQ(WayTo("10.96.0.1:80"), "192.168.7.1:8080");
  Configure({Finder(), ServiceOf("web", BackendsAt({"10.0.0.1:80"}))});
  Settle();
  EXPECT_EQ(WayTo("10.96.0.1:80"), "10.0.0.1:80");
  EXPECT_THAT(balancer.TakeRemarks(), ElementsAre(HasSubstr("10.96.0.1:80")));
}

TEST_F(FoundServices, AreInTheNetworksThatTheyMayBeIn) {
  Find({Leads("192.0.2.1:443", "192.168.7.1:8080"), Leads("10.1.0.5:80", "192.168.7.1:8080")});
  EXPECT_EQ(WayTo("192.0.2.1:443"), "-");
  EXPECT_THAT(balancer.TakeRemarks(), ElementsAre(HasSubstr("192.0.2.1:443")));
  ServiceSpec narrower = Finder();
  narrower.discover.services_in = {ParseSubnet("10.2.0.0/16").value()};
  Configure({narrower});
  Settle();
  EXPECT_EQ(WayTo("10.1.0.5:80"), "-") << "what was found before is held to it, too";
}

TEST_F(FoundServices, OfTwoForOneAddressTheFirstOneCounts) {
  Find({Leads("10.1.0.5:80", "192.168.7.1:8080"), Leads("10.1.0.5:80", "192.168.7.2:8080")});
  EXPECT_EQ(WayTo("10.1.0.5:80"), "192.168.7.1:8080");
  EXPECT_THAT(Names(), SizeIs(2));
}

TEST_F(FoundServices, AreRememberedForWhoBalancesNext) {
  Find({Leads("10.1.0.5:80", "192.168.7.1:8080")});
  BackendCountBook other_counts{1};
  Balancer next(other_counts, "");
  next.Remember({balancer.Found("finder")});
  next.Configure({Finder()}, "", now);
  EXPECT_NE(next.TakeTable(now)->Find(Transport::kTcp, SockAddrOf("10.1.0.5:80")), nullptr);
}

// A source that tells of changes.
class FoundByName : public FoundServices {
 protected:
  FoundByName() { Configure({Cluster()}); }

  static ServiceSpec Cluster(const std::string& name = "cluster") {
    ServiceSpec spec;
    spec.name = name;
    spec.discover.kubernetes.services = KubernetesSpec::kAllSpaces;
    return spec;
  }
  static FoundService Web(const std::string& name, const std::string& address,
                          std::initializer_list<const char*> backends,
                          Transport transport = Transport::kTcp) {
    FoundService found;
    found.name = name;
    const SockAddr at = SockAddrOf(address);
    found.addresses = {{Subnet(at.ip(), at.ip().IsV4() ? 32 : 128), at.port(), at.port(), transport}};
    found.backends = BackendsAt(backends);
    return found;
  }
  static FoundChanges Changes(const std::vector<FoundService>& there,
                              const std::vector<std::string>& gone = {}) {
    FoundChanges changes;
    for (const FoundService& one : there)
      changes.services[one.name] = std::make_shared<const FoundService>(one);
    for (const std::string& name : gone) changes.services[name] = nullptr;
    return changes;
  }
  void Hear(FoundChanges changes, const std::string& wrong = "", const std::string& finder = "cluster") {
    balancer.DiscoverServices(finder, std::move(changes), wrong, now);
    RunFor(kSecond);
  }
  ServiceReport Report(const std::string& name) {
    for (const ServiceReport& report : balancer.Describe(now)) {
      if (report.name == name) return report;
    }
    ADD_FAILURE() << name << " is not there";
    return {};
  }
};

TEST_F(FoundByName, ComeChangeAndGoOneByOne) {
  FoundService web = Web("prod/web:http", "10.96.1.1:80", {"10.0.0.1:8080", "10.0.0.2:8080"});
  web.addresses.push_back({Subnet(SockAddrOf("[fd00::1]:80").ip(), 128), 80, 80, Transport::kTcp});
  Hear(Changes({web, Web("prod/db", "10.96.1.2:5432", {"10.0.0.3:5432"})}));
  EXPECT_THAT(Names(), ElementsAre("cluster", "prod/db", "prod/web:http"));
  EXPECT_EQ(WayTo("10.96.1.1:80"), "2 backends");
  EXPECT_EQ(WayTo("[fd00::1]:80"), "2 backends");
  EXPECT_EQ(WayTo("10.96.1.2:5432"), "10.0.0.3:5432");
  const Service* kept = table->Find(Transport::kTcp, SockAddrOf("10.96.1.2:5432"));

  Hear(Changes({Web("prod/web:http", "10.96.1.1:80", {"10.0.0.2:8080"})}));
  EXPECT_EQ(WayTo("10.96.1.1:80"), "10.0.0.2:8080");
  EXPECT_EQ(WayTo("[fd00::1]:80"), "-");
  EXPECT_EQ(table->Find(Transport::kTcp, SockAddrOf("10.96.1.2:5432")), kept) << "it is not made anew";

  Hear(Changes({Web("prod/web:http", "10.96.1.9:80", {"10.0.0.2:8080"})}, {"prod/db", "nobody"}));
  EXPECT_EQ(WayTo("10.96.1.1:80"), "-");
  EXPECT_EQ(WayTo("10.96.1.9:80"), "10.0.0.2:8080");
  EXPECT_EQ(WayTo("10.96.1.2:5432"), "-");

  FoundChanges whole = Changes({Web("prod/db", "10.96.1.2:5432", {})});
  whole.whole = true;
  Hear(std::move(whole));
  EXPECT_THAT(Names(), ElementsAre("cluster", "prod/db"));
  EXPECT_EQ(WayTo("10.96.1.2:5432"), "0 backends") << "which is refused";
}

TEST_F(FoundByName, AreAsTheirFinderIsConfigured) {
  ServiceSpec cluster = Cluster();
  cluster.policy = PickPolicy::kLeastConnections;
  cluster.connect.attempts = 7;
  cluster.health.enabled = true;
  cluster.zone_aware_from = 2;
  cluster.limits.max_connections = 100;
  Configure({cluster});
  FoundService sticky = Web("prod/sticky", "10.96.1.2:80", {"10.0.0.1:80"});
  sticky.sticky = true;
  sticky.sticky_for = std::chrono::hours(3);
  sticky.trouble = "a port is left out";
  Hear(Changes({Web("prod/web", "10.96.1.1:80", {"10.0.0.1:80"}), sticky,
                Web("prod/dns", "10.96.1.3:53", {"10.0.0.1:53"}, Transport::kUdp)}));
  const Service* web = table->Find(Transport::kTcp, SockAddrOf("10.96.1.1:80"));
  ASSERT_NE(web, nullptr);
  EXPECT_EQ(web->attempts, 7);
  EXPECT_EQ(web->affinity, AffinityKey::kNone);
  EXPECT_EQ(web->network, ServiceNetwork::kHost);
  EXPECT_EQ(Report("prod/web").policy, "least-connections");
  EXPECT_EQ(Report("prod/web").source, "cluster");
  const Service* together = table->Find(Transport::kTcp, SockAddrOf("10.96.1.2:80"));
  EXPECT_EQ(together->affinity, AffinityKey::kContainer);
  EXPECT_EQ(together->remembers_ns, 3 * 3600 * kSecond);
  EXPECT_EQ(Report("prod/sticky").source_error, "a port is left out");
  const Service* dns = table->Find(Transport::kUdp, SockAddrOf("10.96.1.3:53"));
  ASSERT_NE(dns, nullptr);
  EXPECT_EQ(dns->network, ServiceNetwork::kContainer);
  EXPECT_EQ(Report("prod/dns").policy, "least-request");
  EXPECT_FALSE(dns->limits.enabled());
  EXPECT_TRUE(web->limits.enabled());
  RunFor(3 * kSecond);
  EXPECT_THAT(checks, SizeIs(testing::Ge(2u)));
  for (const auto& [time, address] : checks) EXPECT_EQ(address, "10.0.0.1:80");

  // What is found is made anew of another configuration.
  cluster = Cluster();
  cluster.policy = PickPolicy::kMaglev;
  Configure({cluster});
  Settle();
  EXPECT_EQ(table->Find(Transport::kTcp, SockAddrOf("10.96.1.2:80"))->remembers_ns, 0) << "by hash, for ever";
  EXPECT_EQ(table->Find(Transport::kTcp, SockAddrOf("10.96.1.1:80"))->attempts, 3);
}

TEST_F(FoundByName, FollowCommandsByTheirNames) {
  Hear(Changes({Web("prod/web:http", "10.96.1.1:80", {"10.0.0.1:80", "10.0.0.2:80"})}));
  EXPECT_TRUE(balancer.Command("prod/web:http", "10.0.0.1:80", {.kind = Kind::kDrain}, now).ok());
  Settle();
  EXPECT_EQ(WayTo("10.96.1.1:80"), "10.0.0.2:80");
  Hear(Changes({Web("prod/web:http", "10.96.1.1:80", {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"})}));
  EXPECT_EQ(WayTo("10.96.1.1:80"), "2 backends") << "it is drained still";
}

TEST_F(FoundByName, StayWhenTheSourceFails) {
  Hear(Changes({Web("prod/web", "10.96.1.1:80", {"10.0.0.1:80"})}));
  Hear({}, "away");
  EXPECT_EQ(WayTo("10.96.1.1:80"), "10.0.0.1:80");
  EXPECT_EQ(Report("cluster").source_error, "away");
  Hear(Changes({Web("prod/web", "10.96.1.1:80", {"10.0.0.2:80"})}), "half of it is away");
  EXPECT_EQ(WayTo("10.96.1.1:80"), "10.0.0.2:80");
  EXPECT_EQ(Report("cluster").source_error, "half of it is away");
  Hear({});
  EXPECT_EQ(Report("cluster").source_error, "");
}

TEST_F(FoundByName, LeaveAnAddressThatIsConfiguredAndKeepTheOthers) {
  FoundService web = Web("prod/web", "10.96.0.1:80", {"10.0.0.1:80"});
  web.addresses.push_back({Subnet(SockAddrOf("[fd00::1]:80").ip(), 128), 80, 80, Transport::kTcp});
  Configure({ServiceOf("own", BackendsAt({"10.0.0.9:80"})), Cluster()});
  Hear(Changes({web}));
  EXPECT_EQ(WayTo("10.96.0.1:80"), "10.0.0.9:80");
  EXPECT_EQ(WayTo("[fd00::1]:80"), "10.0.0.1:80");
  EXPECT_THAT(balancer.TakeRemarks(), ElementsAre(HasSubstr("prod/web at 10.96.0.1:80 is left out")));
  web.backends = BackendsAt({"10.0.0.2:80"});
  Hear(Changes({web}));
  EXPECT_THAT(balancer.TakeRemarks(), IsEmpty()) << "that was told";
  Configure({Cluster()});
  Settle();
  EXPECT_EQ(WayTo("10.96.0.1:80"), "10.0.0.2:80");
}

TEST_F(FoundByName, HandAnAddressOnWhicheverIsToldFirst) {
  Hear(Changes({Web("prod/old", "10.96.1.1:80", {"10.0.0.1:80"})}));
  Hear(Changes({Web("prod/new", "10.96.1.1:80", {"10.0.0.2:80"})}));
  EXPECT_EQ(WayTo("10.96.1.1:80"), "10.0.0.2:80") << "the first one by name";
  Hear(Changes({}, {"prod/new"}));
  EXPECT_EQ(WayTo("10.96.1.1:80"), "10.0.0.1:80");
  Hear(Changes({Web("prod/z", "10.96.1.1:80", {"10.0.0.3:80"})}, {"prod/old"}));
  EXPECT_EQ(WayTo("10.96.1.1:80"), "10.0.0.3:80");
}

TEST_F(FoundByName, OfTwoSourcesTheFirstOneCountsAsLongAsItHasThem) {
  Configure({Cluster(), Cluster("second")});
  Hear(Changes({Web("prod/web", "10.96.1.1:80", {"10.0.0.1:80"})}));
  Hear(Changes({Web("prod/web", "10.97.1.1:80", {"10.0.0.2:80"})}), "", "second");
  EXPECT_THAT(balancer.TakeRemarks(), ElementsAre(HasSubstr("another source has found one of that name")));
  EXPECT_EQ(WayTo("10.97.1.1:80"), "-");
  Hear(Changes({}, {"prod/web"}));
  EXPECT_EQ(WayTo("10.96.1.1:80"), "-");
  EXPECT_EQ(WayTo("10.97.1.1:80"), "10.0.0.2:80");
  Configure({Cluster()});
  Settle();
  EXPECT_THAT(Names(), ElementsAre("cluster"));
}

TEST_F(FoundByName, AreRememberedForWhoBalancesNext) {
  Hear(Changes({Web("prod/web", "10.96.1.1:80", {"10.0.0.1:80"})}));
  BackendCountBook other_counts{1};
  Balancer next(other_counts, "");
  next.Remember({balancer.Found("cluster")});
  next.Configure({Cluster()}, "", now);
  EXPECT_NE(next.TakeTable(now)->Find(Transport::kTcp, SockAddrOf("10.96.1.1:80")), nullptr);
  EXPECT_THAT(next.Describe(now)[0].source_error, HasSubstr("has not answered yet"));
  FoundChanges whole = Changes({Web("prod/other", "10.96.1.2:80", {"10.0.0.1:80"})});
  whole.whole = true;
  next.DiscoverServices("cluster", std::move(whole), "", now);
  const auto after = next.TakeTable(now, /*at_once=*/true);
  EXPECT_EQ(after->Find(Transport::kTcp, SockAddrOf("10.96.1.1:80")), nullptr);
  EXPECT_NE(after->Find(Transport::kTcp, SockAddrOf("10.96.1.2:80")), nullptr);
}

TEST_F(FoundByName, GiveTheirNumbersBackAlsoOneByOne) {
  for (int round = 0; round < 200; ++round) {
    const std::string name = absl::StrCat("prod/s", round);
    Hear(Changes({Web(name, absl::StrCat("10.96.1.", round, ":80"), {"10.0.0.1:80"})},
                 {absl::StrCat("prod/s", round - 1)}));
  }
  EXPECT_LT(SlotOf("prod/s199", "10.0.0.1:80"), 20u);
  EXPECT_LT(table->Find(Transport::kTcp, SockAddrOf("10.96.1.199:80"))->id, 20u);
}

TEST(FoundChangesTest, AddUpToTheLastWordOnEach) {
  const auto one = std::make_shared<const FoundService>(), other = std::make_shared<const FoundService>();
  FoundChanges changes{.whole = true, .services = {{"a", one}, {"b", one}}, .remarks = {"first"}};
  changes.Add({.whole = false, .services = {{"a", other}, {"b", nullptr}, {"c", one}}, .remarks = {}});
  EXPECT_TRUE(changes.whole);
  EXPECT_EQ(changes.services.at("a"), other);
  EXPECT_EQ(changes.services.at("b"), nullptr);
  EXPECT_EQ(changes.services.at("c"), one);
  changes.Add({.whole = true, .services = {{"d", one}}, .remarks = {"second"}});
  EXPECT_THAT(changes.services, SizeIs(1));
  EXPECT_THAT(changes.remarks, ElementsAre("first", "second"));
}

TEST_F(FoundServices, GiveTheirNumbersBack) {
  for (int round = 0; round < 50; ++round) {
    std::vector<BackendSpec> found;
    for (int i = 0; i < 20; ++i) {
      found.push_back(Leads(absl::StrCat("10.1.", round, ".", i, ":80"), "192.168.7.1:8080"));
    }
    Find(found);
    RunFor(kSecond);
  }
  EXPECT_LT(SlotOf("10.1.49.0:80", "192.168.7.1:8080"), 100u);
}

}  // namespace
}  // namespace shunt::net
