// SPDX-License-Identifier: Apache-2.0
// Random: one draw by weight.

#include <utility>

#include "net/balancer/alias_table.h"
#include "net/balancer/grouped_picks.h"
#include "net/balancer/policies.h"

namespace shunt::net {
namespace {

class RandomPolicy {
 public:
  explicit RandomPolicy(std::span<const Backend> backends) : by_weight_(backends) {}

  const Backend* Pick(std::span<const Backend> backends, const PickWish& wish, PickSeat& seat) const {
    return PickUntried(backends, wish, seat, [&](uint32_t) { return by_weight_.Draw(seat.Random()); });
  }

 private:
  AliasTable by_weight_;
};

}  // namespace

std::unique_ptr<const PickTable> MakeRandom(std::vector<PickGroup> groups) {
  return std::make_unique<GroupedPicks<RandomPolicy>>(
      std::move(groups), [](std::span<const Backend> backends, size_t) { return RandomPolicy(backends); });
}

}  // namespace shunt::net
