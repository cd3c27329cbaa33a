// SPDX-License-Identifier: Apache-2.0
// Instructions: how many each of some threads has executed, where the machine has counters for it.

#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>

namespace shunt::bench {

class Instructions {
 public:
  Instructions() = default;
  ~Instructions();
  Instructions(const Instructions&) = delete;
  Instructions& operator=(const Instructions&) = delete;

  // Counts for this thread from now on. Returns "" or why it cannot: virtual machines mostly have no
  // counters, and Debian leaves them to root (kernel.perf_event_paranoid).
  std::string Watch(pid_t tid);
  // Since Watch(), the kernel's with the thread's own.
  std::map<pid_t, uint64_t> Read() const;

 private:
  std::map<pid_t, int> counters_;
};

}  // namespace shunt::bench
