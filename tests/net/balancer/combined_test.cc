// SPDX-License-Identifier: Apache-2.0
// A service that has several of slow-start, outlier, limits and an affinity with a timeout: which of them
// decides.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "net/balancer/remembered_pick.h"
#include "tests/net/balancer/balancer_world.h"

namespace shunt::net {
namespace {

constexpr char kOne[] = "10.0.0.1:80", kTwo[] = "10.0.0.2:80", kThree[] = "10.0.0.3:80";

class Combined : public BalancerWorld {
 protected:
  static ServiceSpec Everything(std::vector<BackendSpec> backends) {
    ServiceSpec spec = ServiceOf("web", std::move(backends));
    spec.affinity = AffinityKey::kContainer;
    spec.affinity_timeout = std::chrono::hours(3);
    spec.slow_start.window = std::chrono::seconds(100);
    spec.outlier.enabled = true;
    spec.outlier.max_ejected = 1;
    spec.limits.max_connections = 2;
    return spec;
  }
  // They have been there for long, and have no connections.
  void Begin(std::vector<BackendSpec> backends) {
    spec_ = Everything(std::move(backends));
    Configure({spec_});
    RunFor(200 * kSecond);
    for (const BackendSpec& backend : spec_.backends) SetOpen(backend.address.ToString(), 0);
  }
  void Come(const char* address) {
    spec_.backends.push_back(BackendAt(address));
    Configure({spec_});
    Settle();
    SetOpen(address, 0);
    ASSERT_EQ(StateOf("web", address), "slow-start");
  }
  // So the kernel says.
  void SetOpen(const std::string& address, uint32_t open) {
    PlaceCount& places = counts.PlacesOf(SlotOf("web", address));
    places.EndLook(open, places.BeginLook());
  }
  void Eject(const std::string& address) {
    Fail(SlotOf("web", address), 5);
    ASSERT_EQ(StateOf("web", address), "ejected");
    Settle();
  }
  // Where a connection of this key goes; "": nowhere.
  std::string Went(uint64_t key) {
    const Backend* const backend =
        PickFor(*ServiceIn(*table, "web"),
                {.to_v4 = true, .wish = {.has_key = true, .key = key, .places = 2}, .owner = key}, seat,
                memory.get());
    return backend == nullptr ? "" : backend->address.ToString();
  }

  ServiceSpec spec_;
  std::unique_ptr<AffinityMemory> memory = AffinityMemory::Create().value();
  PickSeat seat{0, counts, 1};
};

TEST_F(Combined, WhoIsRememberedIsNotSharedOutAnewBySlowStart) {
  Begin(BackendsAt({kOne}));
  for (uint64_t key = 0; key < 100; ++key) ASSERT_EQ(Went(key), kOne);
  Come(kTwo);
  for (uint64_t key = 0; key < 100; ++key) EXPECT_EQ(Went(key), kOne) << key;
  int to_two = 0;  // newcomers, of whom it has a tenth of the weight
  for (uint64_t key = 100; key < 210; ++key) to_two += Went(key) == kTwo;
  EXPECT_EQ(to_two, 10);
}

TEST_F(Combined, WhoHasGotABackendThatStartsSlowlyStaysThere) {
  Begin(BackendsAt({kOne}));
  Come(kTwo);
  uint64_t key = 0;
  while (Went(key) != kTwo) ASSERT_LT(++key, 1000u);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(Went(key), kTwo);
}

TEST_F(Combined, AnEjectionEndsWhatIsRememberedForGood) {
  Begin(BackendsAt({kOne, kTwo, kThree}));
  const std::string first = Went(1);
  Eject(first);
  const std::string second = Went(1);
  EXPECT_NE(second, first);
  RunFor(40 * kSecond);
  ASSERT_EQ(StateOf("web", first), "slow-start");
  EXPECT_EQ(Went(1), second);
}

TEST_F(Combined, InAPanicWhatIsRememberedStays) {
  Begin(BackendsAt({kOne, kTwo, kThree}));
  const std::string first = Went(1);
  for (const char* address : {kOne, kTwo, kThree}) {
    Fail(SlotOf("web", address), 5);
  }
  Settle();
  ASSERT_TRUE(ReportOf("web").panic);
  EXPECT_EQ(Went(1), first);
}

TEST_F(Combined, WhoComesIntoThePlaceOfAFullOneIsRemembered) {
  Begin(BackendsAt({kOne, kTwo}));
  const std::string first = Went(1);
  const std::string other = first == kOne ? kTwo : kOne;
  SetOpen(first, 2);
  EXPECT_EQ(Went(1), other);
  SetOpen(first, 0);
  EXPECT_EQ(Went(1), other);
  // If all are full, nobody gets one, and nobody forgets.
  SetOpen(first, 2);
  SetOpen(other, 2);
  EXPECT_EQ(Went(1), "");
  SetOpen(first, 0);
  SetOpen(other, 1);
  EXPECT_EQ(Went(1), other);
}

TEST_F(Combined, ALimitIsNoSmallerDuringASlowStartAndIsNotExceededForIt) {
  Begin(BackendsAt({kOne}));
  Come(kTwo);
  SetOpen(kOne, 2);
  for (uint64_t key = 0; key < 20; ++key) EXPECT_EQ(Went(key), kTwo);
  SetOpen(kTwo, 1);
  EXPECT_EQ(Went(30), kTwo);
  SetOpen(kTwo, 2);
  EXPECT_EQ(Went(31), "");
}

TEST_F(Combined, ABackendThatIsFullIsNotUnfit) {
  Begin(BackendsAt({kOne, kTwo, kThree}));
  Eject(kOne);
  SetOpen(kTwo, 2);
  SetOpen(kThree, 2);
  EXPECT_EQ(Went(1), "") << "who is ejected is not taken instead";
  EXPECT_FALSE(ReportOf("web").panic);
  RunFor(40 * kSecond);  // it comes back
  EXPECT_EQ(Went(1), kOne);
}

TEST_F(Combined, InAPanicALimitHolds) {
  Begin(BackendsAt({kOne, kTwo}));
  for (const char* address : {kOne, kTwo}) {
    Fail(SlotOf("web", address), 5);
    SetOpen(address, 2);
  }
  Settle();
  ASSERT_TRUE(ReportOf("web").panic);
  EXPECT_EQ(Went(1), "");
  SetOpen(kTwo, 1);
  EXPECT_EQ(Went(1), kTwo);
}

}  // namespace
}  // namespace shunt::net
