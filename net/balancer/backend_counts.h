// SPDX-License-Identifier: Apache-2.0
// BackendCounts: what reactors count of each backend, without sharing a cache line.
//
// Each backend has a slot number as long as it is listed; each reactor has its own block of counts for every
// slot, which it alone writes and anybody may read. Slots are made by one thread, before a table that names
// them is given to a reactor; nothing ever moves.

#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/check.h"

namespace shunt::net {

// Of one backend on one reactor. Written with relaxed stores by that reactor only.
struct BackendCounts {
  std::atomic<uint64_t> picks{0};
  std::atomic<uint64_t> connected{0};   // attempts whose success was seen
  std::atomic<uint64_t> failed{0};      // attempts whose failure was seen
  std::atomic<uint64_t> connect_ns{0};  // of those that were connected, together
  std::atomic<uint32_t> in_flight{0};   // attempts whose end will be seen and has not been

  static void Add(std::atomic<uint64_t>& count, uint64_t more = 1) {
    count.store(count.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
  }
  void Begin() { in_flight.store(in_flight.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); }
  void End() { in_flight.store(in_flight.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed); }
};

class BackendCountBook {
 public:
  static constexpr size_t kChunk = 1024;   // slots
  static constexpr size_t kChunks = 1024;  // at most
  static constexpr uint32_t kMostSlots = kChunk * kChunks;

  explicit BackendCountBook(size_t reactors) : reactors_(reactors) {}

  // The thread that makes tables: there are at least so many slots afterwards.
  void Grow(uint32_t slots) {
    SHUNT_CHECK(slots <= kMostSlots);
    for (Shard& shard : reactors_) {
      for (size_t i = 0; i * kChunk < slots; ++i) {
        if (shard.chunks[i] == nullptr) shard.chunks[i] = std::make_unique<Chunk>();
      }
    }
  }

  size_t reactors() const { return reactors_.size(); }

  BackendCounts& At(size_t reactor, uint32_t slot) const {
    return (*reactors_[reactor].chunks[slot / kChunk])[slot % kChunk];
  }

  // Attempts under way on all reactors, at a glance.
  uint32_t InFlight(uint32_t slot) const {
    uint32_t sum = 0;
    for (size_t i = 0; i < reactors_.size(); ++i)
      sum += At(i, slot).in_flight.load(std::memory_order_relaxed);
    return sum;
  }

 private:
  using Chunk = std::array<BackendCounts, kChunk>;
  struct Shard {
    std::array<std::unique_ptr<Chunk>, kChunks> chunks;
  };
  std::vector<Shard> reactors_;
};

}  // namespace shunt::net
