// SPDX-License-Identifier: Apache-2.0
#include "handlers/move.h"

#include <sys/socket.h>

#include <utility>

#include "core/reactor.h"
#include "core/task.h"
#include "handlers/attempt.h"
#include "handlers/balance.h"
#include "handlers/connection.h"
#include "handlers/container.h"
#include "handlers/side_call.h"

namespace shunt {
namespace {

// It is not moved: the kernel connects it, or we do if the address is a service's, which the kernel knows
// nothing of.
Reply StayOrdinary(Call& call, int number, const Destination& to) {
  return to.is_service() ? ConnectInPlace(call, number, to) : Reply::Continue();
}

// Our privilege is not the container's: what trusts the host's low ports shall not trust it. Nor does a twin
// join whoever shares the port on the host with others of our uid.
bool MayHaveSource(const SocketBench& bench, const TargetSocket& socket, uint16_t port) {
  int shares = 0;
  socklen_t size = sizeof(shares);
  return port >= bench.first_unprivileged_port &&
         getsockopt(socket.fd.get(), SOL_SOCKET, SO_REUSEPORT, &shares, &size) == 0 && shares == 0;
}

// The container's socket that a twin replaces.
struct OldSocket {
  Fd fd;
  uint64_t inode = 0;  // to find it by, should somebody else hold it
};

// Puts the twin in place and starts its connection.
Reply Swap(Call& call, int number, OldSocket old_socket, Twin twin, const Destination& to) {
  // One that is connecting does not show whether somebody else holds it.
  if (to.overtook) Disconnect(old_socket.fd.get());
  switch (SwapIn(call, number, old_socket.fd, old_socket.inode, twin, to.address)) {
    case Swapped::kNotAtAll:
      twin = {};  // and its claim
      return StayOrdinary(call, number, to);
    case Swapped::kTooSlow:
      return Reply::Again(InsteadOfConnecting(to.is_service()).error());
    case Swapped::kShared:
      return StayInside(call, number, std::move(twin), to, old_socket.inode);
    case Swapped::kAlone:
      break;
  }
  call.counters.Add(Counter::accelerated);
  return StartConnection(call, std::move(twin), to);
}

// The same for a socket that an epoll may watch: the twin is added to it first.
Task SwapWatched(Call call, int number, OldSocket old_socket, Twin twin, Destination to) {
  WatcherSearch search(call, number, old_socket.fd.get(), twin.fd.get());
  const bool searched = co_await OnSide(call, search);
  if (!searched || !search.Done(call)) {
    if (searched) call.counters.Add(Counter::kept_error);
    twin = {};
    const Reply reply = StayOrdinary(call, number, to);
    co_return reply;
  }
  call.alone = false;
  while (!ClaimTwin(call, twin)) {
    if (++call.attempts > kPutOffAtMost) co_return InsteadOfConnecting(to.is_service());
    co_await Pause(call, kPutOffFor);
  }
  const Reply reply = Swap(call, number, std::move(old_socket), std::move(twin), to);
  co_return reply;
}

}  // namespace

Reply StayInside(Call& call, int number, Twin twin, const Destination& to, uint64_t old_inode) {
  return Start(TakeSwapBack(
                   call, number, std::move(twin), {.inode = old_inode},
                   [number, to](Call& of) { return StayOrdinary(of, number, to); },
                   [to](Call& of, Twin its) { return StartConnection(of, std::move(its), to); }),
               /*if_no_slot=*/Reply::Fail(ENOBUFS));
}

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

Reply Move(Call& call, int number, TargetSocket socket, Twin twin, const Destination& to) {
  OldSocket old_socket{.fd = std::move(socket.fd), .inode = socket.info.ino};
  if (KnownUnwatched(call, number, old_socket.fd.get())) {
    return Swap(call, number, std::move(old_socket), std::move(twin), to);
  }
  return Start(SwapWatched(call, number, std::move(old_socket), std::move(twin), to),
               /*if_no_slot=*/InsteadOfConnecting(to.is_service()));
}

}  // namespace shunt
