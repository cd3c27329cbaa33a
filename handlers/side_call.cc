// SPDX-License-Identifier: Apache-2.0
#include "handlers/side_call.h"

#include "core/check.h"

namespace shunt {

bool OnSide::await_suspend(std::coroutine_handle<> waiter) {
  waiter_ = waiter;
  if (lane_.occupied) {
    (lane_.last == nullptr ? lane_.first : lane_.last->behind_) = this;
    lane_.last = this;
    return accepted_ = true;
  }
  return accepted_ = lane_.occupied = side_.Submit(this);
}

void OnSide::Finish() {
  OnSide* const next = lane_.first;
  lane_.occupied = next != nullptr;
  if (next != nullptr) {
    lane_.first = next->behind_;
    if (lane_.first == nullptr) lane_.last = nullptr;
    SHUNT_CHECK(side_.Submit(next));  // in the place that this one had
  }
  waiter_.resume();
}

}  // namespace shunt
