// SPDX-License-Identifier: Apache-2.0
// What the engine has counted, in one line for people and tests.

#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "core/counters.h"
#include "handlers/accelerator.h"

namespace shunt {

// "counters: received 3, answered 2, continued 1, accelerated 2": those of core/counters.h that are not zero,
// in their order; "counters: none" if nothing has happened.
std::string CounterLine(const Accelerator& accelerator);

using CounterValues = std::array<uint64_t, kCounterCount>;
std::string CounterLine(const CounterValues& values);
// Adds what the engine that wrote this journal has counted, and those before it.
void AddJournal(int journal_fd, CounterValues& sum);

}  // namespace shunt
