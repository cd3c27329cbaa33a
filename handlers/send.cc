// SPDX-License-Identifier: Apache-2.0
// sendto(2), sendmsg(2), sendmmsg(2) with MSG_FASTOPEN: refuses a send that connects.
//
// It fails as on a machine whose net.ipv4.tcp_fastopen is off, which programs know how to live with: a lock
// sees only what arrives, so the data in a first SYN would reach whoever a twin is aimed at. Without
// acceleration it is none of our business.

#include "handlers/container.h"
#include "handlers/handlers.h"

namespace shunt {
namespace {

Reply SendAndConnect(Call& call) {
  const NetworkView* const view = ContainerOf(call).view;
  const bool accelerated = view != nullptr && view->lock != nullptr;
  return accelerated ? Reply::Fail(EOPNOTSUPP) : Reply::Continue();
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
