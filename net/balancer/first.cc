// SPDX-License-Identifier: Apache-2.0
// First: the first one that was not tried and is not full.

#include <utility>

#include "net/balancer/grouped_picks.h"
#include "net/balancer/policies.h"

namespace shunt::net {
namespace {

class FirstPolicy {
 public:
  const Backend* Pick(std::span<const Backend> backends, const PickWish& wish, PickSeat& seat) const {
    for (const Backend& backend : backends) {
      if (!IsOut(backend, wish, seat)) return &backend;
    }
    return nullptr;
  }
};

}  // namespace

std::unique_ptr<const PickTable> MakeFirst(std::vector<PickGroup> groups) {
  return std::make_unique<GroupedPicks<FirstPolicy>>(
      std::move(groups), [](std::span<const Backend>, size_t) { return FirstPolicy(); });
}

}  // namespace shunt::net
