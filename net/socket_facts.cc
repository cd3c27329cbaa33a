// SPDX-License-Identifier: Apache-2.0
#include "net/socket_facts.h"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include "net/connect_now.h"
#include "net/netns.h"

namespace shunt::net {

Result<SockAddr> LocalAddress(int socket_fd) {
  sockaddr_storage local;
  socklen_t size = sizeof(local);
  if (getsockname(socket_fd, reinterpret_cast<sockaddr*>(&local), &size) != 0) return FailErrno();
  if (local.ss_family != AF_INET && local.ss_family != AF_INET6) return Fail(EPROTONOSUPPORT);
  return SockAddr::Parse({reinterpret_cast<const std::byte*>(&local), size});
}

Result<SocketFacts> ReadFacts(int socket_fd) {
  SocketFacts facts;
  const Result<SockAddr> local = LocalAddress(socket_fd);
  if (!local) return tl::unexpected(local.error());
  facts.family = local->family();
  facts.local = *local;

  int protocol = 0;
  socklen_t size = sizeof(protocol);
  if (getsockopt(socket_fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) != 0) return FailErrno();
  if (protocol != IPPROTO_TCP) return Fail(EPROTONOSUPPORT);

  const Result<uint64_t> netns = NetnsCookie(socket_fd);
  if (!netns) return tl::unexpected(netns.error());
  facts.netns = *netns;

  facts.tcp_state = TCP_CLOSE;
  if (facts.local.port() != 0) {
    // The state is the first byte of tcp_info, and the kernel copies out no more than it is asked for.
    uint8_t state = 0;
    size = sizeof(state);
    if (getsockopt(socket_fd, IPPROTO_TCP, TCP_INFO, &state, &size) != 0) return FailErrno();
    facts.tcp_state = state;
  }
  return facts;
}

int TakePendingConnectError(int socket_fd, int family) {
  // A connect to a multicast address does nothing but fail with ENETUNREACH, before it looks for a port;
  // unless an error is due, which comes first. tests/facts pins both.
  const SockAddr nowhere = family == AF_INET ? SockAddr(IpAddress(0, 0xffffe0000001), 9)
                                             : SockAddr(IpAddress(0xff02000000000000, 1), 9);
  const int error = ConnectNow(socket_fd, nowhere);
  return error == ENETUNREACH || error == EINVAL ? 0 : error;
}

}  // namespace shunt::net
