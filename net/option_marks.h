// SPDX-License-Identifier: Apache-2.0
// OptionMarks: on which sockets a rare option was set, named by SO_COOKIE. Fixed size, and nothing to take
// out again.
//
// Two Bloom filters, of which the older is dropped when the newer has taken its share. A socket that was
// never marked may look marked (about 1 in 100 when full), which costs some microseconds; a marked one is
// forgotten only after two thousand others have been marked since. Any of a
// container's reactors may mark and ask at the same time: what one has marked before it answered its call,
// the other sees.

#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace shunt::net {

class OptionMarks {
 public:
  void Mark(uint64_t cookie) {
    // Whoever makes the filter full turns it over. The bits are in one of the two at every moment.
    if (marked_.fetch_add(1, std::memory_order_relaxed) % kMarksPerFilter == kMarksPerFilter - 1) TurnOver();
    Set(newer_, First(cookie));
    Set(newer_, Second(cookie));
    ever_.store(true, std::memory_order_release);
  }

  bool empty() const { return !ever_.load(std::memory_order_acquire); }

  bool MayHave(uint64_t cookie) const {
    return (Test(newer_, First(cookie)) && Test(newer_, Second(cookie))) ||
           (Test(older_, First(cookie)) && Test(older_, Second(cookie)));
  }

 private:
  static constexpr size_t kBits = 16384;
  static constexpr uint32_t kMarksPerFilter = 1024;
  using Filter = std::array<std::atomic<uint64_t>, kBits / 64>;

  // Cookies count up, so they are spread first.
  static uint64_t Spread(uint64_t cookie) {
    cookie *= 0x9e3779b97f4a7c15u;
    return cookie ^ (cookie >> 29);
  }
  static size_t First(uint64_t cookie) { return Spread(cookie) % kBits; }
  static size_t Second(uint64_t cookie) { return (Spread(cookie) >> 32) % kBits; }
  static void Set(Filter& filter, size_t bit) {
    filter[bit / 64].fetch_or(uint64_t{1} << (bit % 64), std::memory_order_release);
  }
  static bool Test(const Filter& filter, size_t bit) {
    return (filter[bit / 64].load(std::memory_order_acquire) >> (bit % 64) & 1) != 0;
  }

  void TurnOver() {
    for (size_t i = 0; i < newer_.size(); ++i) {
      const uint64_t bits = newer_[i].load(std::memory_order_acquire);
      older_[i].store(bits, std::memory_order_release);
      newer_[i].fetch_and(~bits, std::memory_order_release);
    }
  }

  Filter newer_{};
  Filter older_{};
  std::atomic<uint32_t> marked_{0};
  std::atomic<bool> ever_{false};
};

}  // namespace shunt::net
