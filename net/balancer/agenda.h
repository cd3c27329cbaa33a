// SPDX-License-Identifier: Apache-2.0
// Agenda: when something is to be done next for each of many, and for which of them first.
//
// Exact: what is set anew or cleared leaves nothing behind. Entries of the same time come in the order of
// their keys, so a run can be repeated.

#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"

namespace shunt::net {

// `Key` can be hashed by abseil and ordered.
template <typename Key>
class Agenda {
 public:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  // In the place of what was set for it before. kNever is as good as Clear().
  void Set(const Key& key, int64_t time) {
    Clear(key);
    if (time == kNever) return;
    times_.emplace(key, time);
    order_.emplace(time, key);
  }
  void Clear(const Key& key) {
    const auto found = times_.find(key);
    if (found == times_.end()) return;
    order_.erase({found->second, key});
    times_.erase(found);
  }
  bool Has(const Key& key) const { return times_.contains(key); }

  // Of the first entry. kNever: there is none.
  int64_t next() const { return order_.empty() ? kNever : order_.begin()->first; }
  // Takes the first entry off, if its time has come, and says what that was.
  std::optional<std::pair<int64_t, Key>> TakeDue(int64_t now) {
    if (next() > now) return std::nullopt;
    std::pair<int64_t, Key> first = *order_.begin();
    Clear(first.second);
    return first;
  }

 private:
  absl::flat_hash_map<Key, int64_t> times_;
  absl::btree_set<std::pair<int64_t, Key>> order_;
};

// `time` and that much later; kNever if that is beyond what the clock can show.
inline int64_t After(int64_t time, int64_t ns) {
  constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  return time > 0 && ns > kNever - time ? kNever : time + ns;
}

}  // namespace shunt::net
