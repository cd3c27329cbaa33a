// SPDX-License-Identifier: Apache-2.0
#include "bench/cpus.h"

#include <sched.h>

#include <cerrno>

namespace shunt::bench {

bool PinTo(size_t index, pid_t pid) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return false;
  for (size_t cpu = 0, seen = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || seen++ != index) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    return sched_setaffinity(pid, sizeof one, &one) == 0;
  }
  errno = ENODEV;
  return false;
}

}  // namespace shunt::bench
