// SPDX-License-Identifier: Apache-2.0
// Which CPU something runs on.

#pragma once

#include <sys/types.h>

#include <cstddef>

namespace shunt::bench {

// Keeps a process (0: the calling thread) on one CPU: that of this number, from 0, in the order of those that
// the calling thread may use. False: errno says why not; ENODEV: these are fewer.
bool PinTo(size_t index, pid_t pid);

}  // namespace shunt::bench
