// SPDX-License-Identifier: Apache-2.0
// What the files of bench_micro share: each registers its benchmarks, and all tell what they allocate.

#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>

#include "tests/net/balancer/heap_calls.h"

namespace shunt::bench {

void RegisterPicks();  // pick.cc
void RegisterSteps();  // steps.cc

// The column allocs/op: calls of operator new and delete since HeapCalls() was `before`, for each iteration.
inline void TellAllocations(benchmark::State& state, uint64_t calls) {
  state.counters["allocs/op"] = static_cast<double>(calls) / static_cast<double>(state.iterations());
}

}  // namespace shunt::bench
