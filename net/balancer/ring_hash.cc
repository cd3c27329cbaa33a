// SPDX-License-Identifier: Apache-2.0
// Ring hash: each backend has points on a ring of hashes, as many as its weight says; a hash belongs to the
// next point. When a backend comes or goes, nothing but its own part of the ring changes hands (unless that
// is what makes the ring twice or half as dense: see policies.h).
//
// It is known for each small part of the ring which point is the first one from its beginning on: from there
// it is a step or two.

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

#include "net/balancer/grouped_picks.h"
#include "net/balancer/policies.h"

namespace shunt::net {
namespace {

constexpr uint64_t kFewestPerBackend = 100;
// Of the heaviest backend in a small ring: its share is off by 1 / sqrt(1600) of it, as a rule.
constexpr uint64_t kUsualPoints = 1600;
// A ring of so many points is large.
constexpr uint64_t kLargeRing = 65536;

class RingHash {
 public:
  explicit RingHash(std::span<const Backend> backends) : ring_(RingOf(backends)) {
    // Behind the last point comes the first one again: every search ends here.
    ring_.points.push_back({0xffffffff, ring_.points.front().backend});
  }

  const Backend* Pick(std::span<const Backend> backends, const PickWish& wish, PickSeat& seat) const {
    return PickByHash(backends, wish, seat, [&](uint64_t hash) {
      const uint32_t position = static_cast<uint32_t>(hash >> 32);
      const RingPoint* point = &ring_.points[ring_.first[position >> ring_.shift]];
      while (point->position < position) ++point;
      return point->backend;
    });
  }

 private:
  Ring ring_;
};

}  // namespace

Ring RingOf(std::span<const Backend> backends) {
  uint64_t greatest = 0;
  for (const Backend& backend : backends) greatest = std::max<uint64_t>(greatest, backend.weight);
  // How many points one has if the heaviest has so many.
  const auto points_of = [&](const Backend& backend, uint64_t heaviest) {
    return (heaviest * backend.weight + greatest - 1) / greatest;
  };
  const auto together = [&](uint64_t heaviest) {
    uint64_t sum = 0;
    for (const Backend& backend : backends) sum += points_of(backend, heaviest);
    return sum;
  };
  // By factors of two only, so that backends can come and go, and most can change their weights, without any
  // point being moved of those that stay.
  uint64_t heaviest = kUsualPoints;
  while (together(heaviest) < kFewestPerBackend * backends.size()) heaviest *= 2;
  while (heaviest > kFewestPerBackend && together(heaviest / 2) >= kLargeRing &&
         together(heaviest / 2) >= kFewestPerBackend * backends.size())
    heaviest /= 2;

  const size_t count = together(heaviest);
  const int bits = static_cast<int>(std::bit_width(count - 1));
  Ring ring{.points = {}, .first = std::vector<uint32_t>(size_t{1} << bits), .shift = 32 - bits};
  ring.points.reserve(count + 1);  // for the end of searches
  ring.points.resize(count);
  const auto each_point = [&](auto act) {
    for (uint32_t i = 0; i < backends.size(); ++i) {
      const uint64_t its = points_of(backends[i], heaviest);
      for (uint64_t number = 0; number < its; ++number)
        act(RingPoint{static_cast<uint32_t>(MixNth(backends[i].identity, number) >> 32), i});
    }
  };
  // Hashes are spread evenly, so each is nearly at its place when it is in its part.
  each_point([&](RingPoint point) { ++ring.first[point.position >> ring.shift]; });
  std::inclusive_scan(ring.first.begin(), ring.first.end(), ring.first.begin());
  each_point([&](RingPoint point) { ring.points[--ring.first[point.position >> ring.shift]] = point; });
  for (size_t part = 0; part < ring.first.size(); ++part) {
    const auto begin = ring.points.begin() + ring.first[part];
    const auto end =
        part + 1 < ring.first.size() ? ring.points.begin() + ring.first[part + 1] : ring.points.end();
    if (end - begin < 2) continue;
    std::sort(begin, end, [&](const RingPoint& a, const RingPoint& b) {
      return std::pair(a.position, a.backend) < std::pair(b.position, b.backend);
    });
  }
  return ring;
}

std::unique_ptr<const PickTable> MakeRingHash(std::vector<PickGroup> groups) {
  SortByIdentity(groups);
  return std::make_unique<GroupedPicks<RingHash>>(
      std::move(groups), [](std::span<const Backend> backends, size_t) { return RingHash(backends); });
}

}  // namespace shunt::net
