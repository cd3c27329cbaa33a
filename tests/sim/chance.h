// SPDX-License-Identifier: Apache-2.0
// Chance: where every decision of a simulated run comes from, so that a seed is the whole run.
//
// SplitMix64, because the distributions of <random> differ between libraries and a seed has to mean the same
// run everywhere.

#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace shunt::sim {

class Chance {
 public:
  explicit Chance(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    uint64_t value = (state_ += 0x9e3779b97f4a7c15u);
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
  }
  // 0 .. bound - 1; `bound` > 0.
  size_t Below(size_t bound) { return static_cast<size_t>(Next() % bound); }
  bool OneIn(size_t bound) { return Below(bound) == 0; }
  template <typename T>
  T OneOf(std::initializer_list<T> values) {
    return values.begin()[Below(values.size())];
  }

 private:
  uint64_t state_;
};

}  // namespace shunt::sim
