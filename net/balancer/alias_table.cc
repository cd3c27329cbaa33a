// SPDX-License-Identifier: Apache-2.0
// AliasTable: who has too little for its column is topped up by one who has too much.

#include "net/balancer/alias_table.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace shunt::net {

AliasTable::AliasTable(std::span<const Backend> backends) : size_(backends.size()) {
  const auto same = [&](const Backend& backend) { return backend.weight == backends.front().weight; };
  if (std::all_of(backends.begin(), backends.end(), same)) return;

  // In units of which a column has `total` and each backend its weight times n: exact.
  const uint64_t total =
      std::accumulate(backends.begin(), backends.end(), uint64_t{0},
                      [](uint64_t sum, const Backend& backend) { return sum + backend.weight; });
  std::vector<uint64_t> left(size_);
  std::vector<uint32_t> small, large;
  columns_.resize(size_);
  for (uint32_t i = 0; i < size_; ++i) {
    left[i] = uint64_t{backends[i].weight} * size_;
    columns_[i] = {0, i};
    if (left[i] != total) (left[i] < total ? small : large).push_back(i);
  }
  while (!small.empty()) {
    const uint32_t poor = small.back(), rich = large.back();
    small.pop_back();
    columns_[poor] = {
        static_cast<uint32_t>(std::ldexp(static_cast<double>(left[poor]) / static_cast<double>(total), 32)),
        rich};
    left[rich] -= total - left[poor];
    if (left[rich] > total) continue;
    large.pop_back();
    if (left[rich] < total) small.push_back(rich);
  }
}

}  // namespace shunt::net
