// SPDX-License-Identifier: Apache-2.0
// bind(2): moves a socket that is bound to a published port to the host, where its clients are.
//
// The twin is bound to the host's port under the same rules that the program would meet there: a taken port
// is EADDRINUSE to the program, a privileged one EACCES. Clients then arrive with their own addresses, and
// accepted sockets inherit the lock. Binds to loopback, to ports that are not published, and of anything but
// TCP stay inside.
//
// A twin is never bound by the kernel under a name that the program gives it, for that name would be the
// host's: see LeaveToKernel().
//
// Only the program lock confines a listener, so without it nothing is moved (the network helper forwards the
// port instead).

#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>

#include "core/reactor.h"
#include "core/task.h"
#include "handlers/container.h"
#include "handlers/handlers.h"
#include "handlers/homecoming.h"
#include "handlers/host_port.h"
#include "handlers/side_call.h"
#include "handlers/socket_call.h"
#include "handlers/swap.h"

namespace shunt {
namespace {

bool IsV6Only(int socket_fd) {
  int value = 0;
  socklen_t size = sizeof(value);
  return getsockopt(socket_fd, IPPROTO_IPV6, IPV6_V6ONLY, &value, &size) == 0 && value != 0;
}

// The published port that a bind to `address` by this socket means; nullptr: it stays inside. A port may have
// a host address of each family. An IPv4 one is still the answer for an IPv6-only socket if there is no
// other: the kernel then says EINVAL.
PublishedPort* FindPublished(Container& container, const net::SockAddr& address, const TargetSocket& socket) {
  const net::IpAddress ip = address.ip();
  if (ip.IsLoopback() || address.scope_id() != 0) return nullptr;
  PublishedPort* second_best = nullptr;
  for (PublishedPort& port : container.published) {
    if (port.publish.port != address.port()) continue;
    const std::optional<net::IpAddress>& host_ip = port.publish.host_ip;
    if (host_ip && host_ip->IsV6() && socket.facts.family == AF_INET) continue;
    if (!host_ip || host_ip->IsV6() || socket.facts.family == AF_INET || !IsV6Only(socket.fd.get()))
      return &port;
    if (second_best == nullptr) second_best = &port;
  }
  return second_best;
}

// The address that a bind means. In AF_INET it may go without a family if it is 0.0.0.0, for old programs.
Result<net::SockAddr> WhereTo(const RawAddress& raw) {
  sockaddr_in v4;
  if (raw.family() != AF_UNSPEC || raw.size < sizeof(v4)) return net::SockAddr::Parse(raw.span());
  memcpy(&v4, raw.bytes.data(), sizeof(v4));
  if (v4.sin_addr.s_addr != htonl(INADDR_ANY)) return Fail(EAFNOSUPPORT);
  v4.sin_family = AF_INET;
  return net::SockAddr::Parse(std::as_bytes(std::span(&v4, 1)));
}

// True if the thread is in the user namespace that owns the container's network. In one below it, which every
// program can make, its capabilities do not count there.
bool HasUsersOfNetwork(const Call& call) {
  std::array<char, 32> path;
  snprintf(path.data(), path.size(), "/proc/%d/ns/user", call.notification.tid);
  struct stat status;
  return stat(path.data(), &status) == 0 && status.st_ino == ContainerOf(call).network_owner;
}

// True if the container's kernel would refuse the port to this thread.
bool LacksPrivilege(const Call& call, const net::SockAddr& address) {
  // Port 0 means any port that is free, of which none is privileged.
  if (address.port() == 0 || address.port() >= ContainerOf(call).first_unprivileged_port) return false;
  if (!HasUsersOfNetwork(call)) return true;
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = call.notification.tid};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> capabilities{};
  if (syscall(SYS_capget, &header, capabilities.data()) != 0 || !call.StillValid()) return true;
  return (capabilities[0].effective & (1u << CAP_NET_BIND_SERVICE)) == 0;
}

// The listener is on the host: its port is known as the container's own.
Reply Published(Call& call, PublishedPort& port, const net::SockAddr& bound_as, int twin_fd) {
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  getsockopt(twin_fd, SOL_SOCKET, SO_COOKIE, &cookie, &size);
  port.host->Remember(cookie, bound_as);
  port.memory->Remember(cookie, bound_as);
  port.host->NoteGuards(*port.memory);
  call.counters.Add(Counter::published);
  return Reply::Return(0);
}

// Somebody else (a dup, a process forked earlier) holds the old socket. One socket must not become two, so it
// is put back, and stays inside with all its holders.
Reply StayInside(Call& call, int number, Twin twin, PublishedPort& port, const net::SockAddr& bound_as,
                 const net::SocketIdentity& old_socket) {
  return Start(TakeSwapBack(
                   call, number, std::move(twin), old_socket, [](Call&) { return Reply::Return(0); },
                   [&port, bound_as](Call& of, const Twin& its) {
                     return Published(of, port, bound_as, its.fd.get());
                   }),
               /*if_no_slot=*/Reply::Fail(ENOBUFS));
}

Task SwapLater(Call call, int number, Fd old_socket, Twin twin, PublishedPort& port, net::SockAddr bound_as);

// Puts the twin in place. The old socket is bound inside already.
Reply Swap(Call& call, int number, Fd old_socket, Twin twin, PublishedPort& port,
           const net::SockAddr& bound_as) {
  const Result<net::SocketIdentity> identity = net::Identify(old_socket.get());
  if (!identity) return Reply::Return(0);
  switch (SwapIn(call, number, old_socket, identity->inode, twin, bound_as)) {
    case Swapped::kTooSlow:  // without a slot it stays inside, where the network program may forward its port
      return Start(SwapLater(call, number, std::move(old_socket), std::move(twin), port, bound_as),
                   /*if_no_slot=*/Reply::Return(0));
    case Swapped::kNotAtAll:
      call.record.Enter(Stage::kBoundInside);
      return Reply::Return(0);
    case Swapped::kShared:
      return StayInside(call, number, std::move(twin), port, bound_as, *identity);
    case Swapped::kAlone:
      break;
  }
  return Published(call, port, bound_as, twin.fd.get());
}

// The target got no CPU in time. What is bound already is not begun again: only the swap is tried, until it
// comes to something.
Task SwapLater(Call call, int number, Fd old_socket, Twin twin, PublishedPort& port, net::SockAddr bound_as) {
  call.alone = false;
  (void)ClaimTwin(call, twin);
  for (int64_t rest = Reactor::kBreath; rest > 0 && !call.seat.ended; rest = call.reactor.RestOf(call.seat))
    co_await Pause(call, rest);
  const Reply reply = Swap(call, number, std::move(old_socket), std::move(twin), port, bound_as);
  co_return reply;
}

// The same for a socket that an epoll may watch: the twin is added to it first.
Task SwapWatched(Call call, int number, Fd old_socket, Twin twin, PublishedPort& port,
                 net::SockAddr bound_as) {
  WatcherSearch search(call, number, old_socket.get(), twin.fd.get());
  const bool searched = co_await OnSide(call, search);
  if (!searched || !search.Done(call)) {
    call.counters.Add(Counter::kept_error);
    co_return Reply::Return(0);
  }
  const Reply reply = Swap(call, number, std::move(old_socket), std::move(twin), port, bound_as);
  co_return reply;
}

// Another call is moving this socket: looks again when that should be over.
Task BindLater(Call call, int number, uint64_t address, int length) {
  co_await Pause(call, kPutOffFor);
  ++call.attempts;
  call.alone = false;
  co_return BindSocket(call, number, address, length);
}

// A twin is bound in the container's network like any other socket of it. One that is connected, listening or
// bound cannot be bound again, wherever it lives.
Reply BindTwin(Call& call, int number, TargetSocket twin, const net::SockAddr& address) {
  // We bind it with our own privilege, and to CONTINUE would bind a twin on the host.
  if (LacksPrivilege(call, address)) return Reply::Fail(EACCES);
  if (const std::optional<Reply> lost =
          ContainerOf(call).facts.lost_replies.Take(call.notification.tid, twin.info.ino)) {
    return *lost;
  }
  if (twin.facts.tcp_state != TCP_CLOSE || twin.BoundToPort(BenchOf(call)))
    return RefuseBind(call, std::move(twin), address);
  return GoHome(call, number, std::move(twin), {.kind = Arrival::Kind::kBind, .address = address});
}

// Goes on where an engine before this one has died. Nothing: it had not come as far as to exchange anything.
std::optional<Reply> ResumeSwap(Call& call) {
  HalfSwap half = FindHalfSwap(call);
  switch (half.state) {
    case HalfSwap::State::kNotBegun:
      return {};
    case HalfSwap::State::kHome:  // and bound there, before it was installed
      return Reply::Return(0);
    case HalfSwap::State::kGone:
      return Reply::Fail(EBADF);
    case HalfSwap::State::kSwapped:
      break;
  }
  Container& container = ContainerOf(call);
  container.facts.has_twins = true;
  PublishedPort* const port = FindPublished(container, half.address, *half.socket);
  if (port == nullptr || port->host == nullptr) return Reply::Return(0);
  const JournalRecord& record = call.record;
  Twin twin{.fd = std::move(half.socket->fd), .cloexec = (half.socket->info.flags & O_CLOEXEC) != 0};
  if (!half.maybe_shared) return Published(call, *port, half.address, twin.fd.get());
  return StayInside(call, record.number, std::move(twin), *port, half.address, {.inode = record.inode});
}

}  // namespace

