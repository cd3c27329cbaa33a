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

Reply Exchange(Call& call, int number, const TargetSocket& twin, Fd home, Arrival arrival) {
  const Result<Twin> wanted = ReplacementFor(twin);
  const Result<std::optional<net::SockAddr>> source = SourceOf(twin);
  if (!wanted || !source) return Reply::Fail(EADDRNOTAVAIL);
  BindTo bind_to{.address = *source};
  if (CarryOver(call, twin, home.get(), bind_to) != Counter::count_) {
    return Reply::Fail(bind_to.error != 0 ? bind_to.error : EADDRNOTAVAIL);
  }
  fcntl(home.get(), F_SETFL, wanted->flags);
  if (arrival.listen && listen(home.get(), arrival.backlog) != 0) return Reply::Fail(errno);
  if (!call.listener.Install(call.notification.id, home.get(), number, wanted->cloexec))
    return Reply::Continue();
  call.counters.Add(Counter::returned_home);
  return arrival.listen ? Reply::Return(0) : Reply::Continue();
}

std::vector<Fd>& Stock(Container& container, int family) {
  return family == AF_INET ? container.home4 : container.home6;
}

Task FetchAndExchange(Call call, int number, TargetSocket twin, Arrival arrival) {
  Container& container = ContainerOf(call);
  FetchSockets fetch(call.notification.tid, container.netns);
  co_await OnControl(call, fetch);
  std::vector<Fd>& brought = twin.facts.family == AF_INET ? fetch.brought().tcp4 : fetch.brought().tcp6;
  if (brought.empty()) co_return Reply::Fail(EADDRNOTAVAIL);
  Fd home = std::move(brought.back());
  brought.pop_back();
  // The rest is for the next one. The vectors were made on the control thread, so swapping them in allocates
  // nothing.
  if (container.home4.empty()) container.home4.swap(fetch.brought().tcp4);
  if (container.home6.empty()) container.home6.swap(fetch.brought().tcp6);
  co_return Exchange(call, number, twin, std::move(home), arrival);
}

}  // namespace

Reply GoHome(Call& call, int number, TargetSocket twin, Arrival arrival) {
  std::vector<Fd>& stock = Stock(ContainerOf(call), twin.facts.family);
  if (stock.empty()) {
    return Start(FetchAndExchange(call, number, std::move(twin), arrival),
                 /*if_no_slot=*/Reply::Fail(EADDRNOTAVAIL));
  }
  Fd home = std::move(stock.back());
  stock.pop_back();
  return Exchange(call, number, twin, std::move(home), arrival);
}

}  // namespace shunt
