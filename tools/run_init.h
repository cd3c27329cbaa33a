// SPDX-License-Identifier: Apache-2.0
// Init: pid 1 of the container that `shunt run` makes.
//
// It reaps orphans, passes signals from the front on to the command, reports when the command stops or ends,
// and ends with it, which makes the kernel end whatever else is left in the container. It never takes the
// terminal.

#pragma once

#include <sys/types.h>

#include "tools/run_terminal.h"

namespace shunt {

// Looks after `command`, our child, until it or the front has ended; then the caller has nothing left to do
// but _exit(). Closes the standard descriptors: whoever reads the command's output sees its end when the
// command closes it. FrontSignals() must have been blocked since before the command was forked.
void RunInit(const Terminal& terminal, int link_fd, pid_t command);

}  // namespace shunt
