// SPDX-License-Identifier: Apache-2.0
// What the kernel has written down about threads and about the machine: switches, CPU time.

#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace shunt::bench {

// One thread's, since it began. Differences between two moments are meant.
struct ThreadAccount {
  std::string name;
  uint64_t voluntary_switches = 0;    // it had nothing to do, or had to wait
  uint64_t involuntary_switches = 0;  // somebody else was to run
  uint64_t cpu_ns = 0;                // on a CPU, interrupts that came meanwhile included
};

// Of all threads of a process; empty if there is none.
std::map<pid_t, ThreadAccount> ThreadAccounts(pid_t process);

// A process that `ancestor` has made, or one that that has made (and so on), with this name; 0: none.
pid_t FindDescendant(pid_t ancestor, const std::string& name);

// Time that the CPUs of the machine were busy, whoever they worked for; in steps of a tick, 10 ms mostly.
uint64_t MachineBusyNs();

// CPU time of everybody in this process' control group; nothing where it is not accounted or not to be seen.
std::optional<uint64_t> ControlGroupNs();

}  // namespace shunt::bench
