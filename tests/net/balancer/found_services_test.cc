// SPDX-License-Identifier: Apache-2.0
// Balancer: services that a source finds beside those that are configured.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
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
