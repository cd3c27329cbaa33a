// SPDX-License-Identifier: Apache-2.0
// Histogram: durations of single operations in buckets whose width grows with their value.
//
// A duration below 128 ns has a bucket of its own. Above, each octave (128 to 255, 256 to 511, ...) has 128
// buckets of one width, so a bucket is never wider than 1/128 of what lies in it, and its middle, which is
// what a percentile gives, never off by more than 0.4%. Buckets are numbered through:
//
//   index = value                                         value < 128
//   index = octave * 128 + (value >> (octave - 1)) - 128  octave = floor(log2(value)) - 6 otherwise
//
// The memory is fixed and all there from the start: to add a duration is to increment a number, with no
// allocation and no page fault between two measurements, however many there are. It may lie in memory that
// processes share. Not thread-safe: each thread fills its own and one thread merges them afterwards.
//
// How far the samples carry. A percentile is a statement about the samples beyond it. Up to p99 ten of them
// must lie there: such a figure is a median over several runs before anybody reads it. Farther out it takes a
// hundred, because what makes such a tail (an interrupt, a hypervisor) comes in bursts, and ten may be a
// single one. So p90 needs 100 samples, p99 1,000, p99.9 100,000 and p99.99 a million. With fewer, nothing is
// given.

#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace shunt::bench {

class Histogram {
 public:
  static constexpr int kSubBits = 7;
  // 18 minutes. What takes longer is counted as that.
  static constexpr int64_t kMost = (int64_t{1} << 40) - 1;

  // In nanoseconds; less than 0 is 0.
  void Add(int64_t nanoseconds) {
    const int64_t value = std::clamp<int64_t>(nanoseconds, 0, kMost);
    ++counts_[IndexOf(value)];
    ++size_;
    sum_ += value;
    least_ = std::min(least_, value);
    most_ = std::max(most_, value);
  }
  void Merge(const Histogram& other);

  uint64_t size() const { return size_; }
  // Exact. 0 without samples.
  int64_t least() const { return size_ == 0 ? 0 : least_; }
  int64_t most() const { return most_; }
  double Mean() const { return size_ == 0 ? 0 : static_cast<double>(sum_) / static_cast<double>(size_); }

  // The middle of the bucket of the smallest sample that at least `fraction` (above 0) of all samples do not
  // exceed. Nothing where the samples do not carry it (see above; the median only needs one).
  std::optional<int64_t> Percentile(double fraction) const;

  // `"samples": N, "mean_ns": M, "min_ns": ..., "p50_ns": ..., "max_ns": ..., "histogram": {"sub_bits": 7,
  // "counts": [[index, count], ...]}` for the inside of a JSON object: a percentile is null where there is
  // none, and empty buckets are left out.
  std::string JsonFields() const;

  static constexpr size_t IndexOf(int64_t value) {
    const auto bits = static_cast<uint64_t>(value);
    if (bits < kBuckets) return bits;
    const int octave = 63 - __builtin_clzll(bits) - kSubBits + 1;
    return static_cast<size_t>(octave) * kBuckets + (bits >> (octave - 1)) - kBuckets;
  }
  // The smallest value whose index this is.
  static constexpr int64_t LowestOf(size_t index) {
    const size_t octave = index / kBuckets;
    if (octave == 0) return static_cast<int64_t>(index);
    return static_cast<int64_t>((index % kBuckets + kBuckets) << (octave - 1));
  }

 private:
  static constexpr size_t kBuckets = size_t{1} << kSubBits;  // of each octave

  std::array<uint64_t, (40 - kSubBits + 1) * kBuckets> counts_{};
  static_assert(kMost == (int64_t{1} << 40) - 1);
  uint64_t size_ = 0;
  int64_t sum_ = 0;
  int64_t least_ = kMost;
  int64_t most_ = 0;
};

}  // namespace shunt::bench
