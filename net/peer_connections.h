// SPDX-License-Identifier: Apache-2.0
// Ends connections to one peer, wherever in a container they are held.
//
// shutdown(2) on a copy of the descriptor does it without any privilege over the network, in whichever
// network the socket lives: the program reads the end of the stream, and its next write fails with EPIPE.

#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

#include "absl/container/flat_hash_set.h"
#include "core/result.h"
#include "net/sock_addr.h"

namespace shunt::net {

// To whom a socket is connected; ENOTCONN and the like: to nobody.
Result<SockAddr> PeerAddressOf(int socket_fd);

// Shuts down the TCP connections to any of `peers` (BackendIdentity() of each) that are held by processes in
// the network namespace of `pid`, in one walk through them that ends `until` then, as ForEachSocketWith()
// does. How many descriptors that were.
Result<size_t> ShutDownConnections(pid_t pid, int64_t until, const absl::flat_hash_set<uint64_t>& peers);

}  // namespace shunt::net
