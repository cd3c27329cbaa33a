// SPDX-License-Identifier: Apache-2.0
// Tracer: counts the system calls of another process, thread by thread, with ptrace(2).
//
// Who is traced is slowed down many times over, so nothing else is measured meanwhile. Needs what ptrace
// needs: a process of the same user without more capabilities, or root. For a program with one thread, whose
// other children end with it.

#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <set>
#include <string>

namespace shunt::bench {

class Tracer {
 public:
  using Calls = std::map<int, uint64_t>;  // number of the system call -> how often

  // Blocks SIGCHLD for this process: whoever it starts later has to unblock it.
  Tracer();
  ~Tracer();
  Tracer(const Tracer&) = delete;
  Tracer& operator=(const Tracer&) = delete;

  // Begins with all threads that `process` has, and those that they will make. Returns "" or why not.
  std::string Seize(pid_t process);

  // Counts until `fd` becomes readable or nobody is left who is traced. Until the next call, or the end of
  // this program, the threads stop at their next system call.
  void CountUntilReadable(int fd);

  const std::map<pid_t, Calls>& calls() const { return calls_; }
  void Clear() { calls_.clear(); }

 private:
  void HandleStops();
  void Continue(pid_t tid, int status);

  int child_events_ = -1;  // a signalfd
  std::set<pid_t> traced_;
  std::map<pid_t, Calls> calls_;
};

}  // namespace shunt::bench
