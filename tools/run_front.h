// SPDX-License-Identifier: Apache-2.0
// The front: the process of `shunt run` that the caller's shell waits for (run_terminal.h says why it is one
// of three).

#pragma once

#include <sys/types.h>

#include "tools/run_terminal.h"

namespace shunt {

// Mirrors the command until `engine`, our child, has ended. `link_fd` leads to init. Returns the exit status
// for the shell: the command's own, or the engine's if there never was a command.
int FollowCommand(const Terminal& terminal, int link_fd, pid_t engine);

}  // namespace shunt
