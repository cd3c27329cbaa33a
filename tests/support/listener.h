// SPDX-License-Identifier: Apache-2.0
// MakeListener: a true seccomp listener that no process is under any more, for tests that pass listeners
// around.

#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <thread>

#include "core/fd.h"

namespace shunt {

// A thread puts itself, and nobody else, under a filter that allows everything, and ends: threads share
// descriptors, so the listener stays. Returns an invalid Fd if the kernel refuses.
inline Fd MakeListener() {
  int listener = -1;
  std::thread([&listener] {
    sock_filter allow{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
    const sock_fprog program{1, &allow};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    listener = static_cast<int>(
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program));
  }).join();
  return Fd(listener);
}

}  // namespace shunt
