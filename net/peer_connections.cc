// SPDX-License-Identifier: Apache-2.0
#include "net/peer_connections.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "net/held_descriptors.h"

namespace shunt::net {
namespace {

bool ShutDown(int socket_fd, const SockAddr& peer) {
  int protocol = 0;
  socklen_t size = sizeof(protocol);
  if (getsockopt(socket_fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) != 0 || protocol != IPPROTO_TCP)
    return false;
  const Result<SockAddr> found = PeerAddressOf(socket_fd);
  return found && found->ip() == peer.ip() && found->port() == peer.port() &&
         shutdown(socket_fd, SHUT_RDWR) == 0;
}

}  // namespace

Result<SockAddr> PeerAddressOf(int socket_fd) {
  sockaddr_storage name{};
  socklen_t size = sizeof(name);
  if (getpeername(socket_fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) return FailErrno();
  return SockAddr::Parse({reinterpret_cast<const std::byte*>(&name), size});
}

Result<size_t> ShutDownConnections(pid_t pid, const SockAddr& peer) {
  size_t count = 0;
  const Result<void> walked = ForEachSocketWith(pid, [&](const Fd& copy) {
    if (ShutDown(copy.get(), peer)) ++count;
  });
  if (!walked) return tl::unexpected(walked.error());
  return count;
}

}  // namespace shunt::net
