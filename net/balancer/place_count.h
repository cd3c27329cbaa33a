// SPDX-License-Identifier: Apache-2.0
// PlaceCount: how many of the connections that one backend may have are taken, so that none is made beyond
// that, whichever reactors make them at the same time.
//
// The kernel knows which connections there are (net/balancer/live_counts.h), but is asked only now and then,
// and does not know what is about to be made. So what it said last counts; what has begun since it was asked;
// and what is held: by a call that has picked the backend and not begun yet. Each connection is in one of the
// three at any time, for a while in two of them (it began while the kernel was being asked; its attempt has
// failed), until the next look at the latest. So there are never more than are counted.
//
// Any thread; but one alone looks.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace shunt::net {

class PlaceCount {
 public:
  // That a backend may have: what each of the three has room for.
  static constexpr uint32_t kMost = 1'000'000;

  // Holds one of `most` places. False: there is none.
  bool Hold(uint32_t most) {
    uint64_t word = word_.load(std::memory_order_relaxed);
    do {
      if (TakenIn(word) >= most) return false;
    } while (!word_.compare_exchange_weak(word, word + kOneHeld, std::memory_order_acq_rel));
    return true;
  }
  // What was held: nothing has become of it; or its connection has begun, as the kernel knows by now.
  void GiveBack() { word_.fetch_sub(kOneHeld, std::memory_order_acq_rel); }
  void Begin() { word_.fetch_add(kOneBegun - kOneHeld, std::memory_order_acq_rel); }

  bool IsFull(uint32_t most) const { return taken() >= most; }
  // At least kMost before anybody has looked.
  uint32_t taken() const { return TakenIn(word_.load(std::memory_order_relaxed)); }
  uint32_t held() const { return Part(word_.load(std::memory_order_acquire), 0); }

  // Before the first look there is no place.
  void Forget() { Put(kMost, BeginLook()); }
  // The kernel is about to be asked. What this gives is for EndLook().
  uint32_t BeginLook() const { return Part(word_.load(std::memory_order_acquire), 1); }
  // It has said that so many are open.
  void EndLook(uint32_t open, uint32_t begun_before) { Put(std::min(open, kMost), begun_before); }

 private:
  static constexpr int kBits = 21;
  static constexpr uint64_t kOneHeld = 1;
  static constexpr uint64_t kOneBegun = uint64_t{1} << kBits;

  // 0: held, 1: begun, 2: open.
  static uint32_t Part(uint64_t word, int which) {
    return static_cast<uint32_t>(word >> (which * kBits)) & ((1u << kBits) - 1);
  }
  static uint32_t TakenIn(uint64_t word) { return Part(word, 0) + Part(word, 1) + Part(word, 2); }

  void Put(uint32_t open, uint32_t no_longer_begun) {
    uint64_t word = word_.load(std::memory_order_relaxed);
    uint64_t after = 0;
    do {
      after = Part(word, 0) + (Part(word, 1) - no_longer_begun) * kOneBegun + (uint64_t{open} << (2 * kBits));
    } while (!word_.compare_exchange_weak(word, after, std::memory_order_acq_rel));
  }

  std::atomic<uint64_t> word_{uint64_t{kMost} << (2 * kBits)};
};

}  // namespace shunt::net
