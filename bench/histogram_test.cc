// SPDX-License-Identifier: Apache-2.0
// The histogram of the measuring programs against the samples themselves, sorted.

#include "bench/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

namespace shunt::bench {
namespace {

constexpr double kFractions[] = {0.001, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999};

// A bucket is as wide as 1/128 of its lowest value, and its middle is what is given.
constexpr double kError = 1.0 / 256;

Histogram Of(const std::vector<int64_t>& samples) {
  Histogram histogram;
  for (const int64_t sample : samples) histogram.Add(sample);
  return histogram;
}

// The smallest sample that at least `thousandths` / 10,000 of them do not exceed.
int64_t Sorted(const std::vector<int64_t>& sorted, double fraction) {
  const size_t tenthousandths = static_cast<size_t>(std::lround(fraction * 10'000));
  const size_t rank = (sorted.size() * tenthousandths + 9'999) / 10'000;
  return sorted[std::max<size_t>(rank, 1) - 1];
}

void ExpectAsSorted(std::vector<int64_t> samples, const std::string& what) {
  const Histogram histogram = Of(samples);
  std::sort(samples.begin(), samples.end());
  EXPECT_EQ(histogram.size(), samples.size()) << what;
  EXPECT_EQ(histogram.least(), samples.front()) << what;
  EXPECT_EQ(histogram.most(), samples.back()) << what;
  for (const double fraction : kFractions) {
    const std::optional<int64_t> given = histogram.Percentile(fraction);
    if (!given) continue;
    const int64_t real = Sorted(samples, fraction);
    const double off = static_cast<double>(std::abs(*given - real));
    EXPECT_LE(off, static_cast<double>(real) * kError)
        << what << ", fraction " << fraction << ": " << *given << " for " << real;
    if (real < 128) {
      EXPECT_EQ(*given, real) << what << ", fraction " << fraction;
    }
  }
}

// Durations of all sizes: as many between 1 and 2 ns as between 100 and 200 s.
int64_t OfAnySize(std::mt19937_64& random) {
  return static_cast<int64_t>(std::exp2(std::uniform_real_distribution<>(0, 37)(random)));
}

int64_t Bimodal(std::mt19937_64& random) {
  const bool slow = std::bernoulli_distribution(0.03)(random);
  return static_cast<int64_t>(std::normal_distribution<>(slow ? 4e6 : 5e3, slow ? 3e5 : 4e2)(random));
}

int64_t Few(std::mt19937_64& random) {
  return std::uniform_int_distribution<int64_t>(0, 127)(random);
}

TEST(Histogram, IsWithinItsErrorOfTheSortedSamples) {
  const std::map<std::string, int64_t (*)(std::mt19937_64&)> kinds = {
      {"of any size", OfAnySize}, {"bimodal", Bimodal}, {"few", Few}};
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    std::mt19937_64 random(seed);
    for (const auto& kind : kinds) {
      std::vector<int64_t> samples(1 + random() % 30'000);
      std::generate(samples.begin(), samples.end(),
                    [&] { return std::max<int64_t>(kind.second(random), 0); });
      ExpectAsSorted(samples, kind.first + ", seed " + std::to_string(seed));
    }
  }
  std::mt19937_64 random(0);
  std::vector<int64_t> many(1'000'000);
  std::generate(many.begin(), many.end(), [&] { return OfAnySize(random); });
  ASSERT_TRUE(Of(many).Percentile(0.9999).has_value());
  ExpectAsSorted(many, "a million");
}

TEST(Histogram, NumbersItsBucketsAsItsHeadSays) {
  // Worked out by hand from the formula.
  const std::map<int64_t, size_t> known = {
      {0, 0},     {127, 127}, {128, 128}, {255, 255}, {256, 256},  {257, 256},  {258, 257},
      {511, 383}, {512, 384}, {515, 384}, {516, 385}, {1023, 511}, {1024, 512}, {1'048'576, 14 * 128}};
  for (const auto& [value, index] : known) EXPECT_EQ(Histogram::IndexOf(value), index) << value;
}

TEST(Histogram, LeavesNoGapBetweenBuckets) {
  const size_t last = Histogram::IndexOf(Histogram::kMost);
  for (size_t index = 0; index <= last; ++index) {
    const int64_t lowest = Histogram::LowestOf(index);
    ASSERT_EQ(Histogram::IndexOf(lowest), index);
    if (index > 0) {
      ASSERT_EQ(Histogram::IndexOf(lowest - 1), index - 1);
    }
  }
  EXPECT_EQ(Histogram::LowestOf(last + 1), Histogram::kMost + 1);
}

TEST(Histogram, KeepsExtremesAtItsEnds) {
  const Histogram histogram =
      Of({-1, std::numeric_limits<int64_t>::min(), 0, std::numeric_limits<int64_t>::max(), Histogram::kMost});
  EXPECT_EQ(histogram.size(), 5u);
  EXPECT_EQ(histogram.least(), 0);
  EXPECT_EQ(histogram.most(), Histogram::kMost);
  EXPECT_EQ(histogram.Percentile(0.5), 0);
}

TEST(Histogram, SaysNothingWithoutSamples) {
  const Histogram empty;
  EXPECT_FALSE(empty.Percentile(0.5).has_value());
  EXPECT_EQ(empty.least(), 0);
  EXPECT_EQ(empty.most(), 0);
  EXPECT_EQ(empty.Mean(), 0);
}

TEST(Histogram, MergedIsAllInOne) {
  std::mt19937_64 random(7);
  Histogram all, merged;
  for (int part = 0; part < 5; ++part) {
    Histogram one;
    for (int i = 0; i < 1000 * part; ++i) {
      const int64_t sample = OfAnySize(random);
      one.Add(sample);
      all.Add(sample);
    }
    merged.Merge(one);
  }
  EXPECT_EQ(merged.JsonFields(), all.JsonFields());
  EXPECT_EQ(merged.Mean(), all.Mean());
}

TEST(Histogram, GivesAPercentileOnlyWhereTheSamplesCarryIt) {
  const struct {
    double fraction;
    uint64_t from;
  } rules[] = {{0.5, 1}, {0.9, 100}, {0.99, 1'000}, {0.999, 100'000}, {0.9999, 1'000'000}};
  Histogram histogram;
  for (const auto& [fraction, from] : rules) {
    while (histogram.size() < from - 1) histogram.Add(1000);
    EXPECT_FALSE(histogram.Percentile(fraction).has_value()) << fraction << " of " << from - 1;
    histogram.Add(1000);
    EXPECT_TRUE(histogram.Percentile(fraction).has_value()) << fraction << " of " << from;
  }
}

TEST(Histogram, TellsItselfInJson) {
  Histogram histogram;
  for (int i = 0; i < 99; ++i) histogram.Add(100);
  histogram.Add(1'048'576);
  const auto told = nlohmann::json::parse(std::string("{").append(histogram.JsonFields()).append("}"));
  EXPECT_EQ(told["samples"], 100);
  EXPECT_EQ(told["mean_ns"], 10'585);  // (99 * 100 + 1048576) / 100
  EXPECT_EQ(told["min_ns"], 100);
  EXPECT_EQ(told["p50_ns"], 100);
  EXPECT_EQ(told["p90_ns"], 100);
  EXPECT_TRUE(told["p99_ns"].is_null());
  EXPECT_TRUE(told["p99_9_ns"].is_null());
  EXPECT_TRUE(told["p99_99_ns"].is_null());
  EXPECT_EQ(told["max_ns"], 1'048'576);
  EXPECT_EQ(told["histogram"]["sub_bits"], 7);
  EXPECT_EQ(told["histogram"]["counts"], nlohmann::json::parse("[[100, 99], [1792, 1]]"));
}

}  // namespace
}  // namespace shunt::bench
