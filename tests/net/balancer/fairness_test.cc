// SPDX-License-Identifier: Apache-2.0
// Each policy gives each backend its share: exactly in turn, within the bounds of chance otherwise.

#include <algorithm>
#include <numeric>

#include "net/balancer/policies.h"
#include "tests/net/balancer/pick_parts.h"

namespace shunt::net {
namespace {

constexpr size_t kFairPicks = 100'000;

struct FairCase {
  const char* name;
  PickPolicy policy;
  bool by_key;
};

class Fairness : public ::testing::TestWithParam<FairCase> {
 protected:
  void ExpectFair(const std::vector<Backend>& backends) {
    PickParts parts(backends.size());
    const auto table = parts.Make(GetParam().policy, backends, GetParam().by_key);
    EXPECT_LT(ChiSquare(parts.Count(*table, kFairPicks, GetParam().by_key), backends, kFairPicks),
              ChiSquareLimit(backends.size() - 1))
        << backends.size() << " backends";
  }
};

TEST_P(Fairness, GivesEqualBackendsEqualShares) {
  for (const size_t count : {2, 10, 100, 1000, kManyBackends}) ExpectFair(EqualBackends(count));
}

TEST_P(Fairness, GivesSharesByWeight) {
  ExpectFair(BackendsOf({1, 2, 3}));
  ExpectFair(BackendsOf({7, 7, 7, 7, 1}));
  ExpectFair(BackendsOf(SomeWeights(100, 10, 1)));
  ExpectFair(BackendsOf(SomeWeights(1000, 4, 2)));
  ExpectFair(BackendsOf({kMostWeight, kMostWeight - 1, 30'000}));
}

// Maglev's own deviation is below one entry of at least 100 for each backend, which adds less than
// 100,000 / 100 ^ 2 / N to the sum for N backends. Without load, least-request takes its first draw.
INSTANTIATE_TEST_SUITE_P(Policies, Fairness,
                         ::testing::Values(FairCase{"Random", PickPolicy::kRandom, false},
                                           FairCase{"LeastRequest", PickPolicy::kLeastRequest, false},
                                           FairCase{"LeastConnections", PickPolicy::kLeastConnections, false},
                                           FairCase{"LeastRtt", PickPolicy::kLeastRtt, false},
                                           FairCase{"Maglev", PickPolicy::kMaglev, false},
                                           FairCase{"MaglevByKey", PickPolicy::kMaglev, true},
                                           FairCase{"RandomByKey", PickPolicy::kRandom, true}),
                         [](const auto& param_info) { return param_info.param.name; });

TEST(RoundRobin, TakesEqualBackendsExactlyInTurn) {
  for (const size_t count : {1, 2, 7, 1000, kManyBackends}) {
    PickParts parts(count);
    const auto table = parts.Make(PickPolicy::kRoundRobin, EqualBackends(count));
    for (size_t i = 0; i < 3 * count; ++i) ASSERT_EQ(table->Pick({}, parts.seat)->slot, i % count);
    EXPECT_EQ(RoundRobinOrder(EqualBackends(count)).size(), count);
  }
}

TEST(RoundRobin, TakesEachExactlyAsOftenAsItsWeightSays) {
  for (const std::vector<uint32_t>& weights :
       {std::vector<uint32_t>{5, 1, 1}, {1, 2, 3, 4}, SomeWeights(100, 20, 3), SomeWeights(1000, 60, 4)}) {
    const size_t total = std::accumulate(weights.begin(), weights.end(), size_t{0});
    PickParts parts(weights.size());
    const auto table = parts.Make(PickPolicy::kRoundRobin, BackendsOf(weights));
    const size_t rounds = std::max<size_t>(1, kFairPicks / total);
    const std::vector<uint64_t> counted = parts.Count(*table, rounds * total);
    ASSERT_EQ(counted.size(), weights.size());
    for (size_t i = 0; i < weights.size(); ++i) EXPECT_EQ(counted[i], rounds * weights[i]) << i;
  }
}

TEST(RoundRobin, SpreadsTheTurnsOfEachEvenly) {
  for (const std::vector<uint32_t>& weights : {std::vector<uint32_t>{5, 1, 1},
                                               {1, 1, 5},
                                               {1, 100},
                                               {3, 5, 7, 11},
                                               SomeWeights(50, 9, 5),
                                               SomeWeights(300, 200, 6)}) {
    const std::vector<uint32_t> order = RoundRobinOrder(BackendsOf(weights));
    const uint64_t total = std::accumulate(weights.begin(), weights.end(), uint64_t{0});
    ASSERT_EQ(order.size(), total);
    std::vector<uint64_t> had(weights.size());
    for (uint64_t n = 1; n <= total; ++n) {
      ++had[order[n - 1]];
      for (size_t i = 0; i < weights.size(); ++i) {
        ASSERT_GT((had[i] + 1) * total, n * weights[i]) << "too few of " << i << " among " << n;
        ASSERT_LT(had[i] * total, n * weights[i] + total) << "too many of " << i << " among " << n;
      }
    }
  }
}

TEST(RoundRobin, ReducesWeightsByWhatTheyHaveInCommon) {
  EXPECT_EQ(RoundRobinOrder(BackendsOf({30'000, 60'000})).size(), 3u);
  EXPECT_EQ(RoundRobinOrder(BackendsOf({65535, 65535, 65535})).size(), 3u);
  EXPECT_EQ(RoundRobinOrder(BackendsOf({65535})).size(), 1u);
}

TEST(RoundRobin, HasABoundedOrderInWhichEveryoneIs) {
  for (const size_t count : {10, 1000, kManyBackends}) {
    std::vector<uint32_t> weights = SomeWeights(count, kMostWeight, 7);
    weights.front() = 1;
    weights.back() = kMostWeight;
    const std::vector<uint32_t> order = RoundRobinOrder(BackendsOf(weights));
    EXPECT_LE(order.size(), MostPlaces(count) + count);
    std::vector<double> places(count);
    for (const uint32_t i : order) ++places[i];
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (size_t i = 0; i < count; ++i) {
      EXPECT_GE(places[i], 1);
      EXPECT_NEAR(places[i], weights[i] * static_cast<double>(MostPlaces(count)) / total, 1) << i;
    }
  }
}

TEST(RoundRobin, StartsEachReactorAtAnotherPlace) {
  PickParts parts(100, 4);
  const auto table = parts.Make(PickPolicy::kRoundRobin, EqualBackends(100));
  std::vector<int> counted(100);
  for (size_t reactor = 0; reactor < 4; ++reactor) {
    PickSeat seat(reactor, parts.counts, 1);
    for (int i = 0; i < 25; ++i) ++counted[table->Pick({}, seat)->slot];
  }
  EXPECT_EQ(counted, std::vector<int>(100, 1)) << "a quarter of the turns on each of four";

  // More reactors than places.
  const auto small = parts.Make(PickPolicy::kRoundRobin, EqualBackends(3));
  for (size_t reactor = 0; reactor < 4; ++reactor) {
    PickSeat seat(reactor, parts.counts, 1);
    EXPECT_NE(small->Pick({}, seat), nullptr);
  }
}

TEST(RoundRobin, KeepsItsTurnsInEachGroup) {
  PickParts parts(20);
  std::vector<Backend> backends = EqualBackends(20);
  const auto table = parts.Make(PickPolicy::kRoundRobin,
                                std::vector<PickGroup>{{40'000, {backends.begin(), backends.begin() + 10}},
                                                       {25'536, {backends.begin() + 10, backends.end()}}});
  const std::vector<uint64_t> counted = parts.Count(*table, 10'007);
  ASSERT_EQ(counted.size(), 20u);
  for (const auto group : {counted.begin(), counted.begin() + 10}) {
    const auto [least, most] = std::minmax_element(group, group + 10);
    EXPECT_LE(*most - *least, 1u);
  }
}

TEST(RoundRobin, GoesOnInTheNextTable) {
  PickParts parts(10);
  for (uint32_t i = 0; i < 30; ++i) {
    const auto table = parts.Make(PickPolicy::kRoundRobin, EqualBackends(10));
    ASSERT_EQ(table->Pick({}, parts.seat)->slot, i % 10);
  }
}

TEST(LeastRequest, NeverTakesTheMoreLoadedOfTwo) {
  PickParts parts(2, 3);
  const auto table = parts.Make(PickPolicy::kLeastRequest, EqualBackends(2));
  parts.counts.At(2, 0).Begin();  // another reactor's attempt counts as well
  EXPECT_EQ(parts.Count(*table, 1000), (std::vector<uint64_t>{0, 1000}));
  parts.counts.At(1, 1).Begin();
  parts.counts.At(0, 1).Begin();
  EXPECT_EQ(parts.Count(*table, 1000), (std::vector<uint64_t>{1000}));
}

TEST(LeastRequest, ComparesLoadsByWeight) {
  PickParts parts(2);
  const auto table = parts.Make(PickPolicy::kLeastRequest, BackendsOf({1, 10}));
  parts.counts.At(0, 0).Begin();
  for (int i = 0; i < 9; ++i) parts.counts.At(0, 1).Begin();
  EXPECT_EQ(parts.Count(*table, 1000), (std::vector<uint64_t>{0, 1000})) << "9 of 10 are less than 1 of 1";
  for (int i = 0; i < 2; ++i) parts.counts.At(0, 1).Begin();
  EXPECT_EQ(parts.Count(*table, 1000), (std::vector<uint64_t>{1000})) << "11 of 10 are more";
}

TEST(LeastRequest, TakesTheIdleOneWheneverItIsAmongTheTwo) {
  // Of n backends one is drawn with probability 2 / n; the others share what is left.
  constexpr size_t kCount = 10;
  PickParts parts(kCount);
  for (uint32_t i = 1; i < kCount; ++i) parts.counts.At(0, i).Begin();
  const auto table = parts.Make(PickPolicy::kLeastRequest, EqualBackends(kCount));
  std::vector<uint32_t> probabilities(kCount, 8 * 1);  // 8 / 10 / 9, in units of 1 / 90
  probabilities[0] = 18;
  EXPECT_LT(ChiSquare(parts.Count(*table, kFairPicks), BackendsOf(probabilities), kFairPicks),
            ChiSquareLimit(kCount - 1));
}

TEST(LeastRequest, DrawsTwoDifferentOnesWhateverTheWeights) {
  // One has nearly all of the weight, and is loaded beyond it: it must never meet itself.
  PickParts parts(5);
  for (int i = 0; i < 10; ++i) parts.counts.At(0, 2).Begin();
  const auto table = parts.Make(PickPolicy::kLeastRequest, BackendsOf({1, 1, kMostWeight, 1, 1}));
  const std::vector<uint64_t> counted = parts.Count(*table, 10'000);
  ASSERT_EQ(counted.size(), 5u);
  EXPECT_EQ(counted[2], 0u);
}

TEST(LeastConnections, TakesTheOneWithFewerByWeight) {
  PickParts parts(2, 2);
  const auto table = parts.Make(PickPolicy::kLeastConnections, BackendsOf({1, 2}));
  parts.counts.SetOpen(0, 10);
  parts.counts.SetOpen(1, 19);
  EXPECT_EQ(parts.Count(*table, 1000), (std::vector<uint64_t>{0, 1000})) << "19 of 2 are less than 10 of 1";
  parts.counts.At(0, 1).Opened();
  parts.counts.At(1, 1).Begin();
  EXPECT_EQ(parts.Count(*table, 1000), (std::vector<uint64_t>{1000})) << "21 of 2 are more";
}

TEST(LeastRtt, TakesTheNearOneUntilItIsBusy) {
  PickParts parts(2);
  const auto table = parts.Make(PickPolicy::kLeastRtt, EqualBackends(2));
  parts.counts.SetRtt(0, 1000);
  parts.counts.SetRtt(1, 5000);
  EXPECT_EQ(parts.Count(*table, 1000), (std::vector<uint64_t>{1000}));
  parts.counts.SetOpen(0, 5);  // 1 ms times six of them, beside 5 ms for one
  EXPECT_EQ(parts.Count(*table, 1000), (std::vector<uint64_t>{0, 1000}));
}

TEST(LeastRtt, WeightsCountBesideTheOthersAndNotByThemselves) {
  PickParts parts(2);  // as in a slow start, where all are multiplied
  const auto table = parts.Make(PickPolicy::kLeastRtt, BackendsOf({100, 100}));
  parts.counts.SetRtt(0, 1000);
  parts.counts.SetRtt(1, 5000);
  parts.counts.SetOpen(0, 5);
  EXPECT_EQ(parts.Count(*table, 1000), (std::vector<uint64_t>{0, 1000}));
}

TEST(LeastRtt, OneThatNobodyHasReachedIsNeitherNearNorFar) {
  PickParts parts(2);
  const auto table = parts.Make(PickPolicy::kLeastRtt, EqualBackends(2));
  parts.counts.SetRtt(0, 1'000'000);
  EXPECT_LT(ChiSquare(parts.Count(*table, kFairPicks), EqualBackends(2), kFairPicks), ChiSquareLimit(1));
  parts.counts.SetOpen(0, 1);
  EXPECT_EQ(parts.Count(*table, 1000), (std::vector<uint64_t>{0, 1000}));
}

TEST(LeastRtt, ComparesTheGreatestThereAre) {
  PickParts parts(2);
  const auto table = parts.Make(PickPolicy::kLeastRtt, BackendsOf({kMostWeight, kMostWeight}));
  for (const uint32_t slot : {0u, 1u}) parts.counts.SetRtt(slot, UINT32_MAX);
  parts.counts.SetOpen(0, INT32_MAX);
  EXPECT_EQ(parts.Count(*table, 1000), (std::vector<uint64_t>{0, 1000}));
}

TEST(First, TakesTheFirstOne) {
  PickParts parts(10);
  const auto table = parts.Make(PickPolicy::kFirst, EqualBackends(10), true);
  EXPECT_EQ(parts.Count(*table, 100, true), (std::vector<uint64_t>{100}));
  const std::vector<uint32_t> tried{0, 1, 3};
  EXPECT_EQ(table->Pick({.tried = tried}, parts.seat)->slot, 2u);
}

}  // namespace
}  // namespace shunt::net
