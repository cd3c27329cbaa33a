// SPDX-License-Identifier: Apache-2.0
// What an OCI runtime does for a container's seccomp agent: connects to its socket, and hands a listener
// over.

#pragma once

#include <sys/types.h>

#include <string>

namespace shunt::bench {

// A connection to the agent at this path. -1: errno says why not.
int ConnectToAgent(const char* path);

// Sends the listener of the container `id`, whose first process is `pid`, as runc 1.1 does: one message with
// a ContainerProcessState and the descriptor. `metadata` must not have to be escaped in JSON. False: errno
// says why not.
bool HandOver(int connection, const std::string& id, pid_t pid, const std::string& metadata, int listener);

}  // namespace shunt::bench