Reply BindSocket(Call& call, int number, uint64_t address, int length) {
  Container& container = ContainerOf(call);
  bool bound_inside = call.record.stage.load(std::memory_order_relaxed) >= Stage::kBoundInside;
  if (call.record.HasSideEffect()) {
    if (const std::optional<Reply> reply = ResumeSwap(call)) return *reply;
  }
  if (NeedsIntroduction(call)) return IntroduceFirst(call, {BindSocket, number, address, length});
  const NetworkView* const view = ViewOf(call);
  if (view == nullptr || (container.published.empty() && !container.facts.has_twins))
    return LeaveToKernel(call, number, EACCES);

  const std::optional<RawAddress> raw = ReadAddress(call, address, length);
  // We cannot read everything that the kernel can: what is mapped for writing only, for one.
  if (!raw) return LeaveToKernel(call, number, EFAULT);
  const Result<net::SockAddr> wanted = WhereTo(*raw);
  if (!wanted) return LeaveToKernel(call, number, wanted.error().code);
  std::optional<TargetSocket> socket = TakeSocket(call, number);
  if (!socket) return LeaveToKernel(call, number, EACCES);
  if (!call.StillValid()) return Reply::Continue();
  std::optional<SocketClaim> claim = ClaimSocket(call, number, *socket);
  if (!claim) {
    if (call.attempts > kPutOffAtMost) return Reply::Fail(ENOBUFS);
    return Start(BindLater(call, number, address, length), /*if_no_slot=*/Reply::Fail(ENOBUFS));
  }
  if (socket->home == Home::kHost) return BindTwin(call, number, std::move(*socket), *wanted);
  if (socket->home != Home::kContainer) return Reply::Continue();

  const int family = socket->facts.family;
  PublishedPort* const port = FindPublished(container, *wanted, *socket);
  const bool confined = view->lock != nullptr && view->lock->lock.kind() == net::SocketLock::Kind::kProgram;
  // Bound, listening or connected already, an address of another family, a lack of privilege: the kernel's
  // own errors.
  // An engine before this one may have bound it inside already, or this very call before a signal took it
  // out.
  if (socket->facts.local.port() != 0 && !bound_inside)
    bound_inside = container.facts.lost_replies.Take(call.notification.tid, socket->info.ino).has_value();
  bound_inside = bound_inside && socket->facts.local.port() == wanted->port();
  if (port == nullptr || !confined || wanted->family() != family ||
      (socket->facts.local.port() != 0 && !bound_inside) || LacksPrivilege(call, *wanted)) {
    return Reply::Continue();
  }

  if (port->taken) return Reply::Fail(EADDRINUSE);
  Result<Twin> twin = ReplacementFor(*socket);
  if (!twin) return Reply::Continue();
  Result<Fd> made = BenchOf(call).twins.Take(*view->lock, family, /*device=*/0);
  if (!made) return Reply::Continue();
  twin->fd = std::move(*made);
  if (const int error = port->host->Admit(socket->fd.get(), family); error != 0) return Reply::Fail(error);
  BindTo bind_to{.address = port->host->AddressFor(family)};
  const Counter obstacle = CarryOver(call, *socket, *twin, bind_to);
  if (bind_to.error != 0) return Reply::Fail(bind_to.error);
  if (obstacle != Counter::count_) {
    call.counters.Add(obstacle);
    return Reply::Continue();
  }
  // What the container's own network has to say (an address that it does not have, a port that is taken
  // inside) comes before the success on the host.
  call.record.number = number;
  call.record.inode = socket->info.ino;
  call.record.Enter(Stage::kBoundInside);
  if (!bound_inside && bind(socket->fd.get(), wanted->data(), wanted->size()) != 0) return Reply::Fail(errno);
  fcntl(twin->fd.get(), F_SETFL, twin->flags);
  twin->claim = *std::move(claim);
  if (KnownUnwatched(call, number, socket->fd.get()))
    return Swap(call, number, std::move(socket->fd), *std::move(twin), *port, *wanted);
  return Start(SwapWatched(call, number, std::move(socket->fd), *std::move(twin), *port, *wanted),
               /*if_no_slot=*/Reply::Fail(ENOBUFS));
}

Reply Bind(Call& call) {
  return BindSocket(call, call.int_arg(0), call.arg(1), call.int_arg(2));
}

}  // namespace shunt
