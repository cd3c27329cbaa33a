// SPDX-License-Identifier: Apache-2.0
#include "net/flow_aiming.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "net/balancer/pick_table.h"
#include "net/netns.h"
#include "net/peer_connections.h"

namespace shunt::net {
namespace {

// 0: it is no UDP socket.
uint64_t CookieOfDatagrams(int socket_fd) {
  int protocol = 0;
  socklen_t size = sizeof(protocol);
  uint64_t cookie = 0;
  if (getsockopt(socket_fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) != 0 || protocol != IPPROTO_UDP)
    return 0;
  size = sizeof(cookie);
  return getsockopt(socket_fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

}  // namespace

void FlowAiming::See(int socket_fd, Leaves leaves, NewAim new_aim) {
  const uint64_t cookie = CookieOfDatagrams(socket_fd);
  std::optional<AimedFlows::Flow> flow = cookie == 0 ? std::nullopt : flows_.Find(cookie);
  if (!flow || !leaves(*flow)) return;
  if (netns_ != 0 && NetnsCookie(socket_fd) != Result<uint64_t>(netns_)) return;
  const Result<SockAddr> peer = PeerAddressOf(socket_fd);
  if (!peer || BackendIdentity(*peer) != flow->backend) return;
  const std::optional<SockAddr> to = new_aim(*flow, *peer);
  if (!to) {
    wait_.insert(cookie);
  } else if (connect(socket_fd, to->data(), to->size()) == 0) {
    flow->backend = BackendIdentity(*to);
    flows_.Note(*flow);
    ++moved_;
  } else {
    ++failed_;
  }
}

void FlowAiming::End(bool whole, Leaves leaves) {
  flows_.ForEach([&](const AimedFlows::Flow& flow) {
    if (!leaves(flow) || wait_.contains(flow.cookie)) return true;
    if (whole) {
      flows_.Forget(flow.cookie);
    } else {
      ++failed_;
    }
    return true;
  });
}

}  // namespace shunt::net
