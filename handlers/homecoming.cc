// SPDX-License-Identifier: Apache-2.0
#include "handlers/homecoming.h"

#include <sys/socket.h>

#include "core/task.h"
#include "handlers/balance.h"
#include "handlers/container.h"
#include "handlers/swap.h"
#include "net/netns.h"

namespace shunt {
namespace {

// How many sockets of each family one visit to the container's network brings.
constexpr int kSocketsPerVisit = 4;

class FetchSockets final : public ControlJob {
 public:
  FetchSockets(pid_t pid, uint64_t netns) : pid_(pid), netns_(netns) {}

  void Run() override {
    absl::StatusOr<net::NetnsVisit> visit = net::VisitNetns(pid_, kSocketsPerVisit);
    // The thread may be in a nested namespace just now; what it brings is then of no use.
    if (visit.ok() && visit->cookie == netns_) brought_ = std::move(*visit);
  }

  net::NetnsVisit& brought() { return brought_; }

 private:
  pid_t pid_;
  uint64_t netns_;
  net::NetnsVisit brought_;
};

// 0, or the errno of what is to be done on arrival.
int Arrive(int home_fd, const Arrival& arrival) {
  switch (arrival.kind) {
    case Arrival::Kind::kListen:
      return listen(home_fd, arrival.backlog) == 0 ? 0 : errno;
    case Arrival::Kind::kBind:
      return bind(home_fd, arrival.address.data(), arrival.address.size()) == 0 ? 0 : errno;
    case Arrival::Kind::kContinue:
    case Arrival::Kind::kConnect:
      return 0;
  }
  return 0;
}

Reply Exchange(Call& call, int number, TargetSocket& twin, Fd home_fd, const Arrival& arrival) {
  Result<Twin> home = ReplacementFor(twin);
  const Result<std::optional<net::SockAddr>> source = SourceOf(BenchOf(call), twin);
  if (!home || !source) return Reply::Fail(EADDRNOTAVAIL);
  home->fd = std::move(home_fd);
  BindTo bind_to{.address = *source};
  if (CarryOver(call, twin, *home, bind_to) != Counter::count_) {
    return Reply::Fail(bind_to.error != 0 ? bind_to.error : EADDRNOTAVAIL);
  }
  if (WasShutDown(twin.fd.get())) shutdown(home->fd.get(), SHUT_RDWR);
  if (const int error = Arrive(home->fd.get(), arrival); error != 0) return Reply::Fail(error);
  fcntl(home->fd.get(), F_SETFL, home->flags);
  call.record.number = number;
  call.record.inode = twin.info.ino;
  call.record.address_size = 0;
  call.record.Enter(Stage::kInstalling);
  const Result<void> installed =
      call.listener.Install(call.notification.id, home->fd.get(), number, home->cloexec);
  if (!installed) {
    const Reply if_not = InsteadOfConnecting(arrival.kind == Arrival::Kind::kConnect);
    return installed.error() == Errno{EINTR} ? Reply::Again(if_not.error()) : if_not;
  }
  call.counters.Add(Counter::returned_home);
  if (arrival.kind == Arrival::Kind::kConnect) return ConnectInPlace(call, number, arrival.destination);
  return arrival.kind == Arrival::Kind::kContinue ? Reply::Continue() : Reply::Return(0);
}

// A socket of the container's network from what is in store; not valid if there is none.
Fd TakeHome(Container& container, int family) {
  const std::lock_guard lock(container.home_mutex);
  net::SpareSockets& stock = family == AF_INET ? container.home4 : container.home6;
  return stock.empty() ? Fd() : stock.Take();
}

void PutBackHome(Container& container, int family, Fd home) {
  const std::lock_guard lock(container.home_mutex);
  net::SpareSockets& stock = family == AF_INET ? container.home4 : container.home6;
  if (!stock.full()) stock.Add(std::move(home));
}

void Replenish(Container& container, net::NetnsVisit& brought) {
  const std::lock_guard lock(container.home_mutex);
  if (container.home4.empty()) container.home4 = std::move(brought.tcp4);
  if (container.home6.empty()) container.home6 = std::move(brought.tcp6);
}

// What a bind to `address` in the container's network says, apart from the port being taken, to a socket that
// may not be bound any more. `judge` is one of that network.
Reply RefusedBind(Container& container, int family, Fd judge, const net::SockAddr& address) {
  if (!judge.valid() || bind(judge.get(), address.data(), address.size()) == 0) return Reply::Fail(EINVAL);
  const int error = errno;
  PutBackHome(container, family, std::move(judge));  // still as good as new
  return Reply::Fail(error == EADDRINUSE ? EINVAL : error);
}

// The same as GoHome and RefuseBind, when sockets of the container's network have to be fetched.
Task FetchAndExchange(Call call, int number, TargetSocket twin, Arrival arrival) {
  Container& container = ContainerOf(call);
  FetchSockets fetch(call.notification.tid, container.netns);
  co_await OnControl(call, fetch);
  Replenish(container, fetch.brought());
  Fd home = TakeHome(container, twin.facts.family);
  if (!home.valid()) co_return Reply::Fail(EADDRNOTAVAIL);
  co_return Exchange(call, number, twin, std::move(home), arrival);
}

Task FetchAndJudge(Call call, int family, net::SockAddr address) {
  Container& container = ContainerOf(call);
  FetchSockets fetch(call.notification.tid, container.netns);
  co_await OnControl(call, fetch);
  Replenish(container, fetch.brought());
  co_return RefusedBind(container, family, TakeHome(container, family), address);
}

}  // namespace

Reply GoHome(Call& call, int number, TargetSocket twin, const Arrival& arrival) {
  Fd home = TakeHome(ContainerOf(call), twin.facts.family);
  if (!home.valid()) {
    return Start(FetchAndExchange(call, number, std::move(twin), arrival),
                 /*if_no_slot=*/Reply::Fail(EADDRNOTAVAIL));
  }
  return Exchange(call, number, twin, std::move(home), arrival);
}

Reply RefuseBind(Call& call, TargetSocket twin, const net::SockAddr& address) {
  const int family = twin.facts.family;
  if (Fd judge = TakeHome(ContainerOf(call), family); judge.valid()) {
    return RefusedBind(ContainerOf(call), family, std::move(judge), address);
  }
  return Start(FetchAndJudge(call, family, address), /*if_no_slot=*/Reply::Fail(EINVAL));
}

}  // namespace shunt
