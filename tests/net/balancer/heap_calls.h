// SPDX-License-Identifier: Apache-2.0
// HeapCalls: how often this thread has called operator new and operator delete, in programs that are linked
// with heap_calls.cc.

#pragma once

#include <cstdint>

namespace shunt {

uint64_t HeapCalls();

}  // namespace shunt
