// SPDX-License-Identifier: Apache-2.0
// getsockname(2), trapped only in containers that publish a port under another number: shows what the program
// bound, not where the host has put it.

#include <netinet/tcp.h>
#include <sys/socket.h>

#include "handlers/container.h"
#include "handlers/handlers.h"
#include "handlers/socket_call.h"

namespace shunt {
namespace {

// What the program shall see of a twin; nothing if it has nothing to do with a published port. A listener has
// the address that the program asked for; an accepted socket its own, with the program's port.
std::optional<net::SockAddr> NameOf(const Container& container, const TargetSocket& twin) {
  net::SockAddr name = twin.facts.local;
  for (const PublishedPort& port : container.published) {
    if (port.publish.host_port != name.port() || port.host == nullptr) continue;
    const net::SockAddr bound_as = port.host->BoundAs(twin.facts.family);
    if (!bound_as.valid()) continue;
    if (twin.facts.tcp_state == TCP_LISTEN || port.host->IsOurs(CookieOf(twin.fd.get()))) return bound_as;
    name.set_port(port.publish.port);
    return name;
  }
  return {};
}

}  // namespace

Reply NameSocket(Call& call, int number, uint64_t address, uint64_t length_address) {
  const Container& container = ContainerOf(call);
  if (!container.facts.has_twins) return Reply::Continue();
  const std::optional<TargetSocket> socket = TakeSocket(call, number);
  if (!socket || socket->home != Home::kHost) return Reply::Continue();
  const std::optional<net::SockAddr> name = NameOf(container, *socket);
  if (!name) return Reply::Continue();
  return StoreName(call, *name, address, length_address);
}

Reply GetSockName(Call& call) {
  return NameSocket(call, call.int_arg(0), call.arg(1), call.arg(2));
}

}  // namespace shunt
