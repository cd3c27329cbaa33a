// SPDX-License-Identifier: Apache-2.0
// Outcomes: how a reactor tells the thread that decides about backends which connects have failed.
//
// One writer, one reader, no lock. Successes are told only of backends that are watched because they have
// failed before, so as a rule there is nothing to tell. When the reader is too slow the newest are lost: then
// there are more failures than anybody needs to know.

#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/fd.h"

namespace shunt::net {

struct Outcome {
  uint32_t slot = 0;
  bool well = false;
};

class Outcomes {
 public:
  // `event_fd` is the reader's, which is woken by it; outlives this.
  explicit Outcomes(int event_fd) : event_fd_(event_fd) {}

  // The reactor's thread.
  void Tell(Outcome outcome) {
    const size_t end = end_.load(std::memory_order_relaxed);
    if (end - begin_.load(std::memory_order_acquire) == kRoom) return;
    room_[end % kRoom] = outcome;
    end_.store(end + 1, std::memory_order_release);
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(event_fd_, &one, sizeof(one));
  }

  // The reader's thread. False: there is none.
  bool Take(Outcome& outcome) {
    const size_t begin = begin_.load(std::memory_order_relaxed);
    if (begin == end_.load(std::memory_order_acquire)) return false;
    outcome = room_[begin % kRoom];
    begin_.store(begin + 1, std::memory_order_release);
    return true;
  }

 private:
  static constexpr size_t kRoom = 1024;
  const int event_fd_;
  std::array<Outcome, kRoom> room_{};
  alignas(64) std::atomic<size_t> begin_{0};
  alignas(64) std::atomic<size_t> end_{0};
};

}  // namespace shunt::net
