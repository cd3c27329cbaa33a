// SPDX-License-Identifier: Apache-2.0
// What tests of picks share: backends by number, a reactor's seat, and how far chance may go.

#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "net/balancer/pick_table.h"
#include "tests/support/sanitized.h"

namespace shunt::net {

// Backends of one service, as many as there may be; fewer where a table of them takes half a minute.
inline constexpr int kManyBackends = kSanitized ? 2000 : 10'000;

inline constexpr PickPolicy kAllPolicies[] = {
    PickPolicy::kRoundRobin, PickPolicy::kRandom, PickPolicy::kLeastRequest,     PickPolicy::kMaglev,
    PickPolicy::kRingHash,   PickPolicy::kFirst,  PickPolicy::kLeastConnections, PickPolicy::kLeastRtt};

inline const char* NameOf(PickPolicy policy) {
  constexpr const char* kNames[] = {"round-robin", "random", "least-request",     "maglev",
                                    "ring-hash",   "first",  "least-connections", "least-rtt"};
  return kNames[static_cast<size_t>(policy)];
}

// 10.0.0.0 + number, port 8080.
inline Backend BackendOf(uint32_t number, uint32_t weight = 1) {
  const SockAddr address(IpAddress(0, uint64_t{0xffff} << 32 | (uint64_t{10} << 24) | number), 8080);
  return {.address = address, .slot = number, .weight = weight, .identity = BackendIdentity(address)};
}

inline std::vector<Backend> BackendsOf(const std::vector<uint32_t>& weights) {
  std::vector<Backend> backends;
  for (const uint32_t weight : weights)
    backends.push_back(BackendOf(static_cast<uint32_t>(backends.size()), weight));
  return backends;
}

inline std::vector<Backend> EqualBackends(size_t count) {
  return BackendsOf(std::vector<uint32_t>(count, 1));
}

// Weights from 1 to `most`, the same ones for the same seed.
inline std::vector<uint32_t> SomeWeights(size_t count, uint32_t most, uint64_t seed) {
  std::vector<uint32_t> weights;
  for (size_t i = 0; i < count; ++i) weights.push_back(1 + Below(MixNth(seed, i), most));
  return weights;
}

// One service on one machine. Backends are told apart by their slots.
struct PickParts {
  explicit PickParts(size_t slots, size_t reactors = 1, uint64_t seed = 1)
      : counts(reactors), places(reactors), seat(0, counts, seed) {
    counts.Grow(static_cast<uint32_t>(slots));
  }

  std::unique_ptr<const PickTable> Make(PickPolicy policy, std::vector<PickGroup> groups,
                                        bool by_key = false) {
    return PickTable::Make(policy, by_key, std::move(groups), places);
  }
  std::unique_ptr<const PickTable> Make(PickPolicy policy, std::vector<Backend> backends,
                                        bool by_key = false) {
    std::vector<PickGroup> groups;
    groups.push_back({65536, std::move(backends)});
    return Make(policy, std::move(groups), by_key);
  }

  // How often each slot is picked.
  std::vector<uint64_t> Count(const PickTable& table, size_t picks, bool keys = false) {
    std::vector<uint64_t> counted;
    for (size_t i = 0; i < picks; ++i) {
      const Backend* backend = table.Pick({.has_key = keys, .key = i}, seat);
      if (backend == nullptr) return {};
      if (counted.size() <= backend->slot) counted.resize(backend->slot + 1);
      ++counted[backend->slot];
    }
    return counted;
  }

  BackendCountBook counts;
  RoundRobinPlaces places;
  PickSeat seat;
};

// What the sum of squares of `freedom` normal variables exceeds once in a million times (Wilson and
// Hilferty). The seeds are fixed: a test passes always or never.
inline double ChiSquareLimit(size_t freedom) {
  constexpr double kOnceInAMillion = 4.7534;
  const double part = 2.0 / (9.0 * static_cast<double>(freedom));
  return static_cast<double>(freedom) * std::pow(1 - part + kOnceInAMillion * std::sqrt(part), 3);
}

// Pearson's sum, for picks that are independent of each other.
inline double ChiSquare(std::vector<uint64_t> counted, const std::vector<Backend>& backends, size_t picks) {
  double total = 0, sum = 0;
  for (const Backend& backend : backends) total += backend.weight;
  counted.resize(backends.size());
  for (size_t i = 0; i < backends.size(); ++i) {
    const double expected = static_cast<double>(picks) * backends[i].weight / total;
    sum += std::pow(static_cast<double>(counted[i]) - expected, 2) / expected;
  }
  return sum;
}

}  // namespace shunt::net
