// SPDX-License-Identifier: Apache-2.0
// ConnectNow: connect(2) on a socket that a container has, too.
//
// O_NONBLOCK is no promise there: the program may clear it at any moment, by any of its copies, and another
// of its threads may have begun a connection that the kernel then waits for. So the wait is bounded like
// those for targets (core/patience.h): it ends after a millisecond and is charged. Hot path: no allocation.

#pragma once

#include <sys/socket.h>

#include "net/sock_addr.h"

namespace shunt::net {

// 0 or errno. EINPROGRESS: the connection is being made, also where the kernel would have waited for it.
int ConnectNow(int socket_fd, const sockaddr* address, socklen_t size);
int ConnectNow(int socket_fd, const SockAddr& address);

}  // namespace shunt::net
