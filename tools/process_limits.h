// SPDX-License-Identifier: Apache-2.0
// What a process that holds descriptors for containers asks of the system.

#pragma once

#include <sys/resource.h>

namespace shunt {

// Containers bring descriptors: take all that we may.
inline void RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace shunt
