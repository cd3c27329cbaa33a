// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

namespace shunt {

// True if a signal waits to be delivered to the thread. Where its filter has WAIT_KILLABLE_RECV, the kernel
// keeps signals back until we have answered, and a connect that waits would never be interrupted. False if
// there is no such thread. Any thread; no heap.
bool SignalWaits(pid_t tid);

}  // namespace shunt
