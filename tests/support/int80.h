// SPDX-License-Identifier: Apache-2.0
// HasInt80: whether this machine takes the system calls of 32-bit programs from a 64-bit one. Kernels can be
// made or started without; the instruction ends a program with SIGSEGV then.
//
// For programs without the C++ library, too.

#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace shunt {

// The first call forks.
inline bool HasInt80() {
#if defined(__x86_64__)
  static int known = -1;
  if (known >= 0) return known == 1;
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGSEGV, SIG_DFL);  // no sanitizer's business
    constexpr long kGetPid = 20;
    long result = kGetPid;
    asm volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
    _exit(0);
  }
  int status = -1;
  known = waitpid(child, &status, 0) == child && status == 0 ? 1 : 0;
  return known == 1;
#elif defined(__i386__)
  return true;
#else
  return false;
#endif
}

}  // namespace shunt
