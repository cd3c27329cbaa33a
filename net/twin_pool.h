// SPDX-License-Identifier: Apache-2.0
// TwinPool: sockets of the host's network, made and locked before somebody needs them.
//
// One per reactor, used by its thread only. A shelf holds the twins of one lock and one family; when all
// shelves are taken the one that was used least recently is cleared. Take() falls back to making one on the
// spot, so the pool is never more than a head start.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/fd.h"
#include "core/result.h"
#include "net/lock.h"

namespace shunt::net {

// A lock and a number that is never used for another one, so that shelves need not compare policies.
struct NumberedLock {
  uint64_t number = 0;
  SocketLock lock;
};

class TwinPool {
 public:
  TwinPool() = default;
  TwinPool(const TwinPool&) = delete;
  TwinPool& operator=(const TwinPool&) = delete;

  // An unconnected, unbound TCP socket, O_NONBLOCK and O_CLOEXEC, with `lock` on it if that is a program.
  // `family` is AF_INET or AF_INET6. `lock` must stay until Retire(lock.number).
  Result<Fd> Take(const NumberedLock& lock, int family);

  // True if some shelf that is in use is not full.
  bool WantsFilling() const;
  // Makes a few twins: some ten microseconds of work.
  void Fill();

  // Throws away what was made for this lock.
  void Retire(uint64_t lock_number);

 private:
  static constexpr size_t kShelves = 16;
  static constexpr size_t kTwinsPerShelf = 32;
  static constexpr size_t kTwinsPerFill = 8;

  struct Shelf {
    const NumberedLock* lock = nullptr;
    int family = 0;
    uint64_t used_at = 0;  // counts Take() calls
    size_t count = 0;
    std::array<Fd, kTwinsPerShelf> twins;

    void Clear();
  };

  Shelf& ShelfFor(const NumberedLock& lock, int family);

  std::array<Shelf, kShelves> shelves_;
  uint64_t takes_ = 0;
};

}  // namespace shunt::net
