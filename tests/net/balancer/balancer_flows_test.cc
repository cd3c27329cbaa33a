// SPDX-License-Identifier: Apache-2.0
// Where UDP flows of a service may be, as its backends go and come.

#include <algorithm>
#include <string>
#include <vector>

#include "tests/net/balancer/balancer_world.h"

namespace shunt::net {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class BalancerFlows : public BalancerWorld {
 protected:
  static ServiceSpec Datagrams(std::vector<BackendSpec> backends) {
    ServiceSpec spec = ServiceOf("dns", std::move(backends));
    spec.addresses[0].transport = Transport::kUdp;
    spec.network = ServiceNetwork::kContainer;
    return spec;
  }
  // The last bytes of the addresses, 10.0.0.1 to 10.0.0.4, where flows may be by the last word; {-1}: there
  // was none since the last time.
  std::vector<int> Stay() {
    if (aimings.empty()) return {-1};
    const DueAiming last = std::move(aimings.back().second);
    aimings.clear();
    EXPECT_EQ(last.name, "dns");
    std::vector<int> stay;
    for (int i = 1; i <= 4; ++i) {
      const SockAddr address = SockAddrOf("10.0.0." + std::to_string(i) + ":80");
      if (last.stay.contains(BackendIdentity(address))) stay.push_back(i);
    }
    EXPECT_EQ(stay.size(), last.stay.size());
    return stay;
  }
};

TEST_F(BalancerFlows, LeaveWhoIsGoneDisabledOrDrained) {
  Configure({Datagrams(ManyBackends(4))});
  Settle();
  EXPECT_THAT(Stay(), ElementsAre(1, 2, 3, 4));
  ASSERT_TRUE(Say("dns", "10.0.0.1:80", Kind::kDisable).ok());
  Settle();
  EXPECT_THAT(Stay(), ElementsAre(2, 3, 4));
  ASSERT_TRUE(Say("dns", "10.0.0.2:80", Kind::kDrain).ok());
  Settle();
  EXPECT_THAT(Stay(), ElementsAre(3, 4));
  Configure({Datagrams(BackendsAt({"10.0.0.1:80", "10.0.0.2:80", "10.0.0.4:80"}))});
  Settle();
  EXPECT_THAT(Stay(), ElementsAre(4));
  ASSERT_TRUE(Say("dns", "10.0.0.1:80", Kind::kEnable).ok());
  Settle();
  EXPECT_THAT(Stay(), ElementsAre(1, 4));
}

TEST_F(BalancerFlows, StayWithWeightZeroAndWithWhomConnectsHaveEjected) {
  ServiceSpec spec = Datagrams(ManyBackends(4));
  spec.addresses.push_back({spec.addresses[0].network, 80, 80, Transport::kTcp});
  spec.outlier.enabled = true;
  Configure({spec});
  Settle();
  ASSERT_TRUE(Say("dns", "10.0.0.1:80", Kind::kWeight, 0).ok());
  Fail(SlotOf("dns", "10.0.0.2:80"), 5);
  ASSERT_EQ(StateOf("dns", "10.0.0.2:80"), "ejected");
  Settle();
  EXPECT_THAT(Stay(), ElementsAre(1, 2, 3, 4));
}

TEST_F(BalancerFlows, LeaveWhoIsDownUnlessThereIsAPanic) {
  ServiceSpec spec = Datagrams(ManyBackends(4));
  spec.addresses.push_back({spec.addresses[0].network, 80, 80, Transport::kTcp});
  spec.health.enabled = true;
  Configure({spec});
  bad = {"10.0.0.1:80"};
  RunFor(20 * kSecond);
  EXPECT_THAT(Stay(), ElementsAre(2, 3, 4));
  bad = {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"};
  RunFor(20 * kSecond);
  EXPECT_THAT(Stay(), ElementsAre(1, 2, 3, 4));
}

TEST_F(BalancerFlows, HaveTheTimeOfADrain) {
  ServiceSpec spec = Datagrams(ManyBackends(4));
  spec.close_after = std::chrono::seconds(30);
  Configure({spec});
  Settle();
  ASSERT_TRUE(Say("dns", "10.0.0.1:80", Kind::kDrain).ok());
  const int64_t drained = now;
  Settle();
  EXPECT_THAT(Stay(), ElementsAre(1, 2, 3, 4));
  RunUntil(drained + 30 * kSecond - 1);
  EXPECT_THAT(Stay(), ElementsAre(-1));
  RunUntil(drained + 30 * kSecond);
  EXPECT_THAT(Stay(), ElementsAre(2, 3, 4));
  // Who goes meanwhile has none.
  ASSERT_TRUE(Say("dns", "10.0.0.2:80", Kind::kDrain).ok());
  ASSERT_TRUE(Say("dns", "10.0.0.2:80", Kind::kDisable).ok());
  Settle();
  EXPECT_THAT(Stay(), ElementsAre(3, 4));
}

TEST_F(BalancerFlows, AreSaidAfterTheTableThatTheyGoBy) {
  Configure({Datagrams(ManyBackends(4))});
  Settle();
  ASSERT_TRUE(Say("dns", "10.0.0.1:80", Kind::kDisable).ok());
  EXPECT_THAT(balancer.TakeAimings(now), IsEmpty());
  Settle();
  EXPECT_EQ(aimings.back().first, tables_at.back());
}

TEST_F(BalancerFlows, StayUntilASourceHasAnswered) {
  ServiceSpec spec = Datagrams(ManyBackends(1));
  spec.discover.file = "/etc/dns.yaml";
  Configure({spec});
  Settle();
  EXPECT_THAT(Stay(), ElementsAre(-1));
  balancer.Discover("dns", BackendsAt({"10.0.0.2:80"}), now);
  Settle();
  EXPECT_THAT(Stay(), ElementsAre(1, 2));
}

TEST_F(BalancerFlows, AreNotAskedAboutWhereThereIsNoUdp) {
  Configure({ServiceOf("web", ManyBackends(2))});
  Settle();
  ASSERT_TRUE(Say("web", "10.0.0.1:80", Kind::kDisable).ok());
  Settle();
  EXPECT_THAT(aimings, IsEmpty());
}

}  // namespace
}  // namespace shunt::net
