// SPDX-License-Identifier: Apache-2.0
// sendto(2), sendmsg(2), sendmmsg(2) with MSG_FASTOPEN: a send that connects.
//
// It takes the ordinary path: an unconnected twin goes home first. (On a twin the lock would hold anyway.)

#include <netinet/tcp.h>

#include "handlers/container.h"
#include "handlers/handlers.h"
#include "handlers/homecoming.h"
#include "handlers/socket_call.h"

namespace shunt {
namespace {

Reply SendAndConnect(Call& call) {
  if (!ContainerOf(call).has_twins) return Reply::Continue();
  const int number = call.int_arg(0);
  std::optional<TargetSocket> socket = TakeSocket(call, number);
  if (!socket || socket->home != Home::kHost || socket->facts.tcp_state != TCP_CLOSE || !call.StillValid()) {
    return Reply::Continue();
  }
  return GoHome(call, number, std::move(*socket));
}

}  // namespace

Reply SendTo(Call& call) {
  return SendAndConnect(call);
}
Reply SendMsg(Call& call) {
  return SendAndConnect(call);
}
Reply SendMmsg(Call& call) {
  return SendAndConnect(call);
}

}  // namespace shunt
