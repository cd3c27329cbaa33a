// SPDX-License-Identifier: Apache-2.0
// SpareSockets: a few sockets that were made before somebody needs one, in fixed places, so that a reactor
// can take and replenish them without the heap.

#pragma once

#include <array>
#include <cstddef>
#include <utility>

#include "core/check.h"
#include "core/fd.h"

namespace shunt::net {

class SpareSockets {
 public:
  static constexpr size_t kCapacity = 4;

  SpareSockets() = default;
  SpareSockets(SpareSockets&& other) noexcept
      : sockets_(std::move(other.sockets_)), count_(std::exchange(other.count_, 0)) {}
  SpareSockets& operator=(SpareSockets&& other) noexcept {
    sockets_ = std::move(other.sockets_);
    count_ = std::exchange(other.count_, 0);
    return *this;
  }

  bool empty() const { return count_ == 0; }
  size_t size() const { return count_; }
  bool full() const { return count_ == kCapacity; }

  // Not when full.
  void Add(Fd socket) {
    SHUNT_CHECK(!full());
    sockets_[count_++] = std::move(socket);
  }
  // Not when empty.
  Fd Take() {
    SHUNT_CHECK(!empty());
    return std::move(sockets_[--count_]);
  }

 private:
  std::array<Fd, kCapacity> sockets_;
  size_t count_ = 0;
};

}  // namespace shunt::net
