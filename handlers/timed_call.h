// SPDX-License-Identifier: Apache-2.0
// TimedCalls: the connects with a send timeout that wait in the engine, by thread and socket.
//
// A signal takes a thread out of its trapped call without our being told. With SA_RESTART the same thread
// then calls again, although for a socket with a send timeout the kernel itself would have said EINTR. So: a
// thread that calls while an earlier call of its own still waits has been interrupted. The two may meet
// different reactors, so the places are atomic.

#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/limits.h"

namespace shunt {

class TimedCalls {
 public:
  // One waiting call; lives in its task's frame.
  class Mark {
   public:
    Mark(TimedCalls& calls, pid_t tid, uint64_t inode)
        : calls_(calls), place_(calls.Take(NameOf(tid, inode))) {}
    Mark(const Mark&) = delete;
    Mark& operator=(const Mark&) = delete;
    ~Mark() { calls_.Give(place_); }

   private:
    TimedCalls& calls_;
    const size_t place_;
  };

  // No call waits.
  bool empty() const { return waiting_.load(std::memory_order_acquire) == 0; }

  // True if `tid` is found waiting for this socket: its earlier call is over. Says so only once for each.
  bool TakeInterrupted(pid_t tid, uint64_t inode) {
    if (empty()) return false;
    for (std::atomic<uint64_t>& place : places_) {
      uint64_t expected = NameOf(tid, inode);
      if (place.compare_exchange_strong(expected, kTold)) return true;
    }
    return false;
  }

 private:
  // A call for each slot that one container can hold on two reactors.
  static constexpr size_t kPlaces = 2 * limits::kTaskSlotsPerListener;
  static constexpr uint64_t kFree = 0;
  static constexpr uint64_t kTold = ~uint64_t{0};

  // Inodes of sockets count up, so their lower half tells apart what one thread may have open.
  static uint64_t NameOf(pid_t tid, uint64_t inode) {
    return uint64_t{static_cast<uint32_t>(tid)} << 32 | static_cast<uint32_t>(inode);
  }

  // There is always a place: see kPlaces.
  size_t Take(uint64_t name) {
    waiting_.fetch_add(1, std::memory_order_acq_rel);
    for (size_t i = 0;; i = (i + 1) % kPlaces) {
      uint64_t expected = kFree;
      if (places_[i].compare_exchange_strong(expected, name)) return i;
    }
  }
  void Give(size_t place) {
    places_[place].store(kFree, std::memory_order_release);
    waiting_.fetch_sub(1, std::memory_order_acq_rel);
  }

  std::array<std::atomic<uint64_t>, kPlaces> places_{};
  std::atomic<size_t> waiting_{0};
};

}  // namespace shunt
