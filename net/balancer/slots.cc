// SPDX-License-Identifier: Apache-2.0
// NumberPool and TablesInUse.

#include "net/balancer/slots.h"

#include <algorithm>

namespace shunt::net {

void TablesInUse::Made(const ServiceTable* table) {
  in_use_.push_back({++last_, table});
}

void TablesInUse::Retired(const ServiceTable* table) {
  const auto entry = std::find_if(in_use_.begin(), in_use_.end(),
                                  [&](const Entry& in_use) { return in_use.table == table; });
  if (entry != in_use_.end()) in_use_.erase(entry);
}

std::optional<uint32_t> NumberPool::Take(uint32_t most) {
  if (!free_.empty()) {
    const uint32_t number = free_.front();
    free_.pop_front();
    return number;
  }
  if (never_taken_ == most) return std::nullopt;
  return never_taken_++;
}

void NumberPool::GiveUp(uint32_t number, uint64_t last_table) {
  given_up_.push_back({number, last_table});
}

}  // namespace shunt::net
