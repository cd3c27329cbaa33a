// SPDX-License-Identifier: Apache-2.0
// Ends connections to one peer, wherever in a container they are held.
//
// shutdown(2) on a copy of the descriptor does it without any privilege over the network, in whichever
// network the socket lives: the program reads the end of the stream, and its next write fails with EPIPE.

#pragma once

#include <sys/types.h>

#include <cstddef>

#include "core/result.h"
#include "net/sock_addr.h"

namespace shunt::net {

// To whom a socket is connected; ENOTCONN and the like: to nobody.
Result<SockAddr> PeerAddressOf(int socket_fd);

// Shuts down the TCP connections to `peer` that are held by processes in the network namespace of `pid`, as
// far as we may look at them. How many descriptors that were. 3 us for each open descriptor of the container:
// for a thread that may take milliseconds. Does nothing in our own network, where not everything is a
// container's. ESRCH and the like: `pid` has gone.
Result<size_t> ShutDownConnections(pid_t pid, const SockAddr& peer);

}  // namespace shunt::net
