// SPDX-License-Identifier: Apache-2.0
// What holds for picks of every policy: nobody is tried twice, groups get their shares, and a pick never
// touches the heap.

#include <algorithm>
#include <numeric>
#include <set>

#include "tests/net/balancer/heap_calls.h"
#include "tests/net/balancer/pick_parts.h"

namespace shunt::net {
namespace {

// Of so many seeds a sanitized build, whose tables take a hundred times as long, tries the first ones: its
// own finds are in the code, not in the numbers.
constexpr uint64_t Seeds(uint64_t count) {
  return kSanitized ? (count + 4) / 5 : count;
}

class EveryPolicy : public ::testing::TestWithParam<std::tuple<PickPolicy, bool>> {
 protected:
  PickPolicy policy() const { return std::get<0>(GetParam()); }
  bool by_key() const { return std::get<1>(GetParam()); }

  // Picks until there is nobody left; each pick adds to those that were tried.
  void ExpectEachOnce(std::vector<PickGroup> groups, uint64_t seed) {
    std::set<uint32_t> left;
    for (const PickGroup& group : groups) {
      for (const Backend& backend : group.backends) left.insert(backend.slot);
    }
    PickParts parts(left.empty() ? 0 : *left.rbegin() + 1, 1, seed);
    const auto table = parts.Make(policy(), std::move(groups), by_key());
    EXPECT_EQ(table->size(), left.size());
    std::vector<uint32_t> tried;
    while (!left.empty()) {
      const Backend* const backend =
          table->Pick({.has_key = by_key(), .key = seed, .tried = tried}, parts.seat);
      ASSERT_NE(backend, nullptr) << left.size() << " were not tried";
      ASSERT_EQ(left.erase(backend->slot), 1u) << backend->slot << " once more";
      tried.push_back(backend->slot);
    }
    EXPECT_EQ(table->Pick({.has_key = by_key(), .key = seed, .tried = tried}, parts.seat), nullptr);
  }
};

TEST_P(EveryPolicy, PicksEachOnceAndThenNobody) {
  for (const size_t count : {1, 2, 3, 10, 100}) {
    for (const uint32_t most : {1u, 3u, kMostWeight}) {
      for (uint64_t seed = 0; seed < Seeds(10); ++seed)
        ExpectEachOnce({{65536, BackendsOf(SomeWeights(count, most, seed))}}, seed);
    }
  }
}

TEST_P(EveryPolicy, PicksEachOnceWhenOneHasAllTheWeight) {
  std::vector<uint32_t> weights(100, 1);
  weights[50] = kMostWeight;
  for (uint64_t seed = 0; seed < Seeds(10); ++seed) ExpectEachOnce({{65536, BackendsOf(weights)}}, seed);
}

TEST_P(EveryPolicy, PicksEachOnceInAllGroups) {
  for (uint64_t seed = 0; seed < Seeds(50); ++seed) {
    std::vector<PickGroup> groups(1 + seed % 4);
    uint32_t left = 65536;
    for (PickGroup& group : groups) {
      group.share = &group == &groups.back() ? left : Below(MixNth(seed, left), left + 1);
      left -= group.share;
    }
    for (const Backend& backend : EqualBackends(40))
      groups[MixNth(seed, backend.slot) % groups.size()].backends.push_back(backend);
    ExpectEachOnce(std::move(groups), seed);
  }
}

TEST_P(EveryPolicy, PicksEachOnceOfTenThousand) {
  PickParts parts(kManyBackends);
  const auto table = parts.Make(policy(), BackendsOf(SomeWeights(kManyBackends, 1000, 1)), by_key());
  EXPECT_EQ(table->size(), size_t{kManyBackends});
  std::vector<uint32_t> tried;
  for (uint64_t i = 0; i < 16; ++i) {
    const Backend* const backend = table->Pick({.has_key = by_key(), .key = 1, .tried = tried}, parts.seat);
    ASSERT_NE(backend, nullptr);
    ASSERT_EQ(std::count(tried.begin(), tried.end(), backend->slot), 0);
    tried.push_back(backend->slot);
  }
}

TEST_P(EveryPolicy, PicksNobodyWhereNobodyIs) {
  PickParts parts(1);
  for (const std::vector<PickGroup>& groups :
       {std::vector<PickGroup>{}, {{65536, {}}}, {{0, {}}, {65536, {}}}}) {
    const auto table = parts.Make(policy(), groups, by_key());
    EXPECT_EQ(table->size(), 0u);
    EXPECT_EQ(table->Pick({.has_key = by_key()}, parts.seat), nullptr);
  }
}

TEST_P(EveryPolicy, NeverPicksAWeightOfZero) {
  PickParts parts(3);
  const auto table = parts.Make(policy(), BackendsOf({0, 5, 0}), by_key());
  EXPECT_EQ(table->size(), 1u);
  EXPECT_EQ(parts.Count(*table, 100, by_key()), (std::vector<uint64_t>{0, 100}));
}

TEST_P(EveryPolicy, GivesGroupsTheirShares) {
  constexpr size_t kPicks = 100'000;
  const std::vector<Backend> all = EqualBackends(40);
  const auto ten = [&](int from) {
    return std::vector<Backend>(all.begin() + from, all.begin() + from + 10);
  };
  const std::vector<uint32_t> shares{30'000, 0, 25'536, 10'000};
  PickParts parts(40);
  const auto table =
      parts.Make(policy(),
                 std::vector<PickGroup>{
                     {shares[0], ten(0)}, {shares[1], ten(10)}, {shares[2], ten(20)}, {shares[3], ten(30)}},
                 by_key());
  std::vector<uint64_t> of_backend = parts.Count(*table, kPicks, by_key());
  of_backend.resize(40);
  std::vector<uint64_t> counted(4);
  for (size_t i = 0; i < 40; ++i) counted[i / 10] += of_backend[i];
  EXPECT_EQ(counted[1], 0u) << "no share";
  EXPECT_LT(
      ChiSquare({counted[0], counted[2], counted[3]}, BackendsOf({shares[0], shares[2], shares[3]}), kPicks),
      ChiSquareLimit(2));
}

TEST_P(EveryPolicy, LeavesTheShareOfAnEmptyGroupToTheOthers) {
  PickParts parts(2);
  const auto table = parts.Make(
      policy(), std::vector<PickGroup>{{40'000, {}}, {20'000, {BackendOf(0)}}, {5'536, {BackendOf(1)}}},
      by_key());
  constexpr size_t kPicks = 10'000;
  EXPECT_LT(ChiSquare(parts.Count(*table, kPicks, by_key()), BackendsOf({20'000, 5'536}), kPicks),
            ChiSquareLimit(1));
}

TEST_P(EveryPolicy, HandsOverToTheReserveWhenAllWereTried) {
  PickParts parts(4);
  const std::vector<Backend> all = EqualBackends(4);
  const auto table = parts.Make(
      policy(), std::vector<PickGroup>{{65536, {all[0], all[1]}}, {0, {all[2]}}, {0, {all[3]}}}, by_key());
  for (uint64_t key = 0; key < 100; ++key) {
    std::vector<uint32_t> tried;
    std::vector<uint32_t> order;
    while (const Backend* const backend =
               table->Pick({.has_key = by_key(), .key = key, .tried = tried}, parts.seat)) {
      tried.push_back(backend->slot);
    }
    ASSERT_EQ(tried.size(), 4u);
    EXPECT_LT(tried[0], 2u);
    EXPECT_LT(tried[1], 2u);
    EXPECT_EQ(tried[2], 2u);
    EXPECT_EQ(tried[3], 3u);
  }
}

TEST_P(EveryPolicy, TriesAnotherZoneLast) {
  PickParts parts(6);
  std::vector<PickGroup> groups(3);
  groups[0].backends = {BackendOf(0), BackendOf(1), BackendOf(2)};
  groups[1] = {.share = 0, .backends = {BackendOf(3), BackendOf(4)}};
  groups[2] = {.share = 0, .backends = {BackendOf(5)}, .backup = true};
  const auto table = parts.Make(policy(), std::move(groups), by_key());
  const auto last_after = [&](std::vector<uint32_t> tried) {
    return table->Pick({.has_key = by_key(), .key = 7, .tried = tried, .elsewhere = true}, parts.seat)->slot;
  };
  EXPECT_THAT(last_after({0, 1}), testing::AnyOf(3u, 4u));
  EXPECT_THAT(last_after({3, 0}), testing::AnyOf(1u, 2u)) << "than the first, whichever is drawn";
  EXPECT_EQ(last_after({0, 3, 4, 1}), 2u) << "a backup comes when there is nobody else";
  EXPECT_EQ(last_after({0, 1, 2, 3, 4}), 5u);
}

TEST_P(EveryPolicy, PicksWithoutTouchingTheHeap) {
  std::vector<Backend> backends = BackendsOf(SomeWeights(300, 50, 1));
  PickParts parts(300);
  const auto table = parts.Make(policy(),
                                std::vector<PickGroup>{{60'000, {backends.begin(), backends.begin() + 150}},
                                                       {5'536, {backends.begin() + 150, backends.end()}}},
                                by_key());
  std::vector<uint32_t> tried(300);
  const uint64_t before = HeapCalls();
  uint64_t picked = 0;
  for (uint64_t key = 0; key < 1000; ++key) picked += table->Pick({by_key(), key}, parts.seat) != nullptr;
  for (size_t count = 0; count < 300; ++count) {
    const Backend* const backend = table->Pick({by_key(), 1, std::span(tried).first(count)}, parts.seat);
    picked += backend != nullptr;
    tried[count] = backend->slot;
  }
  picked += table->Pick({by_key(), 1, tried}, parts.seat) != nullptr;
  EXPECT_EQ(HeapCalls(), before);
  EXPECT_EQ(picked, 1300u);
}

INSTANTIATE_TEST_SUITE_P(Policies, EveryPolicy,
                         ::testing::Combine(::testing::ValuesIn(kAllPolicies), ::testing::Bool()),
                         [](const auto& param_info) {
                           std::string name = NameOf(std::get<0>(param_info.param));
                           std::erase(name, '-');
                           return name + (std::get<1>(param_info.param) ? "ByKey" : "");
                         });

TEST(Groups, AreTheKeysOwnAndStay) {
  // When the first group's share shrinks, keys go from it to the other one, and none the other way.
  PickParts parts(2);
  const auto make = [&](uint32_t share) {
    return parts.Make(PickPolicy::kMaglev,
                      std::vector<PickGroup>{{share, {BackendOf(0)}}, {65536 - share, {BackendOf(1)}}}, true);
  };
  const auto most = make(45'875), fewer = make(30'000);
  for (uint64_t key = 0; key < 10'000; ++key) {
    const PickWish wish{.has_key = true, .key = key};
    const uint32_t slot = most->Pick(wish, parts.seat)->slot;
    ASSERT_EQ(slot, most->Pick(wish, parts.seat)->slot);
    ASSERT_LE(slot, fewer->Pick(wish, parts.seat)->slot);
  }
}

TEST(Groups, DoNotDecideWhichBackendAKeyGets) {
  // The keys of a small group have something in common. They use all of its table nevertheless: in a
  // hundredth of it, backends would have 65 entries each, give or take 8.
  PickParts parts(20);
  const std::vector<Backend> all = EqualBackends(20);
  const std::vector<Backend> ten(all.begin(), all.begin() + 10);
  const auto table = parts.Make(
      PickPolicy::kMaglev, std::vector<PickGroup>{{655, ten}, {64'881, {all.begin() + 10, all.end()}}}, true);
  std::vector<uint64_t> counted = parts.Count(*table, 1'000'000, true);
  counted.resize(10);
  const uint64_t picks = std::accumulate(counted.begin(), counted.end(), uint64_t{0});
  EXPECT_LT(ChiSquare(counted, ten, picks), ChiSquareLimit(9));
}

// Connections that the kernel has told.
void HaveOpen(PickParts& parts, uint32_t slot, uint32_t open) {
  PlaceCount& places = parts.counts.PlacesOf(slot);
  places.EndLook(open, places.BeginLook());
}

TEST(PickTable, NoPolicyPicksABackendThatIsFull) {
  for (const PickPolicy policy : kAllPolicies) {
    for (const bool by_key : {false, true}) {
      PickParts parts(12);
      std::vector<Backend> all = EqualBackends(12);
      // Two in reserve, as backups are.
      const auto table = parts.Make(policy,
                                    std::vector<PickGroup>{{65536, {all.begin(), all.begin() + 10}},
                                                           {0, {all.begin() + 10, all.end()}}},
                                    by_key);
      const auto picked = [&] {
        std::set<uint32_t> slots;
        for (uint64_t key = 0; key < 2000; ++key) {
          const Backend* const backend =
              table->Pick({.has_key = by_key, .key = key, .places = 3}, parts.seat);
          if (backend != nullptr) slots.insert(backend->slot);
        }
        return slots;
      };
      EXPECT_TRUE(picked().empty()) << "nobody has looked";
      for (uint32_t slot = 0; slot < 12; ++slot) HaveOpen(parts, slot, slot == 4 || slot == 7 ? 2 : 3);
      EXPECT_EQ(picked(), policy == PickPolicy::kFirst ? std::set<uint32_t>{4} : (std::set<uint32_t>{4, 7}))
          << NameOf(policy);
      HaveOpen(parts, 4, 3);
      HaveOpen(parts, 7, 5);
      HaveOpen(parts, 11, 0);
      EXPECT_EQ(picked(), std::set<uint32_t>{11}) << NameOf(policy);
      EXPECT_NE(table->Pick({.has_key = by_key}, parts.seat), nullptr) << "without a limit";
    }
  }
}

TEST(PickTable, AKeyGoesToTheNextOneOfItsOrderAsLongAsItsOwnIsFull) {
  PickParts parts(20);
  const auto table = parts.Make(PickPolicy::kMaglev, EqualBackends(20), true);
  for (uint32_t slot = 0; slot < 20; ++slot) HaveOpen(parts, slot, 0);
  for (uint64_t key = 0; key < 200; ++key) {
    const uint32_t own = table->Pick({.has_key = true, .key = key, .places = 2}, parts.seat)->slot;
    HaveOpen(parts, own, 2);
    const uint32_t next = table->Pick({.has_key = true, .key = key, .places = 2}, parts.seat)->slot;
    EXPECT_NE(next, own);
    EXPECT_EQ(table->Pick({.has_key = true, .key = key, .tried = {&own, 1}}, parts.seat)->slot, next)
        << "the one that it fails over to";
    HaveOpen(parts, own, 1);
    EXPECT_EQ(table->Pick({.has_key = true, .key = key, .places = 2}, parts.seat)->slot, own);
  }
}

TEST(HeapCalls, AreSeen) {
  uint64_t before = HeapCalls();
  const std::vector<uint32_t> backends(1);
  EXPECT_EQ(HeapCalls(), before + 1);
  before = HeapCalls();
  const PickParts parts(1);  // places and counts, both of them in cache lines of their own
  EXPECT_GE(HeapCalls(), before + 2);
}

}  // namespace
}  // namespace shunt::net
