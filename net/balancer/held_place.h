// SPDX-License-Identifier: Apache-2.0
// HeldPlace: a place at a backend (net/balancer/place_count.h) that a call holds from its pick on until its
// connection has begun, or nothing comes of it. Goes with the call by value, along all ways that it may take:
// the last copy gives back what has not begun. So none is lost.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "core/limits.h"
#include "net/balancer/place_count.h"

namespace shunt::net {

// Of one reactor. Its thread only.
class HeldPlaces {
 public:
  HeldPlaces() {
    for (Entry& entry : entries_) {
      entry.next = free_;
      free_ = &entry;
    }
  }
  HeldPlaces(const HeldPlaces&) = delete;
  HeldPlaces& operator=(const HeldPlaces&) = delete;

 private:
  friend class HeldPlace;
  struct Entry {
    PlaceCount* place = nullptr;  // null: its connection has begun
    uint32_t copies = 0;
    Entry* next = nullptr;
  };
  // A call holds two for a moment: of the attempt that has failed, and of the next one.
  std::array<Entry, 2 * (limits::kTaskSlots + 1)> entries_{};
  Entry* free_ = nullptr;
};

class HeldPlace {
 public:
  HeldPlace() = default;
  // Holds one of the `most` places, if there is one.
  HeldPlace(HeldPlaces& all, PlaceCount& place, uint32_t most) {
    if (all.free_ == nullptr || !place.Hold(most)) return;
    all_ = &all;
    entry_ = std::exchange(all.free_, all.free_->next);
    entry_->place = &place;
    entry_->copies = 1;
  }
  HeldPlace(const HeldPlace& other) : all_(other.all_), entry_(other.entry_) {
    if (entry_ != nullptr) ++entry_->copies;
  }
  HeldPlace(HeldPlace&& other) noexcept : all_(other.all_), entry_(std::exchange(other.entry_, nullptr)) {}
  HeldPlace& operator=(HeldPlace other) noexcept {
    std::swap(all_, other.all_);
    std::swap(entry_, other.entry_);
    return *this;
  }
  ~HeldPlace() {
    if (entry_ == nullptr || --entry_->copies != 0) return;
    if (entry_->place != nullptr) entry_->place->GiveBack();
    entry_->next = std::exchange(all_->free_, entry_);
  }

  bool valid() const { return entry_ != nullptr; }
  // The kernel has the connection, or the attempt.
  void Begin() const {
    if (entry_ == nullptr) return;
    if (PlaceCount* const place = std::exchange(entry_->place, nullptr)) place->Begin();
  }

 private:
  HeldPlaces* all_ = nullptr;
  HeldPlaces::Entry* entry_ = nullptr;
};

}  // namespace shunt::net
