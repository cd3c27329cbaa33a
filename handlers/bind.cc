// SPDX-License-Identifier: Apache-2.0
// bind(2): moves a socket that is bound to a published port to the host, where its clients are.
//
// The twin is bound to the host's port under the same rules that the program would meet there: a taken port
// is EADDRINUSE to the program, a privileged one EACCES. Clients then arrive with their own addresses, and
// accepted sockets inherit the lock. Binds to loopback, to ports that are not published, and of anything but
// TCP stay inside.
//
// Only the program lock confines a listener, so without it nothing is moved (the network helper forwards the
// port instead).

#include <fcntl.h>
#include <netinet/in.h>
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

bool IsSet(int socket_fd, int level, int name) {
  int value = 0;
  socklen_t size = sizeof(value);
  return getsockopt(socket_fd, level, name, &value, &size) == 0 && value != 0;
}

// The published port that a bind to `address` by a socket of `family` means; nullptr: it stays inside.
PublishedPort* FindPublished(Container& container, const net::SockAddr& address, int family) {
  const net::IpAddress ip = address.ip();
  if (ip.IsLoopback() || address.scope_id() != 0) return nullptr;
  for (PublishedPort& port : container.published) {
    if (port.publish.port != address.port()) continue;
    if (port.publish.host_ip && port.publish.host_ip->IsV6() && family == AF_INET) continue;
    return &port;
  }
  return nullptr;
}

net::SockAddr HostAddress(const net::Publish& publish, int family) {
  const net::IpAddress any = family == AF_INET ? net::IpAddress::FromV4({0}) : net::IpAddress();
  return {publish.host_ip.value_or(any), publish.host_port, static_cast<sa_family_t>(family)};
}

Fd BoundLike(int socket_fd, int family, const net::SockAddr& address, bool reuse_port, int& error) {
  Fd made(socket(family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP));
  const int one = 1;
  const int v6only = family == AF_INET6 && IsSet(socket_fd, IPPROTO_IPV6, IPV6_V6ONLY) ? 1 : 0;
  if (IsSet(socket_fd, SOL_SOCKET, SO_REUSEADDR))
    setsockopt(made.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (family == AF_INET6) setsockopt(made.get(), IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof(v6only));
  if (reuse_port) setsockopt(made.get(), SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
  if (!made.valid() || bind(made.get(), address.data(), address.size()) != 0) {
    error = errno;
    made.reset();
  }
  return made;
}

// With SO_REUSEPORT a bind joins whoever has the port already, if he is of our uid: a stolen share of
// somebody's clients. So the first of a container's group must find the port free without it. From then on a
// bound socket of ours that never listens keeps strangers out. 0, or the errno that the program shall see.
int GuardReusedPort(PublishedPort& port, const TargetSocket& socket, const net::SockAddr& host_address) {
  const int family = socket.facts.family;
  if (!IsSet(socket.fd.get(), SOL_SOCKET, SO_REUSEPORT)) {
    port.guard.reset();
    return 0;
  }
  if (port.guard.valid()) return 0;
  int error = 0;
  if (!BoundLike(socket.fd.get(), family, host_address, /*reuse_port=*/false, error).valid()) return error;
  port.guard = BoundLike(socket.fd.get(), family, host_address, /*reuse_port=*/true, error);
  return port.guard.valid() ? 0 : error;
}

void Remember(PublishedPort& port, const net::SockAddr& bound_as, int twin_fd) {
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  getsockopt(twin_fd, SOL_SOCKET, SO_COOKIE, &cookie, &size);
  port.bound_as = bound_as;
  port.twins[port.next_twin++ % port.twins.size()] = cookie;
}

// A twin is bound in the container's network like any other socket of it. One that is connected, listening or
// bound cannot be bound again, wherever it lives.
Reply BindTwin(Call& call, int number, TargetSocket twin, const net::SockAddr& address) {
  if (twin.facts.tcp_state != TCP_CLOSE || twin.BoundToPort(BenchOf(call)))
    return RefuseBind(call, std::move(twin), address);
  return GoHome(call, number, std::move(twin), {.kind = Arrival::Kind::kBind, .address = address});
}

}  // namespace

Reply BindSocket(Call& call, int number, uint64_t address, int length) {
  Container& container = ContainerOf(call);
  if (NeedsIntroduction(container)) return IntroduceFirst(call, {BindSocket, number, address, length});
  if (container.view == nullptr || (container.published.empty() && !container.has_twins))
    return Reply::Continue();

  const std::optional<RawAddress> raw = ReadAddress(call, address, length);
  if (!raw) return Reply::Continue();
  const Result<net::SockAddr> wanted = net::SockAddr::Parse(raw->span());
  if (!wanted) return Reply::Continue();
  std::optional<TargetSocket> socket = TakeSocket(call, number);
  if (!socket || !call.StillValid()) return Reply::Continue();
  if (socket->home == Home::kHost) return BindTwin(call, number, std::move(*socket), *wanted);
  if (socket->home != Home::kContainer) return Reply::Continue();

  const int family = socket->facts.family;
  PublishedPort* const port = FindPublished(container, *wanted, family);
  const bool confined =
      container.view->lock != nullptr && container.view->lock->lock.kind() == net::SocketLock::Kind::kProgram;
  // Bound, listening or connected already, or an address of another family: the kernel's own errors.
  if (port == nullptr || !confined || wanted->family() != family || socket->facts.local.port() != 0) {
    return Reply::Continue();
  }

  if (port->taken) return Reply::Fail(EADDRINUSE);
  Result<Twin> twin = ReplacementFor(*socket);
  if (!twin) return Reply::Continue();
  Result<Fd> made = BenchOf(call).twins.Take(*container.view->lock, family, /*device=*/0);
  if (!made) return Reply::Continue();
  twin->fd = std::move(*made);
  BindTo bind_to{.address = HostAddress(port->publish, family)};
  if (const int error = GuardReusedPort(*port, *socket, *bind_to.address); error != 0)
    return Reply::Fail(error);
  const Counter obstacle = CarryOver(call, *socket, *twin, bind_to);
  if (bind_to.error != 0) return Reply::Fail(bind_to.error);
  if (obstacle != Counter::count_) {
    call.counters.Add(obstacle);
    return Reply::Continue();
  }
  // What the container's own network has to say (an address that it does not have, a port that is taken
  // inside) comes first.
  if (bind(socket->fd.get(), wanted->data(), wanted->size()) != 0) return Reply::Fail(errno);
  fcntl(twin->fd.get(), F_SETFL, twin->flags);
  // A copy elsewhere (a socket that was made for another process) keeps the container's socket, which listens
  // inside.
  if (SwapIn(call, number, std::move(socket->fd), *twin) == Swapped::kNotAtAll) return Reply::Continue();
  Remember(*port, *wanted, twin->fd.get());
  call.counters.Add(Counter::published);
  return Reply::Return(0);
}

Reply Bind(Call& call) {
  return BindSocket(call, call.int_arg(0), call.arg(1), call.int_arg(2));
}

}  // namespace shunt
