// SPDX-License-Identifier: Apache-2.0
// Picks by hash: balanced tables, and few keys that move when backends come and go.

#include <algorithm>
#include <cstdio>
#include <set>

#include "net/balancer/policies.h"
#include "tests/net/balancer/pick_parts.h"

namespace shunt::net {
namespace {

constexpr size_t kKeys = 100'000;

std::vector<uint64_t> EntriesOf(const std::vector<uint32_t>& table, size_t backends) {
  std::vector<uint64_t> entries(backends);
  for (const uint32_t backend : table) ++entries[backend];
  return entries;
}

// Of each entry, whose it is, by identity.
std::vector<uint64_t> OwnersOf(const std::vector<Backend>& backends) {
  std::vector<uint64_t> owners;
  for (const uint32_t backend : MaglevTable(backends)) owners.push_back(backends[backend].identity);
  return owners;
}

// The slot of each key.
std::vector<uint32_t> PicksByKey(PickPolicy policy, const std::vector<Backend>& backends) {
  PickParts parts(backends.size());
  const auto table = parts.Make(policy, backends, true);
  std::vector<uint32_t> picks;
  for (uint64_t key = 0; key < kKeys; ++key)
    picks.push_back(table->Pick({.has_key = true, .key = key}, parts.seat)->slot);
  return picks;
}

std::vector<Backend> Without(std::vector<Backend> backends, size_t index) {
  backends.erase(backends.begin() + static_cast<std::ptrdiff_t>(index));
  return backends;
}

TEST(MaglevTable, HasAPrimeSizeOfAtLeastAHundredForEach) {
  for (const auto& [count, size] : {std::pair<size_t, size_t>{1, 65537},
                                    {655, 65537},
                                    {656, 131'101},
                                    {1000, 131'101},
                                    {10'000, 1'048'583}}) {
    EXPECT_EQ(MaglevTable(EqualBackends(count)).size(), size);
    EXPECT_GE(size, 100 * count);
  }
}

TEST(MaglevTable, GivesNobodyOnePercentMoreThanAnother) {
  // The paper's bound for 100 entries and more for each (NSDI 2016, 5.3): the fill itself is even better.
  for (const size_t count : {1, 2, 10, 100, 655, 656, 1000, kManyBackends}) {
    const std::vector<uint64_t> entries = EntriesOf(MaglevTable(EqualBackends(count)), count);
    const auto [least, most] = std::minmax_element(entries.begin(), entries.end());
    EXPECT_LE(static_cast<double>(*most), static_cast<double>(*least) * 1.01);
    EXPECT_LE(*most - *least, 1u) << count << ": whoever has a turn in each round has as many entries";
  }
}

TEST(MaglevTable, GivesEntriesByWeightAsEnvoyDoes) {
  // The example in Envoy's description of its table of 65537 entries.
  EXPECT_EQ(EntriesOf(MaglevTable(BackendsOf({1, 2})), 2), (std::vector<uint64_t>{21'846, 43'691}));
}

TEST(MaglevTable, GivesEachItsShareByWeightButForOneEntry) {
  for (const std::vector<uint32_t>& weights :
       {std::vector<uint32_t>{1, 2, 3}, SomeWeights(100, 100, 1), SomeWeights(1000, kMostWeight, 2)}) {
    const std::vector<uint64_t> entries = EntriesOf(MaglevTable(BackendsOf(weights)), weights.size());
    // In rounds 0 to t: 1 + t * weight / greatest, rounded down. Of the last one some may have had no turn;
    // whether the heaviest had one says its number but for one.
    const size_t heaviest =
        static_cast<size_t>(std::max_element(weights.begin(), weights.end()) - weights.begin());
    const auto fits = [&](uint64_t last_round) {
      for (size_t i = 0; i < weights.size(); ++i) {
        const auto had = [&](uint64_t round) { return 1 + round * weights[i] / weights[heaviest]; };
        if (entries[i] < had(last_round - 1) || entries[i] > had(last_round)) return false;
      }
      return true;
    };
    EXPECT_TRUE(fits(entries[heaviest] - 1) || fits(entries[heaviest])) << weights.size() << " backends";
  }
}

TEST(MaglevTable, GivesEveryoneAnEntryInTheWorstOfCases) {
  for (const size_t count : {2, 655, kManyBackends}) {
    std::vector<uint32_t> weights(count, 1);
    weights[count / 2] = kMostWeight;
    const std::vector<uint64_t> entries = EntriesOf(MaglevTable(BackendsOf(weights)), count);
    EXPECT_GE(*std::min_element(entries.begin(), entries.end()), 1u);
  }
}

TEST(MaglevTable, IsThePapersForEqualWeights) {
  // Its pseudocode (3.4), with our hashes.
  const std::vector<Backend> backends = EqualBackends(100);
  constexpr uint64_t kSize = 65537;
  std::vector<uint64_t> next(backends.size());
  std::vector<int64_t> entry(kSize, -1);
  const auto permutation = [&](size_t i, uint64_t j) {
    const uint64_t offset = Below(MixNth(backends[i].identity, 0), kSize),
                   skip = Below(MixNth(backends[i].identity, 1), kSize - 1) + 1;
    return (offset + j * skip) % kSize;
  };
  for (size_t filled = 0; filled < kSize;) {
    for (size_t i = 0; i < backends.size() && filled < kSize; ++i, ++filled) {
      uint64_t candidate = permutation(i, next[i]++);
      while (entry[candidate] >= 0) candidate = permutation(i, next[i]++);
      entry[candidate] = static_cast<int64_t>(i);
    }
  }
  const std::vector<uint32_t> table = MaglevTable(backends);
  EXPECT_TRUE(std::equal(table.begin(), table.end(), entry.begin(), entry.end()));
}

// When one of them goes, or comes back: the part of the table that changes, and the part that was its own.
struct Moved {
  double all, own;
};
Moved MovedWithout(const std::vector<Backend>& backends, size_t gone) {
  const std::vector<uint64_t> with = OwnersOf(backends), without = OwnersOf(Without(backends, gone));
  Moved moved{};
  for (size_t i = 0; i < with.size(); ++i) {
    moved.all += with[i] != without[i];
    moved.own += with[i] == backends[gone].identity;
  }
  moved.all /= static_cast<double>(with.size());
  moved.own /= static_cast<double>(with.size());
  return moved;
}

TEST(MaglevTable, MovesFewEntriesBesidesThoseOfTheOneThatWent) {
  for (const size_t count : {2, 10, 50, 100, 655, kManyBackends}) {
    const std::vector<Backend> backends = EqualBackends(count);
    double all = 0, own = 0;
    constexpr size_t kTrials = 3;
    for (size_t trial = 0; trial < kTrials; ++trial) {
      const Moved moved = MovedWithout(backends, trial * count / kTrials);
      EXPECT_NEAR(moved.own, 1 / static_cast<double>(count), 1.0 / 65537);
      all += moved.all / kTrials;
      own += moved.own / kTrials;
    }
    std::printf("%zu backends: %.2f times its own entries move, %.2f%% of all are others\n", count, all / own,
                100 * (all - own));
    // Envoy's documentation has "approximately double" of what a ring moves, for a table that has many
    // entries for each. With but a hundred for each it is more, of little: as even as the table is, to one
    // percent.
    if (count <= 100) {
      EXPECT_LT(all, 2 * own);
    }
    EXPECT_LT(all - own, 0.01);
  }
}

TEST(RingHash, HasAtLeast1024PointsAnd100ForEach) {
  for (const size_t count : {1, 2, 10, 100, 1000, kManyBackends}) {
    for (const uint32_t most : {1u, 100u, kMostWeight}) {
      const std::vector<RingPoint> points = RingOf(BackendsOf(SomeWeights(count, most, 1))).points;
      EXPECT_GE(points.size(), std::max<size_t>(1024, 100 * count));
      EXPECT_LE(points.size(), std::max<size_t>(2 * 65536, 200 * count) + count);
      EXPECT_TRUE(std::is_sorted(points.begin(), points.end(), [](const RingPoint& a, const RingPoint& b) {
        return a.position < b.position;
      }));
      std::vector<uint64_t> counted(count);
      for (const RingPoint& point : points) ++counted[point.backend];
      EXPECT_GE(*std::min_element(counted.begin(), counted.end()), 1u);
    }
  }
}

TEST(RingHash, GivesSharesByWeightWithinWhatARingOfRandomPointsCan) {
  for (const std::vector<uint32_t>& weights :
       {std::vector<uint32_t>(2, 1), std::vector<uint32_t>(10, 1), std::vector<uint32_t>(100, 1),
        std::vector<uint32_t>(1000, 1), std::vector<uint32_t>{1, 2, 3}, SomeWeights(100, 10, 1)}) {
    const std::vector<Backend> backends = BackendsOf(weights);
    std::vector<double> points(backends.size()), counted(backends.size());
    double total = 0;
    for (const RingPoint& point : RingOf(backends).points) ++points[point.backend], ++total;
    for (const uint32_t slot : PicksByKey(PickPolicy::kRingHash, backends)) ++counted[slot];
    // Of K random points, k own a share of the ring that has the distribution Beta(k, K - k): its mean is
    // p = k / K, its variance p (1 - p) / (K + 1). A count of n independent hashes adds n p (1 - p).
    double sum = 0;
    for (size_t i = 0; i < backends.size(); ++i) {
      const double p = points[i] / total, n = kKeys;
      const double variance = p * (1 - p) * (n + n * n / (total + 1));
      sum += std::pow(counted[i] - n * p, 2) / variance;
    }
    EXPECT_LT(sum, ChiSquareLimit(backends.size())) << backends.size() << " backends";
  }
}

TEST(RingHash, FindsThePointThatIsNextOnTheRing) {
  const std::vector<Backend> backends = BackendsOf(SomeWeights(7, 3, 1));
  const std::vector<RingPoint> points = RingOf(backends).points;
  const std::vector<uint32_t> picks = PicksByKey(PickPolicy::kRingHash, backends);
  for (uint64_t key = 0; key < kKeys; ++key) {
    const uint32_t position = static_cast<uint32_t>(MixNth(key, 0) >> 32);
    auto next =
        std::lower_bound(points.begin(), points.end(), position,
                         [](const RingPoint& point, uint32_t value) { return point.position < value; });
    if (next == points.end()) next = points.begin();
    ASSERT_EQ(picks[key], next->backend);
  }
}

// The key whose first hash this is.
uint64_t KeyOfHash(uint64_t hash) {
  const auto inverse = [](uint64_t odd) {
    uint64_t result = odd;  // right in three bits; each step doubles them
    for (int i = 0; i < 5; ++i) result *= 2 - odd * result;
    return result;
  };
  const auto unshift = [](uint64_t value, int shift) {
    return value ^ (value >> shift) ^ (value >> (2 * shift));
  };
  hash = unshift(hash, 31) * inverse(0x94d049bb133111eb);
  hash = unshift(hash, 27) * inverse(0xbf58476d1ce4e5b9);
  return unshift(hash, 30) - kMixStep;
}

TEST(RingHash, GivesAPointItsOwnPositionAndTheFirstOneTheEndOfTheRing) {
  ASSERT_EQ(MixNth(KeyOfHash(12345), 0), 12345u);
  std::vector<Backend> backends = EqualBackends(5);
  std::sort(backends.begin(), backends.end(),
            [](const Backend& a, const Backend& b) { return a.identity < b.identity; });
  const std::vector<RingPoint> points = RingOf(backends).points;
  PickParts parts(5);
  const auto table = parts.Make(PickPolicy::kRingHash, backends, true);
  const auto pick = [&](uint64_t position) {
    return table->Pick({.has_key = true, .key = KeyOfHash(position << 32)}, parts.seat)->slot;
  };
  for (size_t i = 0; i + 1 < points.size(); ++i) {
    ASSERT_EQ(pick(points[i].position), backends[points[i].backend].slot);
    ASSERT_EQ(pick(uint64_t{points[i].position} + 1), backends[points[i + 1].backend].slot);
  }
  EXPECT_EQ(pick(0), backends[points.front().backend].slot);
  EXPECT_EQ(pick(uint64_t{points.back().position} + 1), backends[points.front().backend].slot);
  EXPECT_EQ(pick(0xffffffff), backends[points.front().backend].slot);
}

TEST(RingHash, MovesNothingButWhatTheOneThatWentHad) {
  for (const size_t count : {2, 10, 11, 60, 300, 1000}) {
    std::vector<uint32_t> weights = SomeWeights(count, 5, 2);
    weights.front() = 5;  // who is the heaviest stays the same
    const std::vector<Backend> all = BackendsOf(weights);
    const std::vector<uint32_t> before = PicksByKey(PickPolicy::kRingHash, all);
    const std::vector<uint32_t> after = PicksByKey(PickPolicy::kRingHash, Without(all, count - 1));
    size_t moved = 0;
    for (size_t key = 0; key < kKeys; ++key) {
      if (before[key] == after[key]) continue;
      ++moved;
      ASSERT_EQ(before[key], count - 1) << "it was not its own";
    }
    EXPECT_EQ(moved, static_cast<size_t>(std::count(before.begin(), before.end(), count - 1)));
    EXPECT_GT(moved, 0u);
  }
}

class ByKey : public ::testing::TestWithParam<PickPolicy> {};

TEST_P(ByKey, KeepsAKeyTogetherWithoutMemory) {
  std::vector<Backend> backends = BackendsOf(SomeWeights(50, 3, 1));
  PickParts here(50, 1, 1), there(50, 1, 2);
  const auto table = here.Make(GetParam(), backends, true);
  std::reverse(backends.begin(), backends.end());
  const auto elsewhere = there.Make(GetParam(), backends, true);
  std::set<uint32_t> picked;
  for (uint64_t key = 0; key < 1000; ++key) {
    std::vector<uint32_t> tried;
    for (int attempt = 0; attempt < 5; ++attempt) {
      const PickWish wish{.has_key = true, .key = key, .tried = tried};
      const Backend* const backend = table->Pick(wish, here.seat);
      ASSERT_EQ(backend, table->Pick(wish, here.seat));
      ASSERT_EQ(backend->slot, elsewhere->Pick(wish, there.seat)->slot) << "attempt " << attempt;
      tried.push_back(backend->slot);
      picked.insert(backend->slot);
    }
  }
  EXPECT_EQ(picked.size(), 50u);
}

TEST_P(ByKey, SpreadsTheKeysOfAFailedBackend) {
  // Keys whose backend has been tried go to all the others, not to one of them.
  PickParts parts(20);
  const std::vector<Backend> backends = EqualBackends(20);
  const auto table = parts.Make(GetParam(), backends, true);
  const std::vector<uint32_t> tried{7};
  std::vector<uint64_t> counted(20);
  size_t moved = 0;
  for (uint64_t key = 0; key < kKeys; ++key) {
    if (table->Pick({.has_key = true, .key = key}, parts.seat)->slot != 7) continue;
    ++moved;
    ++counted[table->Pick({.has_key = true, .key = key, .tried = tried}, parts.seat)->slot];
  }
  counted.erase(counted.begin() + 7);
  const double limit = GetParam() == PickPolicy::kRingHash
                           ? 1 + static_cast<double>(moved) / 19 / 1600  // its shares differ themselves
                           : 1;
  EXPECT_LT(ChiSquare(counted, EqualBackends(19), moved) / limit, ChiSquareLimit(18));
}

TEST_P(ByKey, LeavesThoseAloneWhoHaveNoKey) {
  PickParts parts(10);
  const auto table = parts.Make(GetParam(), EqualBackends(10), true);
  const std::vector<uint64_t> counted = parts.Count(*table, 1000);
  ASSERT_EQ(counted.size(), 10u);
  EXPECT_GT(*std::min_element(counted.begin(), counted.end()), 0u);
}

INSTANTIATE_TEST_SUITE_P(Policies, ByKey,
                         ::testing::Values(PickPolicy::kRoundRobin, PickPolicy::kRandom,
                                           PickPolicy::kLeastRequest, PickPolicy::kMaglev,
                                           PickPolicy::kRingHash),
                         [](const auto& param_info) {
                           std::string name = NameOf(param_info.param);
                           std::erase(name, '-');
                           return name;
                         });

TEST(BackendIdentity, IsThatOfTheAddress) {
  const auto identity = [](const char* text) { return BackendIdentity(*SockAddr::FromText(text)); };
  EXPECT_EQ(identity("192.0.2.1:80"), identity("[::ffff:192.0.2.1]:80")) << "one backend, two families";
  std::set<uint64_t> different;
  for (const char* text : {"192.0.2.1:80", "192.0.2.1:81", "192.0.2.2:80", "[::1]:80", "[::2]:80", "[1::]:80",
                           "[fe80::1%1]:80", "[fe80::1%2]:80", "0.0.0.0:0", "[::]:0"})
    different.insert(identity(text));
  EXPECT_EQ(different.size(), 10u);
}

}  // namespace
}  // namespace shunt::net
