// SPDX-License-Identifier: Apache-2.0
#include "handlers/homecoming.h"

#include <sys/socket.h>

#include "core/task.h"
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
  if (!call.listener.Install(call.notification.id, home->fd.get(), number, home->cloexec))
    return Reply::Continue();
  call.counters.Add(Counter::returned_home);
  return arrival.kind == Arrival::Kind::kContinue ? Reply::Continue() : Reply::Return(0);
}

net::SpareSockets& Stock(Container& container, int family) {
  return family == AF_INET ? container.home4 : container.home6;
}

// Waits for sockets of the container's network.
Task FetchAndExchange(Call call, int number, TargetSocket twin, Arrival arrival) {
  Container& container = ContainerOf(call);
  FetchSockets fetch(call.notification.tid, container.netns);
  co_await OnControl(call, fetch);
  if (container.home4.empty()) container.home4 = std::move(fetch.brought().tcp4);
  if (container.home6.empty()) container.home6 = std::move(fetch.brought().tcp6);
  net::SpareSockets& stock = Stock(container, twin.facts.family);
  if (stock.empty()) co_return Reply::Fail(EADDRNOTAVAIL);
  Fd home = stock.Take();
  co_return Exchange(call, number, twin, std::move(home), arrival);
}

}  // namespace

Reply GoHome(Call& call, int number, TargetSocket twin, const Arrival& arrival) {
  net::SpareSockets& stock = Stock(ContainerOf(call), twin.facts.family);
  if (stock.empty()) {
    return Start(FetchAndExchange(call, number, std::move(twin), arrival),
                 /*if_no_slot=*/Reply::Fail(EADDRNOTAVAIL));
  }
  Fd home = stock.Take();
  return Exchange(call, number, twin, std::move(home), arrival);
}

Reply RefuseBind(Call& call, TargetSocket twin, const net::SockAddr& address) {
  net::SpareSockets& stock = Stock(ContainerOf(call), twin.facts.family);
  if (stock.empty()) return Reply::Fail(EINVAL);
  const Fd judge = stock.Take();
  const int error = bind(judge.get(), address.data(), address.size()) == 0 ? 0 : errno;
  return Reply::Fail(error == 0 || error == EADDRINUSE ? EINVAL : error);
}

}  // namespace shunt
