// SPDX-License-Identifier: Apache-2.0
// Least-request, least-connections and least-rtt: two different draws by weight, of which the less loaded one
// wins. Two are nearly as good as a look at all of them (Mitzenmacher's power of two choices), and no herd
// runs to the one that is idle. They differ in what the load is.

#include <algorithm>
#include <utility>

#include "net/balancer/alias_table.h"
#include "net/balancer/grouped_picks.h"
#include "net/balancer/policies.h"

namespace shunt::net {
namespace {

struct AttemptsUnderWay {
  static uint64_t Of(const BackendCountBook& counts, uint32_t slot, uint32_t /*weight*/) {
    return counts.InFlight(slot);
  }
};

struct OpenConnections {
  static uint64_t Of(const BackendCountBook& counts, uint32_t slot, uint32_t /*weight*/) {
    return counts.Open(slot);
  }
};

// Peak EWMA's cost, with the time to connect for the time to answer, which nobody here can see. Of one whose
// distance is not known yet it is small, so that it becomes known soon. With the connection that is being
// made, which is as much for all: of two that are equally far away and idle neither is the less loaded one.
struct RttTimesConnections {
  // Times a weight, that fits into 64 bits.
  static constexpr uint64_t kMostRtt = (uint64_t{1} << 24) - 1;  // us: 16 s
  static constexpr uint64_t kMostOpen = (uint64_t{1} << 22) - 1;
  static uint64_t Of(const BackendCountBook& counts, uint32_t slot, uint32_t weight) {
    return std::clamp<uint64_t>(counts.Rtt(slot), 1, kMostRtt) *
           (std::min<uint64_t>(counts.Open(slot), kMostOpen) + weight);
  }
};

template <typename Load>
class LeastLoaded {
 public:
  explicit LeastLoaded(std::span<const Backend> backends) : by_weight_(backends) {
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
    return Load::Of(seat.counts(), b.slot, b.weight) * a.weight <
                   Load::Of(seat.counts(), a.slot, a.weight) * b.weight
               ? second
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

template <typename Load>
std::unique_ptr<const PickTable> MakeLeastLoaded(std::vector<PickGroup> groups) {
  return std::make_unique<GroupedPicks<LeastLoaded<Load>>>(
      std::move(groups),
      [](std::span<const Backend> backends, size_t) { return LeastLoaded<Load>(backends); });
}

}  // namespace

std::unique_ptr<const PickTable> MakeLeastRequest(std::vector<PickGroup> groups) {
  return MakeLeastLoaded<AttemptsUnderWay>(std::move(groups));
}

std::unique_ptr<const PickTable> MakeLeastConnections(std::vector<PickGroup> groups) {
  return MakeLeastLoaded<OpenConnections>(std::move(groups));
}

std::unique_ptr<const PickTable> MakeLeastRtt(std::vector<PickGroup> groups) {
  return MakeLeastLoaded<RttTimesConnections>(std::move(groups));
}

}  // namespace shunt::net
