// SPDX-License-Identifier: Apache-2.0
// AliasTable: draws one of n by weight in constant time (Walker's and Vose's method).
//
// Each of n columns of the same size belongs to at most two: so many 2^32ths to its own backend, the rest to
// its alias. Without columns: all weights are the same.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "net/balancer/mix.h"
#include "net/balancer/pick_table.h"

namespace shunt::net {

class AliasTable {
 public:
  explicit AliasTable(std::span<const Backend> backends);

  // `random`: 64 random bits. The index of a backend.
  uint32_t Draw(uint64_t random) const {
    const uint32_t drawn = Below(random, size_);
    if (columns_.empty()) return drawn;
    const Column& column = columns_[drawn];
    return static_cast<uint32_t>(random) < column.own ? drawn : column.alias;
  }
  bool even() const { return columns_.empty(); }

 private:
  struct Column {
    uint32_t own;
    uint32_t alias;  // itself, if all of it is its own
  };
  std::vector<Column> columns_;
  size_t size_;
};

}  // namespace shunt::net
