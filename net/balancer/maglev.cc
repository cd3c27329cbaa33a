// SPDX-License-Identifier: Apache-2.0
// Maglev: a table from hashes to backends ("Maglev: A Fast and Reliable Software Network Load Balancer", NSDI
// 2016, 3.4), filled by weight as Envoy does it.
//
// Each backend has an order of its own in which it wants the entries; in turn they take the next one that
// they want and that is free. In round t (from 0) whoever has the greatest weight has a turn, and another one
// of weight w if it has had fewer than 1 + t w / greatest. So each gets one entry at least, and its share but
// for one entry.

#include <algorithm>
#include <limits>
#include <utility>

#include "net/balancer/grouped_picks.h"
#include "net/balancer/policies.h"

namespace shunt::net {
namespace {

// Entries for each backend, so that nobody gets 1% more than another of its weight (the paper's choice).
constexpr uint64_t kEntriesPerBackend = 100;
constexpr uint32_t kSizes[] = {65537, 131101, 262147, 524309, 1048583, 2097169, 4194319, 8388617, 16777259};

constexpr bool IsPrime(uint32_t number) {
  for (uint32_t divisor = 2; divisor <= number / divisor; ++divisor) {
    if (number % divisor == 0) return false;
  }
  return true;
}
static_assert(std::all_of(std::begin(kSizes), std::end(kSizes), IsPrime));

uint32_t TableSize(size_t backends) {
  for (const uint32_t size : kSizes) {
    if (size >= kEntriesPerBackend * backends) return size;
  }
  return *std::rbegin(kSizes);
}

class Maglev {
 public:
  explicit Maglev(std::span<const Backend> backends) : wide_(MaglevTable(backends)) {
    if (backends.size() > size_t{std::numeric_limits<uint16_t>::max()} + 1) return;
    narrow_.reserve(wide_.size());
    for (const uint32_t backend : wide_) narrow_.push_back(static_cast<uint16_t>(backend));
    wide_ = {};
  }

  const Backend* Pick(std::span<const Backend> backends, const PickWish& wish, PickSeat& seat) const {
    return PickByHash(backends, wish, seat, [&](uint64_t hash) -> uint32_t {
      return narrow_.empty() ? wide_[Below(hash, wide_.size())] : narrow_[Below(hash, narrow_.size())];
    });
  }

 private:
  // One of the two: half the bytes unless there are too many backends, so that twice as much of it is in the
  // cache.
  std::vector<uint32_t> wide_;
  std::vector<uint16_t> narrow_;
};

}  // namespace

std::vector<uint32_t> MaglevTable(std::span<const Backend> backends) {
  const uint32_t size = TableSize(backends.size());
  struct Wants {
    uint32_t weight;
    uint32_t next;  // the entry that it wants next
    uint32_t step;  // from there to the one after that
    uint32_t had;
    uint32_t after;  // who is next in the list of its round
  };
  std::vector<Wants> wants;
  uint64_t greatest = 0;
  for (const Backend& backend : backends) {
    wants.push_back({.weight = backend.weight,
                     .next = Below(MixNth(backend.identity, 0), size),
                     .step = 1 + Below(MixNth(backend.identity, 1), size - 1),
                     .had = 0,
                     .after = 0});
    greatest = std::max<uint64_t>(greatest, backend.weight);
  }

  // Those who have a turn in a round, as a circle whose last one is known. So it takes the time of the
  // entries whatever the weights are.
  constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();
  std::vector<uint32_t> last_of(size, kNone);
  const auto add_turn = [&](uint64_t round, uint32_t i) {
    if (round >= size) return;  // the table is full before
    uint32_t& last = last_of[round];
    wants[i].after = last == kNone ? i : std::exchange(wants[last].after, i);
    last = i;
  };
  for (uint32_t i = 0; i < wants.size(); ++i) add_turn(0, i);

  std::vector<uint32_t> table(size);
  std::vector<bool> taken(size);  // beside the table: it stays in the cache
  uint32_t left = size;
  for (size_t round = 0; left > 0; ++round) {
    const uint32_t last = last_of[round];
    for (uint32_t i = wants[last].after, after = i;; i = after) {
      Wants& its = wants[i];
      const auto go_on = [&] {
        const uint32_t to_end = size - its.next;
        its.next = its.step < to_end ? its.next + its.step : its.step - to_end;
      };
      while (taken[its.next]) go_on();
      taken[its.next] = true;
      table[its.next] = i;
      if (--left == 0) break;
      go_on();
      after = its.after;
      add_turn((++its.had * greatest + its.weight - 1) / its.weight, i);
      if (i == last) break;
    }
  }
  return table;
}

std::unique_ptr<const PickTable> MakeMaglev(std::vector<PickGroup> groups) {
  SortByIdentity(groups);
  return std::make_unique<GroupedPicks<Maglev>>(
      std::move(groups), [](std::span<const Backend> backends, size_t) { return Maglev(backends); });
}

}  // namespace shunt::net
