// SPDX-License-Identifier: Apache-2.0
// Round-robin: the order is made in advance, so that a pick is one step in it.
//
// The order is that of earliest eligible deadline first. In an order of W places, the k-th turn (from 0) of a
// backend of weight w may come from place k W / w on and has to come before place (k + 1) W / w; of those
// that may come, the one that has to come first does. This meets all deadlines: it is the scheduling of jobs
// of length one, with whole release times and deadlines, on a processor that is never overloaded. Envoy's
// earliest deadline first lets turns come early, so the heavy ones come in a row.

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <queue>
#include <utility>

#include "core/check.h"
#include "net/balancer/grouped_picks.h"
#include "net/balancer/policies.h"

namespace shunt::net {
namespace {

class RoundRobin {
 public:
  RoundRobin(std::span<const Backend> backends, RoundRobinPlaces& places, size_t group)
      : order_(RoundRobinOrder(backends)),
        apart_(std::max<size_t>(1, order_.size() / places.reactors())),
        places_(&places),
        group_(group) {}

  const Backend* Pick(std::span<const Backend> backends, const PickWish& wish, PickSeat& seat) const {
    return PickUntried(backends, wish, seat, [&](uint32_t) {
      const uint64_t place = seat.reactor() * apart_ + places_->Next(seat.reactor(), group_);
      return order_[place % order_.size()];
    });
  }

 private:
  std::vector<uint32_t> order_;
  size_t apart_;  // places between the reactors
  RoundRobinPlaces* places_;
  size_t group_;
};

// How many places each backend gets.
std::vector<uint64_t> PlacesByWeight(std::span<const Backend> backends) {
  std::vector<uint64_t> places;
  uint64_t divisor = 0, total = 0;
  for (const Backend& backend : backends) {
    places.push_back(backend.weight);
    divisor = std::gcd(divisor, uint64_t{backend.weight});
    total += backend.weight;
  }
  const uint64_t most = MostPlaces(backends.size());
  for (uint64_t& place : places)
    place = total / divisor <= most ? place / divisor : std::max<uint64_t>(1, place * most / total);
  return places;
}

}  // namespace

std::vector<uint32_t> RoundRobinOrder(std::span<const Backend> backends) {
  const std::vector<uint64_t> weights = PlacesByWeight(backends);
  const uint64_t total = std::accumulate(weights.begin(), weights.end(), uint64_t{0});

  // Each backend has one turn that is to come: in the list of the place from which on it may come, or among
  // those that may.
  constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();
  std::vector<uint32_t> from_here(total + 1, kNone), next_of(backends.size(), kNone);
  std::vector<uint64_t> turn(backends.size(), 0);
  using Eligible = std::pair<uint64_t, uint32_t>;  // deadline, backend
  std::priority_queue<Eligible, std::vector<Eligible>, std::greater<>> eligible;
  for (uint32_t i = static_cast<uint32_t>(backends.size()); i-- > 0;)
    next_of[i] = std::exchange(from_here[0], i);

  std::vector<uint32_t> order;
  order.reserve(total);
  while (order.size() < total) {
    for (uint32_t i = from_here[order.size()]; i != kNone; i = next_of[i])
      eligible.emplace(((turn[i] + 1) * total + weights[i] - 1) / weights[i], i);
    SHUNT_CHECK(!eligible.empty() && eligible.top().first > order.size());
    const uint32_t i = eligible.top().second;
    eligible.pop();
    order.push_back(i);
    if (++turn[i] == weights[i]) continue;
    // Not before the place that comes next: as soon as its window begins, rounded down, which is at the
    // former turn's deadline or one place before it.
    const uint64_t from = std::max<uint64_t>(turn[i] * total / weights[i], order.size());
    next_of[i] = std::exchange(from_here[from], i);
  }
  return order;
}

std::unique_ptr<const PickTable> MakeRoundRobin(std::vector<PickGroup> groups, RoundRobinPlaces& places) {
  return std::make_unique<GroupedPicks<RoundRobin>>(
      std::move(groups),
      [&](std::span<const Backend> backends, size_t group) { return RoundRobin(backends, places, group); });
}

}  // namespace shunt::net
