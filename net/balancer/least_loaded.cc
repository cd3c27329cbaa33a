// SPDX-License-Identifier: Apache-2.0
// Least-request, least-connections and least-rtt: two different draws by weight, of which the less loaded one
// wins. Two are nearly as good as a look at all of them (Mitzenmacher's power of two choices), and no herd
// runs to the one that is idle. They differ in what the load is.

#include <utility>

#include "net/balancer/alias_table.h"
#include "net/balancer/grouped_picks.h"
#include "net/balancer/policies.h"

namespace shunt::net {
namespace {

// What is compared of a backend: a part of it, so that more of them stay in the cache.
struct Rival {
  uint32_t slot;
  uint32_t weight;
  float share;  // what one connection is of its capacity, beside the others
};

struct ByAttemptsUnderWay {
  static bool Less(const BackendCountBook& counts, const Rival& a, const Rival& b) {
    // By weight without a division.
    return uint64_t{counts.InFlight(a.slot)} * b.weight < uint64_t{counts.InFlight(b.slot)} * a.weight;
  }
};

struct ByOpenConnections {
  static bool Less(const BackendCountBook& counts, const Rival& a, const Rival& b) {
    return uint64_t{counts.Open(a.slot)} * b.weight < uint64_t{counts.Open(b.slot)} * a.weight;
  }
};

// Peak EWMA's cost, with the time to connect for the time to answer, which nobody here can see, and with the
// connection that is being made, which is as much for all: of two that are equally far away and idle neither
// is the less loaded one. Where a distance is not known, connections decide: one that nobody has reached yet
// is neither near nor far.
struct ByRttAndConnections {
  static bool Less(const BackendCountBook& counts, const Rival& a, const Rival& b) {
    const uint32_t a_rtt = counts.Rtt(a.slot), b_rtt = counts.Rtt(b.slot);
    if (a_rtt == 0 || b_rtt == 0) return ByOpenConnections::Less(counts, a, b);
    return Cost(a_rtt, counts.Open(a.slot), a) < Cost(b_rtt, counts.Open(b.slot), b);
  }
  static float Cost(uint32_t rtt, uint32_t open, const Rival& rival) {
    return static_cast<float>(rtt) * (static_cast<float>(open) * rival.share + 1);
  }
};

template <typename Load>
class LeastLoaded {
 public:
  explicit LeastLoaded(std::span<const Backend> backends) : by_weight_(backends) {
    uint64_t weights = 0;
    for (const Backend& backend : backends) weights += backend.weight;
    const double mean = static_cast<double>(weights) / static_cast<double>(backends.size());
    for (const Backend& backend : backends)
      rivals_.push_back({backend.slot, backend.weight, static_cast<float>(mean / backend.weight)});
  }

  const Backend* Pick(std::span<const Backend> backends, const PickWish& wish, PickSeat& seat) const {
    return PickUntried(backends, wish, seat, [&](uint32_t) { return Draw(backends, wish, seat); });
  }

 private:
  uint32_t Draw(std::span<const Backend> backends, const PickWish& wish, PickSeat& seat) const {
    const uint64_t random = seat.Random();
    const uint32_t first = by_weight_.Draw(random);
    if (rivals_.size() == 1) return first;
    const uint32_t second = Another(first, random, seat);
    if (!wish.tried.empty() || wish.places != 0) [[unlikely]] {
      if (IsOut(backends[first], wish, seat)) return second;
      if (IsOut(backends[second], wish, seat)) return first;
    }
    return Load::Less(seat.counts(), rivals_[second], rivals_[first]) ? second : first;
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
  return MakeLeastLoaded<ByAttemptsUnderWay>(std::move(groups));
}

std::unique_ptr<const PickTable> MakeLeastConnections(std::vector<PickGroup> groups) {
  return MakeLeastLoaded<ByOpenConnections>(std::move(groups));
}

std::unique_ptr<const PickTable> MakeLeastRtt(std::vector<PickGroup> groups) {
  return MakeLeastLoaded<ByRttAndConnections>(std::move(groups));
}

}  // namespace shunt::net
