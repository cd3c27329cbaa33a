// SPDX-License-Identifier: Apache-2.0
#include "tools/engine_process.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>

namespace shunt {

void EngineProcess::Kill(Clock::time_point now) {
  if (killed) return;
  killed = true;
  killed_at = now;
  syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);
}

}  // namespace shunt
