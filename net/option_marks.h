// SPDX-License-Identifier: Apache-2.0
// OptionMarks: on which sockets a rare option was set, named by SO_COOKIE. Fixed size, and nothing to take
// out again.
//
// Two Bloom filters, of which the older is dropped when the newer has taken its share. A socket that was
// never marked may look marked (about 1 in 100 when full), which costs some microseconds; a marked one is
// forgotten only after two thousand others have been marked since. One reactor's thread only.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace shunt::net {

class OptionMarks {
 public:
  void Mark(uint64_t cookie) {
    if (marked_ >= kMarksPerFilter) {
      older_ = newer_;
      newer_ = {};
      marked_ = 0;
    }
    Set(newer_, First(cookie));
    Set(newer_, Second(cookie));
    ++marked_;
  }

  bool empty() const { return marked_ == 0; }

  bool MayHave(uint64_t cookie) const {
    return (Test(newer_, First(cookie)) && Test(newer_, Second(cookie))) ||
           (Test(older_, First(cookie)) && Test(older_, Second(cookie)));
  }

 private:
  static constexpr size_t kBits = 16384;
  static constexpr uint32_t kMarksPerFilter = 1024;
  using Filter = std::array<uint64_t, kBits / 64>;

  // Cookies count up, so they are spread first.
  static uint64_t Spread(uint64_t cookie) {
    cookie *= 0x9e3779b97f4a7c15u;
    return cookie ^ (cookie >> 29);
  }
  static size_t First(uint64_t cookie) { return Spread(cookie) % kBits; }
  static size_t Second(uint64_t cookie) { return (Spread(cookie) >> 32) % kBits; }
  static void Set(Filter& filter, size_t bit) { filter[bit / 64] |= uint64_t{1} << (bit % 64); }
  static bool Test(const Filter& filter, size_t bit) { return (filter[bit / 64] >> (bit % 64) & 1) != 0; }

  Filter newer_{};
  Filter older_{};
  uint32_t marked_ = 0;
};

}  // namespace shunt::net
