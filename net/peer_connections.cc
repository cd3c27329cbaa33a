// SPDX-License-Identifier: Apache-2.0
#include "net/peer_connections.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "net/balancer/pick_table.h"

namespace shunt::net {
Result<SockAddr> PeerAddressOf(int socket_fd) {
  sockaddr_storage name{};
  socklen_t size = sizeof(name);
  if (getpeername(socket_fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) return FailErrno();
  return SockAddr::Parse({reinterpret_cast<const std::byte*>(&name), size});
}

bool ShutDownIfConnectedTo(const absl::flat_hash_set<uint64_t>& peers, int socket_fd) {
  int protocol = 0;
  socklen_t size = sizeof(protocol);
  if (getsockopt(socket_fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) != 0 || protocol != IPPROTO_TCP)
    return false;
  const Result<SockAddr> peer = PeerAddressOf(socket_fd);
  return peer && peers.contains(BackendIdentity(*peer)) && shutdown(socket_fd, SHUT_RDWR) == 0;
}

}  // namespace shunt::net
