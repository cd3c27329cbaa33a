// SPDX-License-Identifier: Apache-2.0
// Instructions: see instructions.h.

#include "bench/instructions.h"

#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace shunt::bench {

Instructions::~Instructions() {
  for (const auto& [tid, counter] : counters_) close(counter);
}

std::string Instructions::Watch(pid_t tid) {
  perf_event_attr attributes{};
  attributes.type = PERF_TYPE_HARDWARE;
  attributes.size = sizeof attributes;
  attributes.config = PERF_COUNT_HW_INSTRUCTIONS;
  attributes.exclude_hv = 1;
  const long counter = syscall(SYS_perf_event_open, &attributes, tid, -1, -1, PERF_FLAG_FD_CLOEXEC);
  if (counter < 0) return std::string("perf_event_open: ").append(std::strerror(errno));
  counters_[tid] = static_cast<int>(counter);
  return "";
}

std::map<pid_t, uint64_t> Instructions::Read() const {
  std::map<pid_t, uint64_t> counts;
  for (const auto& [tid, counter] : counters_) {
    uint64_t count = 0;
    if (read(counter, &count, sizeof count) == sizeof count) counts[tid] = count;
  }
  return counts;
}

}  // namespace shunt::bench
