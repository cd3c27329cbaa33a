// SPDX-License-Identifier: Apache-2.0
// BackendCounts: what reactors count of each backend, without sharing a cache line.
//
// Each backend has a slot number as long as it is listed; each reactor has its own block of counts for every
// slot, which it alone writes and anybody may read. Slots are made by one thread, before a table that names
// them is given to a reactor; nothing ever moves. Attempts under way and connections made, of which picks
// read two from each reactor, lie apart from the other counts: sixteen backends in a cache line.
//
// Connections that are open: reactors know which have begun, and the kernel which are there
// (net/balancer/live_counts.h). So what it said last counts, and what has begun since. Where there is a limit
// to them all reactors count in one place instead (net/balancer/place_count.h).

#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/check.h"
#include "net/balancer/place_count.h"

namespace shunt::net {

// Of one backend on one reactor. Written with relaxed stores by that reactor only.
class BackendCounts {
 public:
  std::atomic<uint64_t> picks{0};
  std::atomic<uint64_t> connected{0};   // attempts whose success was seen
  std::atomic<uint64_t> failed{0};      // attempts whose failure was seen
  std::atomic<uint64_t> connect_ns{0};  // of those that were connected, together

  static void Add(std::atomic<uint64_t>& count, uint64_t more = 1) {
    count.store(count.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
  }
  // An attempt whose end will be seen, and its end.
  void Begin() {
    in_flight_->store(in_flight_->load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
  void End() {
    in_flight_->store(in_flight_->load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
  }
  // A connection is there.
  void Opened() { opened_->store(opened_->load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); }

 private:
  friend class BackendCountBook;
  std::atomic<uint32_t>* in_flight_ = nullptr;
  std::atomic<uint32_t>* opened_ = nullptr;
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
    for (size_t i = 0; i * kChunk < slots; ++i) {
      if (watched_[i] == nullptr) watched_[i] = std::make_unique<Flags>();
      if (live_[i] == nullptr) live_[i] = std::make_unique<Live>();
      if (places_[i] == nullptr) places_[i] = std::make_unique<Places>();
      if (chunks_[i] == nullptr) chunks_[i] = std::make_unique<Block[]>(reactors_);
    }
  }

  // Whoever decides wants to hear of the backend's successes, too. Set by the thread that makes slots.
  void Watch(uint32_t slot, bool on) { Flag(slot).store(on, std::memory_order_relaxed); }
  bool IsWatched(uint32_t slot) const { return Flag(slot).load(std::memory_order_relaxed); }

  size_t reactors() const { return reactors_; }

  BackendCounts& At(size_t reactor, uint32_t slot) const {
    return chunks_[slot / kChunk][reactor].counts[slot % kChunk];
  }

  // Attempts under way on all reactors, at a glance.
  uint32_t InFlight(uint32_t slot) const {
    uint32_t sum = 0;
    const Block* const blocks = chunks_[slot / kChunk].get();
    for (size_t i = 0; i < reactors_; ++i)
      sum += blocks[i].in_flight[slot % kChunk].load(std::memory_order_relaxed);
    return sum;
  }

  // Connections that are open, as far as is known.
  uint32_t Open(uint32_t slot) const {
    const uint32_t open = OfLive(slot).offset.load(std::memory_order_relaxed) + Begun(slot);
    return static_cast<int32_t>(open) < 0 ? 0 : open;
  }
  // The thread that makes slots: so many there are now, attempts under way included.
  void SetOpen(uint32_t slot, uint32_t open) {
    OfLive(slot).offset.store(open - Begun(slot), std::memory_order_relaxed);
  }

  PlaceCount& PlacesOf(uint32_t slot) const { return (*places_[slot / kChunk])[slot % kChunk]; }

  // How far away it is, microseconds; 0: not known. Set by the thread that makes slots.
  uint32_t Rtt(uint32_t slot) const { return OfLive(slot).rtt_us.load(std::memory_order_relaxed); }
  void SetRtt(uint32_t slot, uint32_t us) { OfLive(slot).rtt_us.store(us, std::memory_order_relaxed); }

 private:
  // What reactors have begun since the beginning, by which Open() moves on; counts around.
  uint32_t Begun(uint32_t slot) const {
    uint32_t sum = 0;
    const Block* const blocks = chunks_[slot / kChunk].get();
    for (size_t i = 0; i < reactors_; ++i) {
      sum += blocks[i].in_flight[slot % kChunk].load(std::memory_order_relaxed) +
             blocks[i].opened[slot % kChunk].load(std::memory_order_relaxed);
    }
    return sum;
  }

  struct LiveOfSlot {
    std::atomic<uint32_t> offset{0};  // of Open(), to Begun()
    std::atomic<uint32_t> rtt_us{0};
  };
  using Live = std::array<LiveOfSlot, kChunk>;
  LiveOfSlot& OfLive(uint32_t slot) const { return (*live_[slot / kChunk])[slot % kChunk]; }

  // Of one reactor. The odd cache line keeps the same slot of several reactors out of the same cache set.
  struct alignas(64) Block {
    Block() {
      for (size_t i = 0; i < kChunk; ++i) {
        counts[i].in_flight_ = &in_flight[i];
        counts[i].opened_ = &opened[i];
      }
    }
    std::array<std::atomic<uint32_t>, kChunk> in_flight{}, opened{};
    std::array<BackendCounts, kChunk> counts;
    std::array<char, 64> odd_line;
  };

  using Places = std::array<PlaceCount, kChunk>;
  using Flags = std::array<std::atomic<bool>, kChunk>;
  std::atomic<bool>& Flag(uint32_t slot) const { return (*watched_[slot / kChunk])[slot % kChunk]; }

  size_t reactors_;
  std::array<std::unique_ptr<Flags>, kChunks> watched_;
  std::array<std::unique_ptr<Live>, kChunks> live_;
  std::array<std::unique_ptr<Places>, kChunks> places_;
  std::array<std::unique_ptr<Block[]>, kChunks> chunks_;
};

}  // namespace shunt::net
