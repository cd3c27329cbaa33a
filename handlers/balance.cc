// SPDX-License-Identifier: Apache-2.0
#include "handlers/balance.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "core/clock.h"
#include "core/limits.h"
#include "core/reactor.h"
#include "core/task.h"
#include "handlers/attempt.h"
#include "handlers/connection.h"
#include "handlers/container.h"
#include "handlers/homecoming.h"
#include "handlers/move.h"
#include "handlers/pending_signals.h"
#include "handlers/place_wait.h"
#include "handlers/race.h"
#include "handlers/timed_call.h"
#include "handlers/way.h"
#include "net/balancer/mix.h"
#include "net/balancer/remembered_pick.h"
#include "net/connect_now.h"

namespace shunt {
namespace {

// Whether it speaks against the backend for everybody. That there is no way to it is this machine's matter,
// or that of the container, which may have seen to it.
bool SpeaksAgainstBackend(int error) {
  return TellsOfBackend(error) && error != ENETUNREACH && error != ENETDOWN;
}

// Callers that cannot be told apart share a key.
uint64_t KeyOf(const Call& call, net::AffinityKey by) {
  if (by == net::AffinityKey::kContainer) return ContainerOf(call).affinity_key;
  const TaskOwner owner = call.target().Owner().value_or(TaskOwner());
  return net::Mix64(by == net::AffinityKey::kUser ? owner.user : static_cast<uint64_t>(owner.process));
}

Destination FirstDestination(const Call& call, const net::Service& service, const net::SockAddr& peer) {
  Destination to;
  to.service = service.id;
  to.attempts = service.attempts;
  to.timeout_ns = service.attempt_timeout_ns;
  to.race_after_ns = service.race_after_ns;
  to.to_v4 = peer.ip().IsV4();
  to.has_key = service.affinity != net::AffinityKey::kNone;
  if (to.has_key) to.key = KeyOf(call, service.affinity);
  if (service.peer_name == net::PeerName::kService) to.shown = peer;
  return to;
}

}  // namespace

const net::Service* ServiceNow(const Call& call, int64_t id) {
  const net::ServiceTable* const table = BenchOf(call).services().table;
  return table == nullptr ? nullptr : table->At(static_cast<uint32_t>(id));
}

namespace {

net::PickWish WishOf(const Destination& to, uint32_t places) {
  return {.has_key = to.has_key,
          .key = to.key,
          .tried = to.tried_slots(),
          .places = places,
          .elsewhere = to.begun > 0 && to.begun + 1 == to.attempts};
}

net::Connecting ConnectingOf(const Call& call, const Destination& to, uint32_t places) {
  return {.to_v4 = to.to_v4,
          .wish = WishOf(to, places),
          .owner = ContainerOf(call).affinity_key,
          .joins = to.joins};
}

// A backend that was not tried yet; nullptr: there is none, or none may be.
const net::Backend* PickUntried(const Call& call, const net::Service& service, const Destination& to) {
  const net::PickTable* const table = service.TableFor(to.to_v4);
  if (table == nullptr || to.is_last()) return nullptr;
  return table->Pick(WishOf(to, /*places=*/0), BenchOf(call).services().picks);
}

// The same for an attempt that will be made: it is remembered, where the service remembers. Of backends that
// have less than `places` connections; 0: of all.
const net::Backend* PickForAttempt(const Call& call, const net::Service& service, const Destination& to,
                                   uint32_t places = 0) {
  if (to.is_last()) return nullptr;
  net::ReactorServices& services = BenchOf(call).services();
  return net::PickFor(service, ConnectingOf(call, to, places), services.picks, services.affinities);
}

// A place at a backend, which another reactor may take first: then it is full, too.
const net::Backend* PickPlace(const Call& call, const net::Service& service, Destination& to) {
  net::ReactorServices& services = BenchOf(call).services();
  const uint32_t places = service.limits.max_connections;
  while (const net::Backend* const backend = PickForAttempt(call, service, to, places)) {
    net::PlaceCount& its_places = services.counts.PlacesOf(backend->slot);
    to.place = net::HeldPlace(services.held, its_places, places);
    if (to.place.valid()) return backend;
    if (!its_places.IsFull(places)) break;  // this reactor holds as many as it can
  }
  return nullptr;
}

// The attempt that begins is at this backend, whose address is put in the form that a socket of `family`
// takes.
void AimAt(const Call& call, const net::Backend& backend, int family, Destination& to) {
  to.tried[static_cast<size_t>(to.begun++)] = to.slot = backend.slot;
  to.address =
      backend.address.family() == family
          ? backend.address
          : net::SockAddr(backend.address.ip(), backend.address.port(), static_cast<sa_family_t>(family));
  net::BackendCounts::Add(BenchOf(call).services().CountsOf(to.slot).picks);
}

}  // namespace

Picked PickNext(const Call& call, const net::Service& service, int family, Destination& to, bool its_turn) {
  const bool limited = service.limits.enabled();
  const net::Backend* backend = nullptr;
  if (!limited) {
    backend = PickForAttempt(call, service, to);
  } else if (its_turn || !BenchOf(call).services().queue.HasWaiters(service.id)) {
    backend = PickPlace(call, service, to);
  }
  if (backend == nullptr)
    return limited && PickUntried(call, service, to) != nullptr ? Picked::kFull : Picked::kNone;
  AimAt(call, *backend, family, to);
  return Picked::kYes;
}

void NoteOvertaking(const Call& call, const Destination& to) {
  const net::Service* const service = ServiceNow(call, to.service);
  if (service == nullptr) return;
  net::Overtook(*service, ConnectingOf(call, to, /*places=*/0), net::BackendIdentity(to.address),
                BenchOf(call).services().affinities);
}

void NoteEnd(const Call& call, const Destination& to, int error) {
  if (to.slot == Destination::kNoSlot) return;
  net::ReactorServices& services = BenchOf(call).services();
  net::BackendCounts& counts = services.CountsOf(to.slot);
  if (error == 0) {
    net::BackendCounts::Add(counts.connected);
    counts.Opened();
    net::BackendCounts::Add(counts.connect_ns, static_cast<uint64_t>(MonotonicNow() - to.begun_at));
    if (services.counts.IsWatched(to.slot)) services.outcomes.Tell({.slot = to.slot, .well = true});
  } else if (TellsOfBackend(error)) {
    net::BackendCounts::Add(counts.failed);
    if (to.in_its_network && SpeaksAgainstBackend(error))
      services.outcomes.Tell({.slot = to.slot, .well = false});
  }
}

namespace {

// True if the socket has to be moved to reach the backend.
bool GoesToHost(const Call& call, const net::Service& service, const TargetSocket& socket,
                const net::SockAddr& backend) {
  const NetworkView* const view = ViewOf(call);
  return service.network == net::ServiceNetwork::kHost && view != nullptr && view->lock != nullptr &&
         socket.home != Home::kElsewhere && LeadsToHost(*view, backend);
}

// Starts the attempt on the socket as it is.
Reply StartHere(Call& call, int number, TargetSocket socket, SocketClaim claim, Destination to) {
  if (!call.StillValid()) return Reply::Gone();  // it may be somebody else's
  if (to.begun == 1 && !call.resumed()) {
    if (const int due = net::TakePendingConnectError(socket.fd.get(), socket.facts.family); due != 0)
      return Reply::Fail(due);
  }
  const int flags = fcntl(socket.fd.get(), F_GETFL);
  if (flags < 0) return Reply::Fail(ECONNABORTED);
  NoteStart(call, number, flags, to.address);
  if ((flags & O_NONBLOCK) == 0) fcntl(socket.fd.get(), F_SETFL, flags | O_NONBLOCK);
  return StartConnection(
      call, {.fd = std::move(socket.fd), .flags = flags & ~O_ACCMODE, .claim = std::move(claim)}, to);
}

// Gets the socket to the network that the backend is in, and starts the attempt there. What cannot be moved
// stays: the backend may be reached on the ordinary path as well.
Reply Approach(Call& call, int number, TargetSocket socket, SocketClaim claim, const net::Service& service,
               Destination to) {
  const NetworkView* const view = ViewOf(call);
  const bool is_twin = socket.home == Home::kHost && view != nullptr;
  if (GoesToHost(call, service, socket, to.address)) {
    to.in_its_network = true;
    const Result<int> device = LockingDevice(BenchOf(call), *view, to.address);
    if (!device) {
      call.counters.Add(Counter::kept_unlocked);
    } else if (is_twin && (*device == 0 || net::BindToDevice(socket.fd.get(), *device))) {
      return StartHere(call, number, std::move(socket), std::move(claim), to);
    } else {
      // One whose place among the claims is another's just now is as good as none: the next one has another.
      constexpr int kTwins = 8;
      for (int i = 0; i < kTwins; ++i) {
        Result<Twin> twin = MakeTwin(call, socket, *view->lock, *device);
        if (!twin) break;
        twin->claim = std::move(claim);
        if (ClaimTwin(call, *twin)) return Move(call, number, std::move(socket), *std::move(twin), to);
        claim = std::move(twin->claim);
      }
    }
  }
  to.in_its_network = service.network == net::ServiceNetwork::kContainer;
  if (is_twin)
    return GoHome(call, number, std::move(socket), {.kind = Arrival::Kind::kConnect, .destination = to});
  return StartHere(call, number, std::move(socket), std::move(claim), to);
}

// The socket under `number`, if it is still the one that the attempts are made on.
struct Again {
  std::optional<TargetSocket> socket;
  SocketClaim claim;
  bool is_busy = false;  // another call is at it, or at one that is in its way: look a little later
};
Again TakeAgain(const Call& call, int number, uint64_t inode) {
  Again again{.socket = TakeSocket(call, number)};
  std::optional<TargetSocket>& socket = again.socket;
  if (!socket || !call.StillValid() || (inode != 0 && socket->info.ino != inode) ||
      socket->facts.tcp_state != TCP_CLOSE) {
    socket.reset();
    return again;
  }
  std::optional<SocketClaim> claim = ClaimSocket(call, number, *socket);
  again.is_busy = !claim;
  if (claim) again.claim = *std::move(claim);
  return again;
}

Reply NextAttempt(Call& call, uint64_t inode, Destination to, int error);
Reply WhenFull(Call& call, const TargetSocket& socket, const net::Service& service, const Destination& to,
               int if_refused);

Task NextAttemptLater(Call call, uint64_t inode, Destination to, int error) {
  co_await Pause(call, kPutOffFor);
  ++call.attempts;
  call.alone = false;
  co_return NextAttempt(call, inode, to, error);
}

// An attempt on the socket `inode` has failed with `error`: another one, or that is the answer.
Reply NextAttempt(Call& call, uint64_t inode, Destination to, int error) {
  if (!call.StillValid()) return Reply::Gone();
  const int number = call.record.number;
  const net::Service* const service = ServiceNow(call, to.service);
  if (service == nullptr || to.is_last()) return Reply::Fail(error);
  Again again = TakeAgain(call, number, inode);
  if (again.is_busy && call.attempts < kPutOffAtMost)
    return Start(NextAttemptLater(call, inode, to, error), /*if_no_slot=*/Reply::Fail(error));
  // Again: an answer that cannot be given would be kept for the call that follows this one.
  if (!call.StillValid()) return Reply::Gone();
  if (!again.socket) return Reply::Fail(error);
  to.place = {};  // of the attempt that has failed: it is not held while the call waits for another one
  const Picked picked = PickNext(call, *service, again.socket->facts.family, to);
  if (picked == Picked::kFull) return WhenFull(call, *again.socket, *service, to, error);
  if (picked == Picked::kNone) return Reply::Fail(error);
  call.counters.Add(Counter::failed_over);
  return Approach(call, number, *std::move(again.socket), std::move(again.claim), *service, to);
}

// Whether another backend could be tried after this one.
bool HasAnother(const Call& call, const Destination& to) {
  const net::Service* const service = ServiceNow(call, to.service);
  return service != nullptr && PickUntried(call, *service, to) != nullptr;
}

}  // namespace

bool MayWait(const Call& call) {
  return call.seat.slots_held < limits::kTaskSlotsPerListener * 3 / 4;
}

namespace {

// A place was found for a call that has waited for one. Nothing has become of the socket meanwhile, or that
// is the end of it.
Reply TakePlace(Call& call, const PlaceWish& wish, const Destination& to);

Task TakePlaceLater(Call call, PlaceWish wish, Destination to) {
  co_await Pause(call, kPutOffFor);
  ++call.attempts;
  call.alone = false;
  co_return TakePlace(call, wish, to);
}

Reply TakePlace(Call& call, const PlaceWish& wish, const Destination& to) {
  Again again = TakeAgain(call, call.record.number, wish.inode);
  if (!call.StillValid()) return Reply::Gone();
  if (again.is_busy && call.attempts < kPutOffAtMost)
    return Start(TakePlaceLater(call, wish, to), /*if_no_slot=*/Reply::Fail(wish.if_refused));
  const net::Service* const service = ServiceNow(call, to.service);
  if (!again.socket || service == nullptr) return Reply::Fail(wish.if_refused);
  call.counters.Add(to.begun == 1 ? Counter::balanced : Counter::failed_over);
  return Approach(call, call.record.number, *std::move(again.socket), std::move(again.claim), *service, to);
}

PlaceFound FindPlace(const Call& call, int family, Destination& to) {
  const net::Service* const service = ServiceNow(call, to.service);
  if (service == nullptr) return PlaceFound::kNever;
  const Picked picked = PickNext(call, *service, family, to, /*its_turn=*/true);
  if (picked == Picked::kYes) return PlaceFound::kYes;
  return picked == Picked::kFull ? PlaceFound::kNotYet : PlaceFound::kNever;
}

// No backend has a place: a blocking connect waits for one, if there is room in the queue.
Reply WhenFull(Call& call, const TargetSocket& socket, const net::Service& service, const Destination& to,
               int if_refused) {
  if ((socket.info.flags & O_NONBLOCK) != 0 || service.limits.queue == 0 || !MayWait(call)) {
    service.queue->refused.fetch_add(1, std::memory_order_relaxed);
    return Reply::Fail(if_refused);
  }
  const PlaceWish wish{.family = socket.facts.family,
                       .inode = socket.info.ino,
                       .send_timeout_ns = ReadSendTimeout(socket.fd.get()),
                       .queue_timeout_ns = service.limits.queue_timeout.count(),
                       .if_refused = if_refused};
  return Start(
      AwaitPlace(
          call, wish, to,
          [family = wish.family](const Call& of, Destination& its) { return FindPlace(of, family, its); },
          TakePlace),
      /*if_no_slot=*/Reply::Fail(if_refused));
}

// An attempt of a blocking connect that is not the last one: waits until it is over, or its time is.
Task AwaitAttempt(Call call, Fd socket_fd, int64_t send_timeout_ns, Destination to) {
  int64_t& deadline = call.record.deadline_ns;
  if (deadline == 0 && send_timeout_ns > 0) deadline = MonotonicNow() + send_timeout_ns;
  const int64_t attempt_ends = to.begun_at + to.timeout_ns;
  const uint64_t inode = SocketInode(socket_fd.get());
  int error = EINPROGRESS;
  {
    const InFlight in_flight(call, to.slot);
    const TimedCalls::Mark waiting(ContainerOf(call).timed_calls, call.notification.tid,
                                   deadline == 0 ? 0 : inode);
    while (error == EINPROGRESS) {
      const int64_t end = deadline == 0 ? attempt_ends : std::min(deadline, attempt_ends);
      const int64_t left = std::clamp<int64_t>(end - MonotonicNow(), 1, kLookAfterNs);
      const int32_t result = co_await PollFd(call, socket_fd.get(), POLLOUT, left);
      // Nobody waits any more: a signal has called the program away, and it finds its socket connecting, as
      // it would natively.
      if (!call.StillValid()) co_return Reply::Gone();
      if (call.seat.ended) co_return Reply::Continue();
      if (result != -ECANCELED) {
        error = ResultAfterWait(socket_fd.get(), to.address);
      } else if (SignalKeptBack(call.notification.tid)) {
        co_return deadline == 0 ? Reply::Continue() : Reply::Fail(EINTR);
      } else if (deadline != 0 && MonotonicNow() >= deadline) {
        co_return Reply::Fail(EINPROGRESS);
      } else if (MonotonicNow() >= attempt_ends) {
        Disconnect(socket_fd.get());
        error = ETIMEDOUT;
      }
    }
    NoteEnd(call, to, error);
  }
  socket_fd.reset();
  if (error == 0) co_return Reply::Return(0);
  if (!TellsOfBackend(error)) co_return Reply::Fail(error);
  co_return NextAttempt(call, inode, to, error);
}

// What an earlier call of this thread, for the same socket, has come to without being told.
std::optional<Reply> DueFromEarlier(const Call& call, uint64_t inode) {
  Container& container = ContainerOf(call);
  const pid_t tid = call.notification.tid;
  if (const std::optional<Reply> lost = container.facts.lost_replies.Take(tid, inode)) {
    if (call.StillValid()) return lost;
    container.facts.lost_replies.Note(tid, inode, *lost);
    return Reply::Gone();
  }
  if (container.timed_calls.empty()) return {};
  if (!call.StillValid()) return Reply::Gone();
  if (container.timed_calls.TakeInterrupted(tid, inode)) return Reply::Fail(EINTR);
  return {};
}

Task ConnectInPlaceLater(Call call, int number, Destination to) {
  co_await Pause(call, kPutOffFor);
  ++call.attempts;
  call.alone = false;
  co_return ConnectInPlace(call, number, to);
}

// The service's source has not said anything yet, because we are a new engine or it is a new service: a
// moment, as a rule.
Task AwaitSource(Call call, int number, net::SockAddr peer, uint32_t id) {
  constexpr int64_t kPatience = 5'000'000'000, kLookEach = 5'000'000;
  const int64_t end = MonotonicNow() + kPatience;
  const auto service = [&] { return ServiceNow(call, id); };
  while (service() != nullptr && service()->pending && MonotonicNow() < end && call.StillValid())
    co_await Pause(call, kLookEach);
  call.alone = false;
  call.attempts = kPutOffAtMost;
  Again again = TakeAgain(call, number, /*inode=*/0);
  if (service() == nullptr || !again.socket) co_return Reply::Fail(ECONNREFUSED);
  const Reply reply =
      ConnectToService(call, number, *std::move(again.socket), std::move(again.claim), peer, *service());
  co_return reply;
}

}  // namespace

const net::Service* ServiceAt(const Call& call, net::Transport transport, const net::SockAddr& peer) {
  const net::ServiceTable* const table = BenchOf(call).services().table;
  return table == nullptr ? nullptr : table->Find(transport, peer);
}

Destination AttemptUnderWay(const Call& call, const net::Service& service, const net::SockAddr& peer,
                            const net::SockAddr& address) {
  Destination to = FirstDestination(call, service, peer);
  to.address = address;
  to.begun = 1;
  to.tried[0] = Destination::kNoSlot;
  return to;
}

Reply AfterStart(Call& call, Twin twin, const Destination& to, int error) {
  if (to.shown.valid()) ContainerOf(call).facts.peer_names.Note(CookieOf(twin.fd.get()), to.shown);
  const bool nonblocking = (twin.flags & O_NONBLOCK) != 0;
  bool seen = error != EINPROGRESS;
  // On one machine, the answer is there as soon as connect(2) returns.
  if (!seen && !nonblocking) {
    error = ResultOf(twin.fd.get(), to.address);
  } else if (pollfd ready{.fd = twin.fd.get(), .events = POLLOUT}; !seen && poll(&ready, 1, 0) == 1) {
    seen = true;
    const bool failed = (ready.revents & (POLLERR | POLLHUP)) != 0;
    if (failed && HasAnother(call, to)) {
      error = ResultOf(twin.fd.get(), to.address);
    } else {
      NoteEnd(call, to, failed ? ECONNREFUSED : 0);
    }
  }
  if (!nonblocking) fcntl(twin.fd.get(), F_SETFL, twin.flags);
  if (error == EINPROGRESS || error == 0) to.place.Begin();
  if (error == EINPROGRESS) {
    if (nonblocking) {
      if (!seen) call.counters.Add(Counter::failover_missed);
      return Reply::Fail(EINPROGRESS);
    }
    if (MayRace(call, to)) return Race(call, std::move(twin), to);
    if (!HasAnother(call, to) || !MayWait(call)) return AwaitByKernel(call, std::move(twin));
    const int64_t send_timeout_ns = twin.has_send_timeout ? ReadSendTimeout(twin.fd.get()) : 0;
    return Start(AwaitAttempt(call, std::move(twin.fd), send_timeout_ns, to),
                 /*if_no_slot=*/Reply::Continue());
  }
  NoteEnd(call, to, error);
  if (error == 0) return Reply::Return(0);
  if (!TellsOfBackend(error)) return Reply::Fail(error);
  const uint64_t inode = SocketInode(twin.fd.get());
  twin = {};  // its claim goes, too
  return NextAttempt(call, inode, to, error);
}

Reply ConnectInPlace(Call& call, int number, const Destination& to) {
  Again again = TakeAgain(call, number, /*inode=*/0);
  if (!call.StillValid()) return Reply::Gone();
  if (again.is_busy && call.attempts < kPutOffAtMost)
    return Start(ConnectInPlaceLater(call, number, to), /*if_no_slot=*/Reply::Fail(ENOBUFS));
  if (!again.socket) return Reply::Fail(ECONNABORTED);
  return StartHere(call, number, *std::move(again.socket), std::move(again.claim), to);
}

Reply ConnectToService(Call& call, int number, TargetSocket socket, SocketClaim claim,
                       const net::SockAddr& peer, const net::Service& service) {
  // A twin may be changed on the way; a socket of the container's own is looked at again by whoever does.
  if (socket.home == Home::kHost && !call.StillValid()) return Reply::Gone();
  if (const std::optional<Reply> due = DueFromEarlier(call, socket.info.ino)) return *due;
  Destination to = FirstDestination(call, service, peer);
  if (socket.facts.tcp_state == TCP_SYN_SENT && (socket.info.flags & O_NONBLOCK) == 0) {
    // A signal has called the program away from an earlier call, which is restarted.
    to.begun = 1;
    to.tried[0] = Destination::kNoSlot;
    to.begun_at = MonotonicNow();
    to.address = peer;  // not looked at while it connects
    call.record.number = number;
    if (to.is_last() || !MayWait(call)) return Reply::Continue();  // the kernel goes on
    const int64_t send_timeout_ns = ReadSendTimeout(socket.fd.get());
    return Start(AwaitAttempt(call, std::move(socket.fd), send_timeout_ns, to),
                 /*if_no_slot=*/Reply::Continue());
  }
  // Connecting, connected or listening: the kernel looks at no address.
  if (socket.facts.tcp_state != TCP_CLOSE) return Reply::Continue();
  // Two cannot have the port that the program has bound.
  if (to.race_after_ns > 0 && socket.BoundToPort(BenchOf(call))) to.race_after_ns = 0;
  const Picked picked = PickNext(call, service, socket.facts.family, to);
  if (picked == Picked::kFull) {
    call.record.number = number;
    return WhenFull(call, socket, service, to, ECONNREFUSED);
  }
  if (picked == Picked::kNone) {
    if (service.pending && call.attempts < kPutOffAtMost && (socket.info.flags & O_NONBLOCK) == 0)
      return Start(AwaitSource(call, number, peer, service.id), /*if_no_slot=*/Reply::Fail(ECONNREFUSED));
    call.counters.Add(Counter::no_backend);
    return Reply::Fail(ECONNREFUSED);
  }
  call.counters.Add(Counter::balanced);
  return Approach(call, number, std::move(socket), std::move(claim), service, to);
}

std::optional<Reply> AimDatagrams(Call& call, int number, const net::SockAddr& peer,
                                  const net::Service& service) {
  const std::optional<Fd> socket = TakeAnySocket(call, number);
  if (!socket) return {};
  int protocol = 0, family = 0;
  socklen_t size = sizeof(int);
  if (getsockopt(socket->get(), SOL_SOCKET, SO_PROTOCOL, &protocol, &size) != 0 || protocol != IPPROTO_UDP ||
      getsockopt(socket->get(), SOL_SOCKET, SO_DOMAIN, &family, &size) != 0 || family != peer.family() ||
      !call.StillValid()) {
    return {};
  }
  Destination to = FirstDestination(call, service, peer);
  const net::Backend* const backend = PickForAttempt(call, service, to);
  if (backend == nullptr) {
    call.counters.Add(Counter::no_backend);
    return Reply::Fail(ECONNREFUSED);
  }
  AimAt(call, *backend, family, to);
  call.counters.Add(Counter::balanced);
  // Noted before it is connected: whoever looks for flows looks whether they are there.
  ContainerMemory::Facts& facts = ContainerOf(call).facts;
  const uint64_t cookie = CookieOf(socket->get());
  facts.aimed.Note({.cookie = cookie,
                    .service = service.name_hash,
                    .backend = net::BackendIdentity(to.address),
                    .key = to.key});
  if (connect(socket->get(), to.address.data(), to.address.size()) != 0) return Reply::Fail(errno);
  if (to.shown.valid()) facts.peer_names.Note(cookie, to.shown);
  return Reply::Return(0);
}

void ForgetFlow(const Call& call, int number, const net::SockAddr& peer) {
  net::AimedFlows& aimed = ContainerOf(call).facts.aimed;
  if (aimed.empty() || !aimed.MayHave(net::BackendIdentity(peer))) return;
  if (const std::optional<Fd> socket = TakeAnySocket(call, number)) aimed.Forget(CookieOf(socket->get()));
}

}  // namespace shunt
