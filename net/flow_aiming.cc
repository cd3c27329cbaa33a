// SPDX-License-Identifier: Apache-2.0
#include "net/flow_aiming.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>

#include "net/balancer/pick_table.h"
#include "net/held_descriptors.h"
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

Result<FlowsAimed> AimAnew(pid_t pid, int64_t until, uint64_t netns, AimedFlows& flows, uint64_t service,
                           absl::FunctionRef<bool(const AimedFlows::Flow&)> leaves, NewAim new_aim) {
  FlowsAimed result;
  // Of the sockets that wait for another backend to come: their notes are still needed.
  std::array<bool, AimedFlows::kPlaces> waits{};
  const auto aim = [&](const Fd& copy) {
    const uint64_t cookie = CookieOfDatagrams(copy.get());
    std::optional<AimedFlows::Flow> flow = cookie == 0 ? std::nullopt : flows.Find(service, cookie);
    if (!flow || !leaves(*flow)) return;
    if (netns != 0 && NetnsCookie(copy.get()) != Result<uint64_t>(netns)) return;
    const Result<SockAddr> peer = PeerAddressOf(copy.get());
    if (!peer || BackendIdentity(*peer) != flow->backend) return;
    const std::optional<SockAddr> to = new_aim(*flow, *peer);
    if (!to) {
      waits[cookie % AimedFlows::kPlaces] = true;
    } else if (connect(copy.get(), to->data(), to->size()) == 0) {
      flow->backend = BackendIdentity(*to);
      flows.Note(*flow);
      ++result.moved;
    } else {
      ++result.failed;
    }
  };
  const Result<bool> whole = ForEachSocketWith(pid, until, aim);
  if (!whole) return tl::unexpected(whole.error());
  flows.ForEach(service, [&](const AimedFlows::Flow& flow) {
    if (!leaves(flow) || waits[flow.cookie % AimedFlows::kPlaces]) return true;
    if (*whole) {
      flows.Forget(flow.cookie);
    } else {
      ++result.failed;
    }
    return true;
  });
  return result;
}

}  // namespace shunt::net
