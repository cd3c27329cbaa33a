// SPDX-License-Identifier: Apache-2.0
// getpeername(2), trapped only where the profile asks for it: shows the service that a program has connected
// to instead of the backend that it got, for services that say so.

#include <sys/socket.h>

#include "handlers/container.h"
#include "handlers/handlers.h"
#include "handlers/socket_call.h"

namespace shunt {

Reply GetPeerName(Call& call) {
  const net::PeerNames& names = ContainerOf(call).facts.peer_names;
  if (names.empty()) return Reply::Continue();
  const std::optional<Fd> socket = TakeAnySocket(call, call.int_arg(0));
  if (!socket) return Reply::Continue();
  const std::optional<net::SockAddr> name = names.Find(CookieOf(socket->get()));
  sockaddr_storage real{};
  socklen_t size = sizeof(real);
  // Not connected (yet, or any more): the kernel's own error.
  if (!name || getpeername(socket->get(), reinterpret_cast<sockaddr*>(&real), &size) != 0)
    return Reply::Continue();
  return StoreName(call, *name, call.arg(1), call.arg(2));
}

}  // namespace shunt
