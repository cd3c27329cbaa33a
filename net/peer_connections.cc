// SPDX-License-Identifier: Apache-2.0
#include "net/peer_connections.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "net/balancer/pick_table.h"
#include "net/held_descriptors.h"

namespace shunt::net {
namespace {

bool ShutDown(int socket_fd, const absl::flat_hash_set<uint64_t>& peers) {
  int protocol = 0;
  socklen_t size = sizeof(protocol);
  if (getsockopt(socket_fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) != 0 || protocol != IPPROTO_TCP)
    return false;
  const Result<SockAddr> peer = PeerAddressOf(socket_fd);
  return peer && peers.contains(BackendIdentity(*peer)) && shutdown(socket_fd, SHUT_RDWR) == 0;
}

}  // namespace

Result<SockAddr> PeerAddressOf(int socket_fd) {
  sockaddr_storage name{};
  socklen_t size = sizeof(name);
  if (getpeername(socket_fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) return FailErrno();
  return SockAddr::Parse({reinterpret_cast<const std::byte*>(&name), size});
}

Result<size_t> ShutDownConnections(pid_t pid, int64_t until, const absl::flat_hash_set<uint64_t>& peers) {
  size_t count = 0;
  const Result<bool> walked = ForEachSocketWith(pid, until, [&](const Fd& copy) {
    if (ShutDown(copy.get(), peers)) ++count;
  });
  if (!walked) return tl::unexpected(walked.error());
  return count;
}

}  // namespace shunt::net
