// SPDX-License-Identifier: Apache-2.0
// HeapCounts: how often each thread of a program has called the heap, in a file that others map as well.
//
// bench/heap_counts.cc is a library to be preloaded (LD_PRELOAD) into a program as it is shipped; a process
// that finds the file's path in its environment counts there. Written by one thread for each slot, read by
// anybody.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace shunt::bench {

inline constexpr char kHeapCountsVariable[] = "SHUNT_BENCH_HEAP_COUNTS";

struct HeapCounts {
  static constexpr size_t kSlots = 1024;  // of all threads of all processes; those beyond are not counted
  struct Slot {
    std::atomic<int32_t> tid;
    std::atomic<uint64_t> calls;  // malloc and its kin, and free
  };
  std::atomic<uint32_t> used;  // may be more than kSlots
  Slot slots[kSlots];
};

}  // namespace shunt::bench
