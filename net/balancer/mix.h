// SPDX-License-Identifier: Apache-2.0
// Mix64 and Below: numbers that look random, made of numbers that do not, and a place among n made of one.
//
// For spreading, the same on every machine; not against somebody who looks for collisions.

#pragma once

#include <cstdint>

namespace shunt::net {

// What SplitMix64 adds at each step: 2^64 by the golden ratio.
inline constexpr uint64_t kMixStep = 0x9e3779b97f4a7c15;

// SplitMix64's finaliser. One to one, and each bit of the result depends on all bits of `value`.
constexpr uint64_t Mix64(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

// The `number`th of a sequence of hashes of `value`.
constexpr uint64_t MixNth(uint64_t value, uint64_t number) {
  return Mix64(value + (number + 1) * kMixStep);
}

// 0 to count - 1, evenly, by the upper half of `random`. `count` is at least 1 and below 2^32.
constexpr uint32_t Below(uint64_t random, uint64_t count) {
  return static_cast<uint32_t>(((random >> 32) * count) >> 32);
}

}  // namespace shunt::net
