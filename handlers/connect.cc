// SPDX-License-Identifier: Apache-2.0
// connect(2): moves a TCP socket of the container to the host's network, and its connection with it.
//
// The container's socket was made inside its network namespace. A twin in the host's network is locked, made
// the same as the container's socket, put under the container's descriptor, and only then connected: if we
// die in between, nothing has happened twice. What we do not understand, cannot carry over or cannot lock is
// left to the kernel, where the program works as it would without us.
//
// A blocking connect that is not over at once is answered with CONTINUE: the kernel then finds a socket that
// is connecting already, waits as it always does (signals, SO_SNDTIMEO, shutdown and close by other threads),
// and looks at no address. So nothing waits in here, and the result is the kernel's own. The one exception is
// SO_SNDTIMEO, where a second connect(2) says EALREADY when the time is over and a first one EINPROGRESS; it
// waits in a task (TimedConnect).

#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>

#include "core/clock.h"
#include "core/reactor.h"
#include "core/task.h"
#include "handlers/container.h"
#include "handlers/handlers.h"
#include "handlers/homecoming.h"
#include "handlers/pending_signals.h"
#include "handlers/socket_call.h"
#include "handlers/swap.h"
#include "handlers/timed_call.h"
#include "handlers/way.h"

namespace shunt {
namespace {

int64_t ReadSendTimeout(int socket_fd) {
  timeval timeout{};
  socklen_t size = sizeof(timeout);
  if (getsockopt(socket_fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, &size) != 0) return 0;
  return timeout.tv_sec * 1'000'000'000 + timeout.tv_usec * 1'000;
}

bool StillConnecting(int socket_fd) {
  pollfd writable{.fd = socket_fd, .events = POLLOUT};
  return poll(&writable, 1, 0) == 0;
}

// Nobody tells when a target that waits is killed, or called away by a signal, so it is looked after this
// often. Else programs that are would fill their container's slots until their timeouts are over.
constexpr int64_t kLookAfterNs = 50'000'000;

// A blocking connect whose socket has a send timeout, and a peer that does not answer at once.
Task TimedConnect(Call call, Fd twin, int64_t timeout_ns) {
  int32_t result = 0;
  // An engine that takes this over waits for what is left of the time.
  int64_t& deadline = call.record.deadline_ns;
  if (deadline == 0 && timeout_ns > 0) deadline = MonotonicNow() + timeout_ns;
  {
    // Over before the answer: the thread's next call may be here before we are out.
    const Result<net::SocketIdentity> identity = net::Identify(twin.get());
    const TimedCalls::Mark waiting(ContainerOf(call).timed_calls, call.notification.tid,
                                   identity ? identity->inode : 0);
    int64_t left = 0;
    do {
      left = deadline == 0 ? kLookAfterNs : deadline - MonotonicNow();
      result = co_await PollFd(call, twin.get(), POLLOUT, std::clamp<int64_t>(left, 1, kLookAfterNs));
      if (result == -ECANCELED && SignalWaits(call.notification.tid) && call.StillValid())
        co_return Reply::Fail(EINTR);
    } while (result == -ECANCELED && (deadline == 0 || left > kLookAfterNs) && call.StillValid());
  }
  twin.reset();
  // If the connection is over, the kernel hands out its result.
  co_return result == -ECANCELED ? Reply::Fail(EINPROGRESS) : Reply::Continue();
}

// Starts the connection on our duplicate of an unconnected socket that is in the host's network and locked,
// and says what the target gets.
Reply StartConnection(Call& call, Twin twin, const net::SockAddr& peer) {
  const int result = connect(twin.fd.get(), peer.data(), peer.size());
  int error = result == 0 ? 0 : errno;
  if (call.resumed()) {
    // Whoever began this may have started the connection, too.
    if (error == EALREADY) error = EINPROGRESS;
    if (error == EISCONN) error = 0;
    // The first connect of a nonblocking socket never says 0, however fast the peer is; a second one may.
    if (error == 0 && (twin.flags & O_NONBLOCK) != 0) error = EINPROGRESS;
  }
  if (twin.flags != O_NONBLOCK) fcntl(twin.fd.get(), F_SETFL, twin.flags);
  if (error != EINPROGRESS) return error == 0 ? Reply::Return(0) : Reply::Fail(error);
  if ((twin.flags & O_NONBLOCK) != 0) return Reply::Fail(EINPROGRESS);
  if (twin.has_send_timeout && StillConnecting(twin.fd.get())) {
    const int64_t timeout_ns = ReadSendTimeout(twin.fd.get());
    return Start(TimedConnect(call, std::move(twin.fd), timeout_ns), /*if_no_slot=*/Reply::Continue());
  }
  return Reply::Continue();
}

// Our privilege is not the container's: what trusts the host's low ports shall not trust it. Nor does a twin
// join whoever shares the port on the host with others of our uid.
bool MayHaveSource(const SocketBench& bench, const TargetSocket& socket, uint16_t port) {
  int shares = 0;
  socklen_t size = sizeof(shares);
  return port >= bench.first_unprivileged_port &&
         getsockopt(socket.fd.get(), SOL_SOCKET, SO_REUSEPORT, &shares, &size) == 0 && shares == 0;
}

// A twin of an unconnected socket, with `lock` on it (by `device`, if it is that kind) and ready to be
// installed.
Result<Twin> MakeTwin(Call& call, TargetSocket& socket, const net::NumberedLock& lock, int device) {
  const auto keep = [&call](Counter why) {
    call.counters.Add(why);
    return Fail(EOPNOTSUPP);
  };
  SocketBench& bench = BenchOf(call);
  Result<Twin> twin = ReplacementFor(socket);
  if (!twin || WasShutDown(socket.fd.get())) return keep(Counter::kept_options);
  Result<Fd> made = bench.twins.Take(lock, socket.facts.family, device);
  if (!made) return keep(Counter::kept_error);
  twin->fd = std::move(*made);
  const Result<std::optional<net::SockAddr>> source = SourceOf(bench, socket);
  if (!source || (*source && !MayHaveSource(bench, socket, (*source)->port())))
    return keep(Counter::kept_source);
  BindTo bind_to{.address = *source};
  const Counter obstacle = CarryOver(call, socket, *twin, bind_to);
  if (obstacle != Counter::count_) return keep(obstacle);
  return twin;
}

// The container's socket that a twin replaces.
struct OldSocket {
  Fd fd;
  uint64_t inode = 0;  // to find it by, should somebody else hold it
};

// Somebody else holds the old socket: it is put back, and the kernel connects it on its ordinary path.
Reply StayInside(Call& call, int number, Twin twin, const net::SockAddr& peer, uint64_t old_inode) {
  return Start(TakeSwapBack(call, number, std::move(twin), {.inode = old_inode}, Reply::Continue(),
                            [peer](Call& of, Twin its) { return StartConnection(of, std::move(its), peer); }),
               /*if_no_slot=*/Reply::Fail(ENOBUFS));
}

// Puts the twin in place and starts its connection.
Reply Swap(Call& call, int number, OldSocket old_socket, Twin twin, const net::SockAddr& peer) {
  switch (SwapIn(call, number, old_socket.fd, old_socket.inode, twin, peer)) {
    case Swapped::kNotAtAll:
      return Reply::Continue();
    case Swapped::kTooSlow:
      return Reply::Again();
    case Swapped::kShared:
      return StayInside(call, number, std::move(twin), peer, old_socket.inode);
    case Swapped::kAlone:
      break;
  }
  call.counters.Add(Counter::accelerated);
  return StartConnection(call, std::move(twin), peer);
}

// The same for a socket that an epoll may watch: the twin is added to it first.
Task SwapWatched(Call call, int number, OldSocket old_socket, Twin twin, net::SockAddr peer) {
  WatcherSearch search(call, number, old_socket.fd.get(), twin.fd.get());
  if (!co_await OnSide(call, search)) co_return Reply::Continue();
  if (!search.Done(call)) {
    call.counters.Add(Counter::kept_error);
    co_return Reply::Continue();
  }
  call.alone = false;
  while (!ClaimTwin(call, twin)) {
    if (++call.attempts > kPutOffAtMost) co_return Reply::Continue();
    co_await Pause(call, kPutOffFor);
  }
  const Reply reply = Swap(call, number, std::move(old_socket), std::move(twin), peer);
  co_return reply;
}

// Moves a socket: with `twin` in its place, connecting to `peer`.
Reply Move(Call& call, int number, TargetSocket socket, Twin twin, const net::SockAddr& peer) {
  OldSocket old_socket{.fd = std::move(socket.fd), .inode = socket.info.ino};
  if (KnownUnwatched(call, number, old_socket.fd.get())) {
    return Swap(call, number, std::move(old_socket), std::move(twin), peer);
  }
  return Start(SwapWatched(call, number, std::move(old_socket), std::move(twin), peer),
               /*if_no_slot=*/Reply::Continue());
}

// Another call is moving this socket: looks again when that should be over.
Task ConnectLater(Call call, int number, uint64_t address, int length) {
  co_await Pause(call, kPutOffFor);
  ++call.attempts;
  call.alone = false;
  co_return ConnectSocket(call, number, address, length);
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
    const int result = connect(socket.fd.get(), reinterpret_cast<const sockaddr*>(raw.bytes.data()),
                               static_cast<socklen_t>(raw.size));
    return result == 0 ? Reply::Return(0) : Reply::Fail(errno);
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
    const int result = connect(socket.fd.get(), reinterpret_cast<const sockaddr*>(raw.bytes.data()),
                               static_cast<socklen_t>(raw.size));
    return Reply::Fail(result == 0 ? EINVAL : errno);
  }
  if (!LeadsToHost(*view, *peer)) {
    const std::optional<net::SockAddr> own = OwnPublishedPort(call, *peer);
    if (!own) return GoHome(call, number, std::move(socket));
    // Its lock keeps it from there: another twin takes its place.
    Result<Twin> twin = MakeTwin(call, socket, *view->own_ports_lock, /*device=*/0);
    if (!twin) return GoHome(call, number, std::move(socket));
    twin->claim = std::move(claim);
    return Move(call, number, std::move(socket), *std::move(twin), *own);
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
    return Move(call, number, std::move(socket), *std::move(twin), *peer);
  }
  const int flags = fcntl(socket.fd.get(), F_GETFL);
  if (flags < 0) return Reply::Continue();
  NoteStart(call, number, flags & kCarriedFlags, *peer);
  fcntl(socket.fd.get(), F_SETFL, (flags & kCarriedFlags) | O_NONBLOCK);
  return StartConnection(
      call, {.fd = std::move(socket.fd), .flags = flags & kCarriedFlags, .claim = std::move(claim)}, *peer);
}

// Goes on where an engine before this one has died. Nothing: it had not come as far as to change anything.
std::optional<Reply> ResumeSwap(Call& call) {
  HalfSwap half = FindHalfSwap(call);
  switch (half.state) {
    case HalfSwap::State::kNotBegun:
      return {};
    case HalfSwap::State::kHome:  // where the kernel connects it
    case HalfSwap::State::kGone:
      return Reply::Continue();
    case HalfSwap::State::kSwapped:
      break;
  }
  ContainerOf(call).facts.has_twins = true;
  const JournalRecord& record = call.record;
  Twin twin{.fd = std::move(half.socket->fd),
            .flags = record.flags,
            .cloexec = (half.socket->info.flags & O_CLOEXEC) != 0};
  fcntl(twin.fd.get(), F_SETFL, record.flags | O_NONBLOCK);
  if (half.maybe_shared) return StayInside(call, record.number, std::move(twin), half.address, record.inode);
  return StartConnection(call, std::move(twin), half.address);
}

}  // namespace

