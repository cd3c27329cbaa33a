// SPDX-License-Identifier: Apache-2.0
// Slots: the fixed memory of a reactor's waiting calls. Taking and giving a slot is a few instructions; when
// they are gone they are gone, and the caller has a defined answer for that.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/check.h"
#include "core/limits.h"

namespace shunt {

class Slots {
 public:
  Slots() : memory_(std::make_unique<Slot[]>(limits::kTaskSlots)) {
    for (size_t i = 0; i < limits::kTaskSlots; ++i) {
      memory_[i].next = free_;
      free_ = &memory_[i];
    }
  }

  // `held` counts the slots of one container; nullptr if that many or all slots are taken.
  void* Take(size_t bytes, uint32_t& held) {
    SHUNT_CHECK(bytes <= sizeof(Slot::bytes));
    if (free_ == nullptr || held >= limits::kTaskSlotsPerListener) return nullptr;
    Slot* const slot = free_;
    free_ = slot->next;
    slot->held = &held;
    ++held;
    return slot->bytes;
  }

  // `bytes` is what Take returned.
  void Give(void* bytes) {
    Slot* const slot = reinterpret_cast<Slot*>(static_cast<std::byte*>(bytes) - offsetof(Slot, bytes));
    --*slot->held;
    slot->next = free_;
    free_ = slot;
  }

 private:
  struct Slot {
    Slot* next = nullptr;
    uint32_t* held = nullptr;
    alignas(std::max_align_t) std::byte bytes[limits::kTaskSlotBytes];
  };

  std::unique_ptr<Slot[]> memory_;
  Slot* free_ = nullptr;
};

}  // namespace shunt
