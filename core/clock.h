// SPDX-License-Identifier: Apache-2.0
// Points in time as nanoseconds of one of the kernel's clocks, which are the same for all processes of the
// machine: what an engine notes holds for the next one.

#pragma once

#include <cstdint>
#include <ctime>

namespace shunt {

// No system call, for the clocks that the vDSO has.
inline int64_t NowOn(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// What everything is timed by that does not outlive a boot.
inline int64_t MonotonicNow() {
  return NowOn(CLOCK_MONOTONIC);
}

}  // namespace shunt
