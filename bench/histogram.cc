// SPDX-License-Identifier: Apache-2.0
// Histogram: see histogram.h.

#include "bench/histogram.h"

#include <cmath>
#include <cstdio>

namespace shunt::bench {
namespace {

// How many samples have to lie beyond this one.
double SamplesBeyond(double fraction) {
  if (fraction <= 0.5) return 0;
  return fraction <= 0.99 ? 10 : 100;
}

// Keeps 0.999 of 100,000 on the right side of binary fractions.
constexpr double kSlack = 1e-6;

}  // namespace

void Histogram::Merge(const Histogram& other) {
  for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  size_ += other.size_;
  sum_ += other.sum_;
  least_ = std::min(least_, other.least_);
  most_ = std::max(most_, other.most_);
}

std::optional<int64_t> Histogram::Percentile(double fraction) const {
  const double count = static_cast<double>(size_);
  if (size_ == 0 || count * (1 - fraction) < SamplesBeyond(fraction) - kSlack) return std::nullopt;
  const auto rank = std::max<uint64_t>(static_cast<uint64_t>(std::ceil(count * fraction - kSlack)), 1);
  uint64_t seen = 0;
  size_t index = 0;
  while ((seen += counts_[index]) < rank) ++index;
  const int64_t middle = LowestOf(index) + (LowestOf(index + 1) - LowestOf(index)) / 2;
  return std::clamp(middle, least_, most_);
}

std::string Histogram::JsonFields() const {
  char text[96];
  std::snprintf(text, sizeof text, "\"samples\": %llu, \"mean_ns\": %.0f, \"min_ns\": %lld",
                static_cast<unsigned long long>(size_), Mean(), static_cast<long long>(least()));
  std::string fields = text;
  const struct {
    const char* name;
    double fraction;
  } kPercentiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99_9", 0.999}, {"p99_99", 0.9999}};
  for (const auto& [name, fraction] : kPercentiles) {
    const std::optional<int64_t> value = Percentile(fraction);
    fields += std::string(", \"") + name + "_ns\": " + (value ? std::to_string(*value) : "null");
  }
  fields += ", \"max_ns\": " + std::to_string(most_) +
            ", \"histogram\": {\"sub_bits\": " + std::to_string(kSubBits) + ", \"counts\": [";
  for (size_t i = 0; i < counts_.size(); ++i) {
    if (counts_[i] == 0) continue;
    if (fields.back() == ']') fields += ", ";
    fields.append("[").append(std::to_string(i)).append(", ").append(std::to_string(counts_[i])).append("]");
  }
  return fields + "]}";
}

}  // namespace shunt::bench
