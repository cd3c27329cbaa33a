// SPDX-License-Identifier: Apache-2.0
// Notification: one trapped system call, as the kernel handed it over.

#pragma once

#include <linux/seccomp.h>
#include <sys/types.h>

#include <array>
#include <cstdint>

namespace shunt {

// The registers are the target's: pointers in `args` are addresses in *its* memory, not ours.
struct Notification {
  uint64_t id = 0;  // the kernel's name for this call, unique and rising within one listener
  // The calling thread in our pid namespace; 0: not visible from here, so never to be acted upon.
  pid_t tid = 0;
  uint32_t arch = 0;  // AUDIT_ARCH_*: must be looked at before `nr`
  int nr = 0;
  std::array<uint64_t, 6> args{};
};

}  // namespace shunt
