// SPDX-License-Identifier: Apache-2.0
// Samples: durations of single operations, and the percentiles of them that the number of samples can carry.
//
// Every sample is kept (4 bytes each), so a percentile is a real sample and not the edge of a histogram's
// bucket. Not thread-safe: each thread fills its own and one thread merges them afterwards.

#pragma once

#include <time.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace shunt::bench {

// Monotonic time in nanoseconds.
inline int64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

class Samples {
 public:
  // Room for `count` samples up front, so that Add() does not grow the vector between two measurements.
  explicit Samples(size_t count = 0) { nanoseconds_.reserve(count); }

  // Durations beyond 4.29 s are kept as 4.29 s.
  void Add(int64_t nanoseconds);
  void Merge(const Samples& other);

  size_t size() const { return nanoseconds_.size(); }

  // The smallest sample that at least `fraction` of all samples do not exceed; nothing when fewer than ten
  // samples lie beyond it, because such a tail is luck (the median only needs one sample).
  std::optional<uint32_t> Percentile(double fraction);

  // The mean in nanoseconds, 0 without samples.
  double Mean() const;

  // `"samples": N, "mean_ns": M, "p50_ns": ...` for the inside of a JSON object; null where Percentile has
  // nothing.
  std::string JsonFields();

 private:
  std::vector<uint32_t> nanoseconds_;
  bool sorted_ = false;
};

}  // namespace shunt::bench
