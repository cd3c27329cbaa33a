// SPDX-License-Identifier: Apache-2.0
// Samples: see samples.h.

#include "bench/samples.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>

namespace shunt::bench {

void Samples::Add(int64_t nanoseconds) {
  constexpr int64_t kMost = std::numeric_limits<uint32_t>::max();
  nanoseconds_.push_back(static_cast<uint32_t>(std::clamp<int64_t>(nanoseconds, 0, kMost)));
  sorted_ = false;
}

void Samples::Merge(const Samples& other) {
  nanoseconds_.insert(nanoseconds_.end(), other.nanoseconds_.begin(), other.nanoseconds_.end());
  sorted_ = false;
}

std::optional<uint32_t> Samples::Percentile(double fraction) {
  constexpr double kSamplesBeyond = 10;
  const double count = static_cast<double>(nanoseconds_.size());
  if (nanoseconds_.empty()) return std::nullopt;
  // The small slack keeps 0.999 of 10,000 on the right side of binary fractions.
  if (fraction > 0.5 && count * (1 - fraction) < kSamplesBeyond - 1e-6) return std::nullopt;
  if (!sorted_) std::sort(nanoseconds_.begin(), nanoseconds_.end());
  sorted_ = true;
  const auto rank = static_cast<size_t>(std::ceil(count * fraction - 1e-6));
  return nanoseconds_[std::max<size_t>(rank, 1) - 1];
}

double Samples::Mean() const {
  if (nanoseconds_.empty()) return 0;
  return std::accumulate(nanoseconds_.begin(), nanoseconds_.end(), 0.0) /
         static_cast<double>(nanoseconds_.size());
}

std::string Samples::JsonFields() {
  char text[64];
  std::snprintf(text, sizeof text, "\"samples\": %zu, \"mean_ns\": %.0f", size(), Mean());
  std::string fields = text;
  const struct {
    const char* name;
    double fraction;
  } kPercentiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99_9", 0.999}};
  for (const auto& [name, fraction] : kPercentiles) {
    const std::optional<uint32_t> value = Percentile(fraction);
    fields += std::string(", \"") + name + "_ns\": " + (value ? std::to_string(*value) : "null");
  }
  return fields;
}

}  // namespace shunt::bench
