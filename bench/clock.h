// SPDX-License-Identifier: Apache-2.0
// The clock of the measuring programs, and what looking at it costs.

#pragma once

#include <time.h>

#include <cstdint>

namespace shunt::bench {

// Monotonic time in nanoseconds.
inline int64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// What a program that times single operations measures when the operation is nothing at all: the median of
// many pairs of Now(), in nanoseconds. Part of every figure beside which it is printed; nobody subtracts it.
int64_t ClockOverhead();

}  // namespace shunt::bench
