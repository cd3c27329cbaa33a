// SPDX-License-Identifier: Apache-2.0
// Numbers that tables name (slots of backends, ids of services), given out and taken back: NumberPool. And
// which tables may still be in use: TablesInUse.
//
// A number that was given up is not given out again while a table that named it is in use, or anything else
// still holds it: what is said about it would be said about another one.

#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "net/balancer/service_table.h"

namespace shunt::net {

// Tables in the order in which they were made: 1, 2, 3...
class TablesInUse {
 public:
  void Made(const ServiceTable* table);
  // Nobody uses it any more. One that is not known, or was said before, changes nothing.
  void Retired(const ServiceTable* table);

  // 0: none was made yet.
  uint64_t last() const { return last_; }
  // If none is in use: the next one that will be.
  uint64_t oldest_in_use() const { return in_use_.empty() ? last_ + 1 : in_use_.front().number; }

 private:
  struct Entry {
    uint64_t number;
    const ServiceTable* table;
  };
  std::deque<Entry> in_use_;  // a handful
  uint64_t last_ = 0;
};

class NumberPool {
 public:
  // Below `most`; nothing: all are taken, or not free yet. The one that has been free for longest.
  std::optional<uint32_t> Take(uint32_t most);
  // It is free once table `last_table` and all before it are not in use.
  void GiveUp(uint32_t number, uint64_t last_table);

  // Frees what was given up and may be: `let_go(number)` is asked once no table is in the way, and again the
  // next time if it says no.
  template <typename LetGo>
  void Reclaim(uint64_t oldest_in_use, LetGo let_go) {
    size_t kept = 0;
    for (const GivenUp& entry : given_up_) {
      if (entry.last_table < oldest_in_use && let_go(entry.number)) {
        free_.push_back(entry.number);
      } else {
        given_up_[kept++] = entry;
      }
    }
    given_up_.resize(kept);
  }

 private:
  struct GivenUp {
    uint32_t number;
    uint64_t last_table;
  };
  uint32_t never_taken_ = 0;  // this one and all after it
  std::deque<uint32_t> free_;
  std::vector<GivenUp> given_up_;
};

}  // namespace shunt::net
