// SPDX-License-Identifier: Apache-2.0
// Network namespaces: which one a socket lives in, and how we get sockets that live in somebody else's.
//
// A namespace is recognised by the cookie that the kernel gives each of its sockets: read from the socket
// itself, so that nothing has to be remembered about processes and numbers.

#pragma once

#include <sys/types.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "core/fd.h"
#include "core/result.h"
#include "net/spare_sockets.h"

namespace shunt::net {

// SO_NETNS_COOKIE (Linux 5.14): the network namespace that the socket was made in. Hot path.
Result<uint64_t> NetnsCookie(int socket_fd);

// The cookie of the namespace that this process is in.
absl::StatusOr<uint64_t> OwnNetnsCookie();

// What a short-lived child of ours brings back from a container's network namespace.
struct NetnsVisit {
  uint64_t cookie = 0;
  uint64_t owner = 0;  // inode of the user namespace that owns it; 0: one that we may not look into
  int first_unprivileged_port = 1024;  // net.ipv4.ip_unprivileged_port_start
  Fd route_monitor;                    // as net::OpenRouteMonitor(), but of that namespace
  SpareSockets tcp4;                   // unconnected TCP sockets that live there, nonblocking
  SpareSockets tcp6;                   // fewer than asked for (none) where IPv6 is off
};

// net.ipv4.ip_unprivileged_port_start of the namespace that this process is in; 1024 if it cannot be read.
int FirstUnprivilegedPort();

// Sends a child into the network namespace (and, if it takes that, the user namespace) of task `tid`, any
// thread, and waits for what it brings: a process, because a thread cannot join a user namespace.
// PermissionDenied: the task hides from us, as a runtime does before it executes the container's program.
// Control path: forks, a few hundred microseconds. At most SpareSockets::kCapacity sockets of each family.
absl::StatusOr<NetnsVisit> VisitNetns(pid_t tid, int sockets_of_each_family);

}  // namespace shunt::net
