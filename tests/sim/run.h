// SPDX-License-Identifier: Apache-2.0
// One run: the real engine serves simulated containers by the schedule of one seed, and what must hold at the
// end is checked. Ends the program with a report if it does not.

#pragma once

#include <array>
#include <cstdint>

#include "core/counters.h"
#include "tests/sim/world.h"

namespace shunt::sim {

struct RunResult {
  uint64_t steps = 0;
  uint64_t calls = 0;                              // trapped calls that the containers made
  std::array<uint64_t, kCounterCount> counters{};  // the engine's
};

RunResult RunSeed(const WorldOptions& options);

}  // namespace shunt::sim
