// SPDX-License-Identifier: Apache-2.0
// SocketClaim: one call at a time moves a socket.
//
// Two threads of a program may connect one socket at the same time, or a signal may send a thread into the
// same connect again while we are still at its first one; on two reactors, or while a task waits, both calls
// would move it. Who moves a socket claims its inode, and that of the twin before it is installed; who finds
// one claimed tries again a little later.
//
// A claim is a place in a small table that is found by the inode, so two sockets may be in each other's way;
// they only wait.

#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace shunt {

class ClaimTable {
 public:
  static constexpr size_t kPlaces = 128;
  std::atomic<uint64_t>& PlaceOf(uint64_t inode) { return places_[inode % kPlaces]; }

 private:
  std::array<std::atomic<uint64_t>, kPlaces> places_{};
};

class SocketClaim {
 public:
  SocketClaim() = default;
  SocketClaim(SocketClaim&& other) noexcept : places_(std::exchange(other.places_, {})) {}
  SocketClaim& operator=(SocketClaim&& other) noexcept {
    if (this == &other) return *this;
    Release();
    places_ = std::exchange(other.places_, {});
    return *this;
  }
  ~SocketClaim() { Release(); }

 private:
  void Release() {
    for (std::atomic<uint64_t>* place : places_) {
      if (place != nullptr) place->store(0, std::memory_order_release);
    }
  }

 public:
  // Claims one more socket, two at most. False: somebody else has it.
  [[nodiscard]] bool Add(ClaimTable& table, uint64_t inode) {
    std::atomic<uint64_t>* const place = &table.PlaceOf(inode);
    if (place == places_[0] || place == places_[1]) return true;  // ours already
    uint64_t free = 0;
    if (!place->compare_exchange_strong(free, inode, std::memory_order_acquire)) return false;
    places_[places_[0] == nullptr ? 0 : 1] = place;
    return true;
  }

 private:
  std::array<std::atomic<uint64_t>*, 2> places_{};
};

}  // namespace shunt
