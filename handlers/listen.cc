// SPDX-License-Identifier: Apache-2.0
// listen(2): a twin may listen on its container's published ports and nowhere else.
//
// An unconnected twin whose program wants a listener goes home first. Once a container has twins, its listens
// are carried out on our duplicate of the socket, never by CONTINUE: another thread could put a twin under
// the descriptor in between. The program lock would hold even so (a listener elsewhere is deaf), but a device
// lock would not; and a twin can also come by a message from a process that is served by another listener. So
// with a device lock this is done from the beginning, and with the program lock such a twin does not get to
// listen either: a deaf listener in a SO_REUSEPORT group of others would swallow a share of their clients.

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>

#include "handlers/container.h"
#include "handlers/handlers.h"
#include "handlers/homecoming.h"
#include "handlers/socket_call.h"
#include "handlers/swap.h"

namespace shunt {
namespace {

bool IsPublished(const Container& container, uint16_t host_port) {
  return std::any_of(container.published.begin(), container.published.end(),
                     [host_port](const PublishedPort& port) { return port.publish.host_port == host_port; });
}

}  // namespace

Reply ListenSocket(Call& call, int number, int backlog) {
  Container& container = ContainerOf(call);
  // An engine before this one may have sent it home, listening.
  if (call.record.HasSideEffect() && FindHalfSwap(call).state == HalfSwap::State::kHome)
    return Reply::Return(0);
  const NetworkView* const view = ViewOf(call);
  const bool deaf_anyway =
      view == nullptr || view->lock == nullptr || view->lock->lock.kind() == net::SocketLock::Kind::kProgram;
  if (!container.facts.has_twins && deaf_anyway) return LeaveToKernel(call, number, EACCES);
  std::optional<TargetSocket> socket = TakeSocket(call, number);
  // Not TCP. An AF_UNIX listener must be made by its own process: clients are told who it is.
  if (!socket) return LeaveToKernel(call, number, EACCES);
  if (socket->home == Home::kElsewhere || !call.StillValid()) return Reply::Continue();
  if (socket->home == Home::kHost && !IsPublished(container, socket->facts.local.port())) {
    if (socket->facts.tcp_state != TCP_CLOSE) return Reply::Fail(EINVAL);
    return GoHome(call, number, std::move(*socket), {.kind = Arrival::Kind::kListen, .backlog = backlog});
  }
  return listen(socket->fd.get(), backlog) == 0 ? Reply::Return(0) : Reply::Fail(errno);
}

Reply Listen(Call& call) {
  return ListenSocket(call, call.int_arg(0), call.int_arg(1));
}

}  // namespace shunt
