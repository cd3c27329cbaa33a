// SPDX-License-Identifier: Apache-2.0
// Services with affinity and a timeout: connections of one key stay together whatever the policy, and what
// is remembered never leads anywhere else.

#include "net/balancer/remembered_pick.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "tests/net/balancer/balancer_world.h"
#include "tests/net/balancer/heap_calls.h"
#include "tests/net/balancer/pick_parts.h"

namespace shunt::net {
namespace {

class RememberedPicks : public BalancerWorld {
 protected:
  static ServiceSpec Remembering(PickPolicy policy, std::vector<BackendSpec> backends) {
    ServiceSpec spec = ServiceOf("web", std::move(backends));
    spec.policy = policy;
    spec.affinity = AffinityKey::kContainer;
    spec.affinity_timeout = std::chrono::hours(3);
    return spec;
  }
  // Where a connection of this key goes; "": nowhere.
  std::string Went(uint64_t key, std::span<const uint32_t> tried = {}, bool v4 = true) {
    const Backend* const backend = PickFor(
        *ServiceIn(*table, "web"),
        {.to_v4 = v4, .wish = {.has_key = true, .key = key, .tried = tried}, .owner = key}, seat, &*memory);
    return backend == nullptr ? "" : backend->address.ToString();
  }

  std::unique_ptr<AffinityMemory> memory = AffinityMemory::Create().value();
  PickSeat seat{0, counts, 1};
};

TEST_F(RememberedPicks, StayTogetherAndAreSpreadByThePolicy) {
  for (const PickPolicy policy : {PickPolicy::kRoundRobin, PickPolicy::kRandom, PickPolicy::kLeastRequest,
                                  PickPolicy::kFirst, PickPolicy::kLeastConnections, PickPolicy::kLeastRtt}) {
    Configure({Remembering(policy, ManyBackends(4))});
    Settle();
    memory = AffinityMemory::Create().value();
    std::map<std::string, int> keys;
    for (uint64_t key = 0; key < 64; ++key) {
      const std::string first = Went(key);
      ++keys[first];
      for (int i = 0; i < 8; ++i) EXPECT_EQ(Went(key), first) << NameOf(policy);
    }
    EXPECT_EQ(keys.size(), policy == PickPolicy::kFirst ? 1u : 4u) << NameOf(policy);
    if (policy == PickPolicy::kRoundRobin) {
      for (const auto& [address, count] : keys) EXPECT_EQ(count, 16) << address;
    }
  }
}

TEST_F(RememberedPicks, WhoCannotBeHadIsForgotten) {
  Configure({Remembering(PickPolicy::kRoundRobin, ManyBackends(3))});
  Settle();
  const std::string first = Went(1);
  // Tried in this call.
  const uint32_t tried[] = {SlotOf("web", first)};
  const std::string second = Went(1, tried);
  EXPECT_NE(second, first);
  EXPECT_EQ(Went(1), second);
  // Drained.
  ASSERT_TRUE(Say("web", second, Kind::kDrain).ok());
  Settle();
  const std::string third = Went(1);
  EXPECT_NE(third, second);
  ASSERT_TRUE(Say("web", second, Kind::kEnable).ok());
  Settle();
  for (int i = 0; i < 6; ++i) EXPECT_EQ(Went(1), third);
}

// A slot that is given out again belongs to another backend: what was remembered does not lead there.
TEST_F(RememberedPicks, NeverLeadToAnotherBackendInTheSamePlace) {
  ServiceSpec spec = Remembering(PickPolicy::kFirst, BackendsAt({"10.0.0.1:80", "10.0.0.2:80"}));
  Configure({spec});
  Settle();
  EXPECT_EQ(Went(1), "10.0.0.1:80");
  const uint32_t slot = SlotOf("web", "10.0.0.1:80");
  for (int round = 0; round < 3; ++round) {  // until the slot is free
    spec.backends = BackendsAt({"10.0.0.2:80"});
    Configure({spec});
    Settle();
  }
  spec.backends = BackendsAt({"10.0.0.2:80", "10.0.0.3:80"});
  Configure({spec});
  Settle();
  ASSERT_EQ(SlotOf("web", "10.0.0.3:80"), slot);
  EXPECT_EQ(Went(1), "10.0.0.2:80");
}

TEST_F(RememberedPicks, HaveABackendOfEachFamily) {
  Configure({Remembering(PickPolicy::kRoundRobin,
                         BackendsAt({"10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80", "[fd00::2]:80"}))});
  Settle();
  const std::string v4 = Went(1), v6 = Went(1, {}, false);
  EXPECT_EQ(v6.substr(0, 6), "[fd00:");
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Went(1), v4);
    EXPECT_EQ(Went(1, {}, false), v6);
  }
}

TEST_F(RememberedPicks, GoByThePolicyWhereThereIsNoMemory) {
  Configure({Remembering(PickPolicy::kRoundRobin, ManyBackends(4))});
  Settle();
  std::set<std::string> went;
  for (int i = 0; i < 4; ++i) {
    went.insert(PickFor(*ServiceIn(*table, "web"), {.to_v4 = true, .wish = {.has_key = true, .key = 1}}, seat,
                        nullptr)
                    ->address.ToString());
  }
  EXPECT_EQ(went.size(), 4u);
}

TEST_F(RememberedPicks, DoNotTouchTheHeap) {
  Configure({Remembering(PickPolicy::kRoundRobin, ManyBackends(100))});
  Settle();
  const Service& web = *ServiceIn(*table, "web");
  const uint64_t before = HeapCalls();
  for (uint64_t i = 0; i < 1000; ++i) {
    const PickWish wish{.has_key = true, .key = i / 2};
    ASSERT_NE(PickFor(web, {.to_v4 = true, .wish = wish, .owner = i}, seat, &*memory), nullptr);
  }
  EXPECT_EQ(HeapCalls(), before);
}

}  // namespace
}  // namespace shunt::net
