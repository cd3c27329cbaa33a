// SPDX-License-Identifier: Apache-2.0
// Least-request: two different draws by weight, of which the less loaded one wins. Two are nearly as good as
// a look at all of them (Mitzenmacher's power of two choices), and no herd runs to the one that is idle.

#include <utility>

#include "net/balancer/alias_table.h"
#include "net/balancer/grouped_picks.h"
#include "net/balancer/policies.h"

namespace shunt::net {
namespace {

class LeastRequest {
 public:
  explicit LeastRequest(std::span<const Backend> backends) : by_weight_(backends) {
    for (const Backend& backend : backends) rivals_.push_back({backend.slot, backend.weight});
  }

  const Backend* Pick(std::span<const Backend> backends, const PickWish& wish, PickSeat& seat) const {
    return PickUntried(backends, wish, seat, [&](uint32_t) { return Draw(backends, wish, seat); });
  }

 private:
  // What is compared of a backend: a sixth of it, so that more of them stay in the cache.
  struct Rival {
    uint32_t slot;
    uint32_t weight;
  };

  uint32_t Draw(std::span<const Backend> backends, const PickWish& wish, PickSeat& seat) const {
    const uint64_t random = seat.Random();
    const uint32_t first = by_weight_.Draw(random);
    if (rivals_.size() == 1) return first;
    const uint32_t second = Another(first, random, seat);
    if (!wish.tried.empty()) [[unlikely]] {
      if (WasTried(backends[first], wish)) return second;
      if (WasTried(backends[second], wish)) return first;
    }
    const Rival &a = rivals_[first], &b = rivals_[second];
    // By weight without a division.
    return uint64_t{seat.LoadOf(b.slot)} * a.weight < uint64_t{seat.LoadOf(a.slot)} * b.weight ? second
                                                                                               : first;
  }

  // By weight as well. If one has nearly all of it, what is left is small: then any other will do.
  uint32_t Another(uint32_t first, uint64_t random, PickSeat& seat) const {
    constexpr int kDraws = 4;
    if (!by_weight_.even()) {
      for (int i = 0; i < kDraws; ++i) {
        if (const uint32_t drawn = by_weight_.Draw(seat.Random()); drawn != first) return drawn;
      }
      random = seat.Random();
    }
    // The lower half has drawn nothing yet.
    const uint32_t count = static_cast<uint32_t>(rivals_.size());
    const uint32_t drawn = first + 1 + Below(random << 32, count - 1);
    return drawn < count ? drawn : drawn - count;
  }

  AliasTable by_weight_;
  std::vector<Rival> rivals_;
};

}  // namespace

std::unique_ptr<const PickTable> MakeLeastRequest(std::vector<PickGroup> groups) {
  return std::make_unique<GroupedPicks<LeastRequest>>(
      std::move(groups), [](std::span<const Backend> backends, size_t) { return LeastRequest(backends); });
}

}  // namespace shunt::net
