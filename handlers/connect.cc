// SPDX-License-Identifier: Apache-2.0
// connect(2): moves a TCP socket of the container to the host's network, and its connection with it.
//
// The container's socket was made inside its network namespace. A twin in the host's network is locked, made
// the same as the container's socket, put under the container's descriptor, and only then connected: if we
// die in between, nothing has happened twice. What we do not understand, cannot carry over or cannot lock is
// left to the kernel, where the program works as it would without us.
//
// How a connection begins, and what its program is told, stands in handlers/connection.h.

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "core/reactor.h"
#include "core/task.h"
#include "handlers/balance.h"
#include "handlers/connection.h"
#include "handlers/container.h"
#include "handlers/handlers.h"
#include "handlers/homecoming.h"
#include "handlers/move.h"
#include "handlers/socket_call.h"
#include "handlers/swap.h"
#include "handlers/way.h"
#include "net/connect_now.h"

namespace shunt {
namespace {

// Another call is moving this socket: looks again when that should be over.
Task ConnectLater(Call call, int number, uint64_t address, int length) {
  co_await Pause(call, kPutOffFor);
  ++call.attempts;
  call.alone = false;
  co_return ConnectSocket(call, number, address, length);
}

// To our copy of the bytes.
int ConnectRaw(int socket_fd, const RawAddress& raw) {
  return net::ConnectNow(socket_fd, reinterpret_cast<const sockaddr*>(raw.bytes.data()),
                         static_cast<socklen_t>(raw.size));
}

// connect(2) on a socket that was moved before.
Reply ConnectTwin(Call& call, int number, TargetSocket socket, SocketClaim claim, const RawAddress& raw) {
  const NetworkView* const view = ViewOf(call);
  if (!call.StillValid()) return Reply::Continue();
  if (const std::optional<Reply> lost =
          ContainerOf(call).facts.lost_replies.Take(call.notification.tid, socket.info.ino)) {
    return *lost;
  }
  if (raw.family() == AF_UNSPEC) {
    const int error = ConnectRaw(socket.fd.get(), raw);
    return error == 0 ? Reply::Return(0) : Reply::Fail(error);
  }
  if (ContainerOf(call).timed_calls.TakeInterrupted(call.notification.tid, socket.info.ino))
    return Reply::Fail(EINTR);
  // Connecting, connected or listening: the kernel looks at no address (and a lock holds, should this change
  // meanwhile).
  if (socket.facts.tcp_state != TCP_CLOSE) return Reply::Continue();

  if (const int due = net::TakePendingConnectError(socket.fd.get(), socket.facts.family); due != 0) {
    return Reply::Fail(due);
  }
  const Result<net::SockAddr> peer = net::SockAddr::Parse(raw.span());
  if (!peer || peer->family() != socket.facts.family) {
    // Not an address for this socket: the kernel's own error, on our copy of the bytes.
    const int error = ConnectRaw(socket.fd.get(), raw);
    return Reply::Fail(error == 0 ? EINVAL : error);
  }
  if (!LeadsToHost(*view, *peer)) {
    const std::optional<net::SockAddr> own = OwnPublishedPort(call, *peer);
    if (!own) return GoHome(call, number, std::move(socket));
    // Its lock keeps it from there: another twin takes its place.
    Result<Twin> twin = MakeTwin(call, socket, *view->own_ports_lock, /*device=*/0);
    if (!twin) return GoHome(call, number, std::move(socket));
    twin->claim = std::move(claim);
    return Move(call, number, std::move(socket), *std::move(twin), {.address = *own});
  }
  const Result<int> device = LockingDevice(BenchOf(call), *view, *peer);
  if (!device) {
    call.counters.Add(Counter::kept_unlocked);
    return GoHome(call, number, std::move(socket));
  }
  if (*device != 0 && !net::BindToDevice(socket.fd.get(), *device)) {
    // Its lock holds it to the device of an earlier peer: another twin takes its place.
    Result<Twin> twin = MakeTwin(call, socket, *view->lock, *device);
    if (!twin) return GoHome(call, number, std::move(socket));
    twin->claim = std::move(claim);
    return Move(call, number, std::move(socket), *std::move(twin), {.address = *peer});
  }
  const int flags = fcntl(socket.fd.get(), F_GETFL);
  if (flags < 0) return Reply::Continue();
  NoteStart(call, number, flags & kCarriedFlags, *peer);
  fcntl(socket.fd.get(), F_SETFL, (flags & kCarriedFlags) | O_NONBLOCK);
  return StartConnection(
      call, {.fd = std::move(socket.fd), .flags = flags & kCarriedFlags, .claim = std::move(claim)},
      {.address = *peer});
}

// The address of the call as it is now, and the service that it belongs to; nullptr: none.
const net::Service* ServiceOf(const Call& call, uint64_t address, int length, net::SockAddr& peer_out) {
  const std::optional<RawAddress> raw = ReadAddress(call, address, length);
  const Result<net::SockAddr> peer = raw ? net::SockAddr::Parse(raw->span()) : Fail(EFAULT);
  if (!peer) return nullptr;
  peer_out = *peer;
  return ServiceAt(call, net::Transport::kTcp, *peer);
}

// Goes on where an engine before this one has died. Nothing: it had not come as far as to change anything.
std::optional<Reply> ResumeSwap(Call& call, uint64_t address, int length) {
  HalfSwap half = FindHalfSwap(call);
  net::SockAddr peer;
  const net::Service* const service = ServiceOf(call, address, length, peer);
  Destination to{.address = half.address};
  if (service != nullptr && half.address.valid()) to = AttemptUnderWay(call, *service, peer, half.address);
  switch (half.state) {
    case HalfSwap::State::kNotBegun:
      return {};
    case HalfSwap::State::kHome:
      if (!to.is_service()) return Reply::Continue();  // where the kernel connects it
      half.maybe_shared = false;
      break;
    case HalfSwap::State::kGone:
      return Reply::Continue();
    case HalfSwap::State::kSwapped:
      ContainerOf(call).facts.has_twins = true;
      break;
  }
  const JournalRecord& record = call.record;
  Twin twin{.fd = std::move(half.socket->fd),
            .flags = record.flags,
            .cloexec = (half.socket->info.flags & O_CLOEXEC) != 0};
  fcntl(twin.fd.get(), F_SETFL, record.flags | O_NONBLOCK);
  if (half.maybe_shared) return StayInside(call, record.number, std::move(twin), to, record.inode);
  return StartConnection(call, std::move(twin), to);
}

}  // namespace

Reply ConnectSocket(Call& call, int number, uint64_t address, int length) {
  Container& container = ContainerOf(call);
  if (call.record.HasSideEffect()) {
    if (const std::optional<Reply> reply = ResumeSwap(call, address, length)) return *reply;
    call.record.Enter(Stage::kReceived);
  }
  if (NeedsIntroduction(call)) return IntroduceFirst(call, {ConnectSocket, number, address, length});
  const NetworkView* const view = ViewOf(call);
  const bool moves = view != nullptr && view->lock != nullptr;
  if (!moves && BenchOf(call).services().table == nullptr) return Reply::Continue();

  const std::optional<RawAddress> raw = ReadAddress(call, address, length);
  if (!raw) return Reply::Continue();
  Result<net::SockAddr> peer = net::SockAddr::Parse(raw->span());
  const net::Service* const service = peer ? ServiceAt(call, net::Transport::kTcp, *peer) : nullptr;
  bool to_host = moves && peer && LeadsToHost(*view, *peer);
  const net::NumberedLock* lock = moves ? view->lock.get() : nullptr;
  if (moves && peer && !to_host) {
    if (const std::optional<net::SockAddr> own = OwnPublishedPort(call, *peer)) {
      peer = *own;
      to_host = true;
      lock = view->own_ports_lock.get();
    }
  }
  if (const net::Service* const of_datagrams =
          peer ? ServiceAt(call, net::Transport::kUdp, *peer) : nullptr) {
    if (const std::optional<Reply> aimed = AimDatagrams(call, number, *peer, *of_datagrams)) return *aimed;
  } else if (peer) {
    ForgetFlow(call, number, *peer);
  }
  if (service == nullptr && !to_host && !container.facts.has_twins) return Reply::Continue();

  std::optional<TargetSocket> socket = TakeSocket(call, number);
  if (!socket) return Reply::Continue();
  const bool balanced = service != nullptr && peer->family() == socket->facts.family;
  if (!balanced && (!moves || socket->home == Home::kElsewhere)) return Reply::Continue();
  std::optional<SocketClaim> claim = ClaimSocket(call, number, *socket);
  if (!claim) {
    const Reply if_not = InsteadOfConnecting(balanced);
    if (call.attempts > kPutOffAtMost) return if_not;
    return Start(ConnectLater(call, number, address, length), if_not);
  }
  if (balanced) return ConnectToService(call, number, *std::move(socket), *std::move(claim), *peer, *service);
  if (socket->home == Home::kHost)
    return ConnectTwin(call, number, *std::move(socket), *std::move(claim), *raw);
  if (!to_host || peer->family() != socket->facts.family) return Reply::Continue();
  // Connected, connecting or listening inside: the kernel's own errors.
  if (socket->facts.tcp_state != TCP_CLOSE) return Reply::Continue();

  const bool own_port = lock != view->lock.get();
  const Result<int> device = own_port ? Result<int>(0) : LockingDevice(BenchOf(call), *view, *peer);
  if (!device) {
    call.counters.Add(Counter::kept_unlocked);
    return Reply::Continue();
  }
  Result<Twin> twin = MakeTwin(call, *socket, *lock, *device);
  if (!twin) return Reply::Continue();
  twin->claim = *std::move(claim);
  if (!ClaimTwin(call, *twin)) {
    return Start(ConnectLater(call, number, address, length), /*if_no_slot=*/Reply::Continue());
  }
  return Move(call, number, *std::move(socket), *std::move(twin), {.address = *peer});
}

Reply Connect(Call& call) {
  return ConnectSocket(call, call.int_arg(0), call.arg(1), call.int_arg(2));
}

}  // namespace shunt
