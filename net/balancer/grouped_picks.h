// SPDX-License-Identifier: Apache-2.0
// GroupedPicks: what picks of all policies have in common. A group is drawn by its share, a policy picks in
// it, backends that were tried or are full are skipped, and a group that has none left hands over to the
// others.
//
// A policy is made of the backends of one group, and has
//   const Backend* Pick(std::span<const Backend> backends, const PickWish& wish, PickSeat& seat) const;
// which gives nullptr if all of them were tried or are full. There is at least one backend, in an order that
// stays.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "net/balancer/mix.h"
#include "net/balancer/pick_table.h"

namespace shunt::net {

// It was tried, or is full.
inline bool IsOut(const Backend& backend, const PickWish& wish, const PickSeat& seat) {
  for (const uint32_t slot : wish.tried) {
    if (slot == backend.slot) return true;
  }
  return wish.places != 0 && seat.counts().PlacesOf(backend.slot).IsFull(wish.places);
}

// Apart, so that the first draw is inlined.
template <typename Draw>
[[gnu::noinline]] const Backend* PickAgain(std::span<const Backend> backends, const PickWish& wish,
                                           PickSeat& seat, Draw draw) {
  constexpr uint32_t kDraws = 8;
  for (uint32_t i = 1; i < kDraws; ++i) {
    const Backend& backend = backends[draw(i)];
    if (!IsOut(backend, wish, seat)) return &backend;
  }
  const size_t start = Below(wish.has_key ? MixNth(wish.key, kDraws) : seat.Random(), backends.size());
  for (size_t i = 0; i < backends.size(); ++i) {
    const Backend& backend = backends[(start + i) % backends.size()];
    if (!IsOut(backend, wish, seat)) return &backend;
  }
  return nullptr;
}

// The first of these that was not tried and is not full: what `draw` says, asked with 0, 1, 2..., and after a
// few of these any in order, from a place that is the key's if there is one, so that all of them come within
// bounded time. The place is random otherwise: what a failed backend had to take is not all its neighbour's.
template <typename Draw>
const Backend* PickUntried(std::span<const Backend> backends, const PickWish& wish, PickSeat& seat,
                           Draw draw) {
  const Backend& backend = backends[draw(0)];
  if (!IsOut(backend, wish, seat)) [[likely]]
    return &backend;
  return PickAgain(backends, wish, seat, draw);
}

// Draws of policies that pick by hash: `place_of` finds a backend's index for a hash. Who has no key gets
// any.
template <typename PlaceOf>
const Backend* PickByHash(std::span<const Backend> backends, const PickWish& wish, PickSeat& seat,
                          PlaceOf place_of) {
  const uint64_t key = wish.has_key ? wish.key : seat.Random();
  return PickUntried(backends, wish, seat, [&](uint32_t i) { return place_of(MixNth(key, i)); });
}

// So that picks by hash do not depend on the order in which backends are listed or found, which is another
// one on each machine.
inline void SortByIdentity(std::vector<PickGroup>& groups) {
  for (PickGroup& group : groups) {
    std::sort(group.backends.begin(), group.backends.end(),
              [](const Backend& a, const Backend& b) { return a.identity < b.identity; });
  }
}

template <typename Policy>
class GroupedPicks final : public PickTable {
 public:
  // `make(backends, number)` makes the policy of the group of that number.
  template <typename Make>
  GroupedPicks(std::vector<PickGroup> groups, Make make) {
    groups_.reserve(groups.size());
    uint32_t below = 0;
    for (PickGroup& group : groups) {
      std::erase_if(group.backends, [](const Backend& backend) { return backend.weight == 0; });
      if (group.backends.empty()) continue;
      below += group.share;
      size_ += group.backends.size();
      Policy policy = make(std::span<const Backend>(group.backends), groups_.size());
      groups_.push_back({below, group.backup, std::move(group.backends), std::move(policy)});
    }
    total_ = below;
  }

  const Backend* Pick(const PickWish& wish, PickSeat& seat) const override {
    if (groups_.empty()) return nullptr;
    const size_t drawn = groups_.front().below >= total_ ? 0 : DrawGroup(wish, seat);
    if (wish.elsewhere && !wish.tried.empty()) [[unlikely]] {
      const size_t failed = GroupOf(wish.tried.front(), drawn);
      const auto fits = [&](const Group& other) { return other.backup == groups_[failed].backup; };
      const Backend* const backend = PickFromOthers(failed, wish, seat, fits);
      if (backend != nullptr) return backend;
    }
    const Group& group = groups_[drawn];
    if (const Backend* backend = group.policy.Pick(group.backends, wish, seat)) [[likely]]
      return backend;
    return PickFromOthers(drawn, wish, seat, [](const Group&) { return true; });
  }

  size_t size() const override { return size_; }

 private:
  struct Group {
    uint32_t below;  // the shares of this group and of those before it
    bool backup;
    std::vector<Backend> backends;
    Policy policy;
  };

  template <typename Fits>
  [[gnu::noinline]] const Backend* PickFromOthers(size_t drawn, const PickWish& wish, PickSeat& seat,
                                                  Fits fits) const {
    for (size_t i = 0; i < groups_.size(); ++i) {
      const Group& group = groups_[i];
      if (i == drawn || !fits(group)) continue;
      if (const Backend* backend = group.policy.Pick(group.backends, wish, seat)) return backend;
    }
    return nullptr;
  }

  // Of this slot; or `otherwise`, if it is not in the table any more.
  size_t GroupOf(uint32_t slot, size_t otherwise) const {
    for (size_t i = 0; i < groups_.size(); ++i) {
      for (const Backend& backend : groups_[i].backends) {
        if (backend.slot == slot) return i;
      }
    }
    return otherwise;
  }

  size_t DrawGroup(const PickWish& wish, PickSeat& seat) const {
    // Another sequence than that of the policies' hashes, or a group would get the same backends all the
    // time.
    constexpr uint64_t kGroupNumber = uint64_t{1} << 32;
    const uint32_t drawn = Below(wish.has_key ? MixNth(wish.key, kGroupNumber) : seat.Random(), total_);
    size_t group = 0;
    while (drawn >= groups_[group].below) ++group;
    return group;
  }

  std::vector<Group> groups_;
  uint32_t total_ = 0;
  size_t size_ = 0;
};

}  // namespace shunt::net
