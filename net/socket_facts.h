// SPDX-License-Identifier: Apache-2.0
// SocketFacts: what a socket itself says of itself, read through our duplicate of its descriptor.
//
// Nothing about a socket is remembered between calls; it is asked again each time, which costs three or four
// getsockopts and can neither leak nor go stale. Hot path: no allocation.

#pragma once

#include <netinet/in.h>

#include <cstdint>

#include "core/result.h"
#include "net/sock_addr.h"

namespace shunt::net {

struct SocketFacts {
  int family = 0;      // AF_INET or AF_INET6
  uint64_t netns = 0;  // the cookie of its network namespace
  SockAddr local;      // port 0: never bound, so neither connecting nor connected nor listening
  int tcp_state = 0;   // TCP_CLOSE, TCP_SYN_SENT ... as in <netinet/tcp.h>
};

// ENOTSOCK: no socket. EPROTONOSUPPORT: anything but plain TCP over IPv4 or IPv6, which is not for us.
Result<SocketFacts> ReadFacts(int socket_fd);

// What the socket is bound to. EPROTONOSUPPORT: neither IPv4 nor IPv6.
Result<SockAddr> LocalAddress(int socket_fd);

// An unconnected socket may still owe its program an error from an earlier nonblocking connect: the next
// connect(2) returns that (or ECONNABORTED) and does nothing else. Takes that error out and returns it; 0 if
// there is none.
int TakePendingConnectError(int socket_fd, int family);

}  // namespace shunt::net
