// SPDX-License-Identifier: Apache-2.0
// What the engine has counted, in one line for people and tests.

#pragma once

#include <string>

#include "handlers/accelerator.h"

namespace shunt {

// "counters: received 3, answered 2, continued 1, accelerated 2": those of core/counters.h that are not zero,
// in their order; "counters: none" if nothing has happened.
std::string CounterLine(const Accelerator& accelerator);

}  // namespace shunt
