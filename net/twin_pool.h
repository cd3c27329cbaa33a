// SPDX-License-Identifier: Apache-2.0
// TwinPool: sockets of the host's network, made and locked before somebody needs them.
//
// One per reactor, used by its thread only. A shelf holds the twins of one lock, family and device; when all
// shelves are taken the one that was used least recently is cleared. When a quarter of a shelf is gone the
// control thread is asked for more: it has nothing urgent to do, mostly on another CPU. Take() makes one on
// the spot if the shelf is empty all the same, so the pool is never more than a head start.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/fd.h"
#include "core/mailbox.h"
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

  // Where refills are asked for and where they come back. Without it nothing is made in advance.
  void Connect(Mailbox& reactor, Mailbox& control);

  // An unconnected, unbound TCP socket, O_NONBLOCK and O_CLOEXEC, with `lock` on it: its program, or `device`
  // (an index of the host's; 0 with a program). `family` is AF_INET or AF_INET6. `lock` must stay until
  // Retire(lock.number) and the messages sent before it have been delivered.
  Result<Fd> Take(const NumberedLock& lock, int family, int device);

  // Throws away what was made for this lock.
  void Retire(uint64_t lock_number);

 private:
  static constexpr size_t kShelves = 16;
  static constexpr size_t kTwinsPerShelf = 32;
  // Where the control thread gets no other CPU, one call waits for a whole refill: so many that this call is
  // less than twice as slow as another.
  static constexpr size_t kTwinsPerRefill = kTwinsPerShelf / 4;

  // What the twins of a shelf have in common.
  struct Kind {
    const NumberedLock* lock = nullptr;
    int family = 0;
    int device = 0;
    friend bool operator==(const Kind&, const Kind&) = default;
  };

  // On its way to the control thread and back. `kind` is what was asked for: the shelf may have another use
  // by the time that it comes back.
  struct Refill {
    TwinPool* pool = nullptr;
    size_t shelf = 0;
    Kind kind;
    bool under_way = false;
    size_t count = 0;
    std::array<Fd, kTwinsPerRefill> twins;
    Message message;
  };

  struct Shelf {
    Kind kind;
    uint64_t used_at = 0;  // counts Take() calls
    size_t count = 0;
    std::array<Fd, kTwinsPerShelf> twins;
    Refill refill;

    void Clear();
  };

  static Result<Fd> Make(const Kind& kind);
  Shelf& ShelfFor(const Kind& kind);
  void AskForRefill(Shelf& shelf);
  static void MakeOnControlThread(Message& message);
  static void TakeRefill(Message& message);

  Mailbox* reactor_ = nullptr;
  Mailbox* control_ = nullptr;
  std::array<Shelf, kShelves> shelves_;
  uint64_t takes_ = 0;
};

}  // namespace shunt::net
