// SPDX-License-Identifier: Apache-2.0
// PeerNames: what getpeername(2) shall show of sockets that are connected to somebody else, by SO_COOKIE.
//
// Fixed size, nothing to take out again: a socket is forgotten when one of a later cookie needs its place,
// and the kernel's answer is given then. Cookies are never given twice, so what is found is right. Any of a
// container's reactors may note and ask at the same time.

#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>

#include "net/sock_addr.h"

namespace shunt::net {

class PeerNames {
 public:
  static constexpr size_t kPlaces = 2048;

  bool empty() const { return !ever_.load(std::memory_order_acquire); }

  void Note(uint64_t cookie, const SockAddr& name) {
    Place& place = places_[cookie % kPlaces];
    place.cookie.store(0, std::memory_order_seq_cst);
    std::array<uint64_t, kWords> words{};
    std::memcpy(words.data(), &name, sizeof(name));
    for (size_t i = 0; i < kWords; ++i) place.words[i].store(words[i], std::memory_order_seq_cst);
    place.cookie.store(cookie, std::memory_order_seq_cst);
    ever_.store(true, std::memory_order_release);
  }

  std::optional<SockAddr> Find(uint64_t cookie) const {
    const Place& place = places_[cookie % kPlaces];
    if (place.cookie.load(std::memory_order_seq_cst) != cookie) return {};
    std::array<uint64_t, kWords> words;
    for (size_t i = 0; i < kWords; ++i) words[i] = place.words[i].load(std::memory_order_seq_cst);
    if (place.cookie.load(std::memory_order_seq_cst) != cookie) return {};
    SockAddr name;
    std::memcpy(static_cast<void*>(&name), words.data(), sizeof(name));
    return name;
  }

 private:
  static constexpr size_t kWords = sizeof(SockAddr) / sizeof(uint64_t);
  struct Place {
    std::atomic<uint64_t> cookie{0};
    std::array<std::atomic<uint64_t>, kWords> words{};
  };
  std::atomic<bool> ever_{false};
  std::array<Place, kPlaces> places_{};
};

}  // namespace shunt::net
