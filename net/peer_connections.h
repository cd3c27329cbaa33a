// SPDX-License-Identifier: Apache-2.0
// Ends connections to backends, whoever in a container holds them.
//
// shutdown(2) on a copy of the descriptor does it without any privilege over the network, in whichever
// network the socket lives: the program reads the end of the stream, and its next write fails with EPIPE.

#pragma once

#include <cstdint>

#include "absl/container/flat_hash_set.h"
#include "core/result.h"
#include "net/sock_addr.h"

namespace shunt::net {

// To whom a socket is connected; ENOTCONN and the like: to nobody.
Result<SockAddr> PeerAddressOf(int socket_fd);

// Shuts a TCP socket down if it is connected to any of `peers` (BackendIdentity() of each). True: it was.
bool ShutDownIfConnectedTo(const absl::flat_hash_set<uint64_t>& peers, int socket_fd);

}  // namespace shunt::net
