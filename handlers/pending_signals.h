// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

namespace shunt {

// True if the thread's call keeps a signal from being delivered: where its filter has WAIT_KILLABLE_RECV, the
// kernel does so until we have answered, and a connect that waits would never be interrupted. False if the
// signal is just about to call the thread away: that is the kernel's business, for with SA_RESTART there is
// no EINTR. False if there is no such thread. Any thread; no heap.
bool SignalKeptBack(pid_t tid);

}  // namespace shunt