Reply ConnectSocket(Call& call, int number, uint64_t address, int length) {
  Container& container = ContainerOf(call);
  if (call.record.HasSideEffect()) {
    if (const std::optional<Reply> reply = ResumeSwap(call)) return *reply;
    call.record.Enter(Stage::kReceived);
  }
  if (NeedsIntroduction(call)) return IntroduceFirst(call, {ConnectSocket, number, address, length});
  const NetworkView* const view = ViewOf(call);
  if (view == nullptr || view->lock == nullptr) return Reply::Continue();

  const std::optional<RawAddress> raw = ReadAddress(call, address, length);
  if (!raw) return Reply::Continue();
  Result<net::SockAddr> peer = net::SockAddr::Parse(raw->span());
  bool to_host = peer && LeadsToHost(*view, *peer);
  const net::NumberedLock* lock = view->lock.get();
  if (peer && !to_host) {
    if (const std::optional<net::SockAddr> own = OwnPublishedPort(call, *peer)) {
      peer = *own;
      to_host = true;
      lock = view->own_ports_lock.get();
    }
  }
  if (!to_host && !container.facts.has_twins) return Reply::Continue();

  std::optional<TargetSocket> socket = TakeSocket(call, number);
  if (!socket || socket->home == Home::kElsewhere) return Reply::Continue();
  std::optional<SocketClaim> claim = ClaimSocket(call, number, *socket);
  if (!claim) {
    if (call.attempts > kPutOffAtMost) return Reply::Continue();
    return Start(ConnectLater(call, number, address, length), /*if_no_slot=*/Reply::Continue());
  }
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
  return Move(call, number, *std::move(socket), *std::move(twin), *peer);
}

Reply Connect(Call& call) {
  return ConnectSocket(call, call.int_arg(0), call.arg(1), call.int_arg(2));
}

}  // namespace shunt
