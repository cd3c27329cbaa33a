// SPDX-License-Identifier: Apache-2.0
#include "handlers/service_errands.h"

#include <algorithm>

#include "core/clock.h"
#include "net/balancer/pick_table.h"
#include "net/flow_aiming.h"
#include "net/peer_connections.h"

namespace shunt {
namespace {

constexpr int64_t kRoundTakes = 2'000'000'000;  // ns, at most

}  // namespace

ErrandRound::ErrandRound(const Services::Wants& wants, Services& services, Counters& counters)
    : wants_(wants), services_(services), counters_(counters), end_(MonotonicNow() + kRoundTakes) {
  for (const net::DueClosing& closing : wants.closings)
    closing_.insert(net::BackendIdentity(closing.address));
}

int64_t ErrandRound::NextEnd() const {
  const int64_t now = MonotonicNow();
  return now + std::max<int64_t>(end_ - now, 0) / 4;
}

void ErrandRound::AimFlows(const net::DueAiming& aiming, const Served& served, pid_t task) {
  net::AimedFlows& flows = served.memory->facts().aimed;
  const uint64_t service = net::HashOfName(aiming.name);
  const auto leaves = [&](const net::AimedFlows::Flow& flow) { return !aiming.stay.contains(flow.backend); };
  bool any = false;
  flows.ForEach(service, [&](const net::AimedFlows::Flow& flow) { return !(any = leaves(flow)); });
  if (!any) return;
  const auto new_aim = [&](const net::AimedFlows::Flow& flow, const net::SockAddr& peer) {
    return services_.Aim(aiming, flow, peer, served.container->affinity_key);
  };
  const Result<net::FlowsAimed> aimed =
      net::AimAnew(task, NextEnd(), served.memory->network().netns, flows, service, leaves, new_aim);
  if (!aimed) return;  // it has ended
  counters_.Add(Counter::flows_moved, aimed->moved);
  counters_.Add(Counter::flows_stuck, aimed->failed);
}

void ErrandRound::CarryOut(const Served& served, pid_t task) {
  if (task == 0) return;
  if (!closing_.empty()) (void)net::ShutDownConnections(task, NextEnd(), closing_);
  for (const net::DueAiming& aiming : wants_.aimings) {
    if (!aiming.stay.empty()) AimFlows(aiming, served, task);
  }
}

}  // namespace shunt
