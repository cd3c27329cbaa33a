// SPDX-License-Identifier: Apache-2.0
#include "handlers/service_errands.h"

#include "net/balancer/pick_table.h"
#include "net/flow_aiming.h"
#include "net/peer_connections.h"

namespace shunt {
namespace {

void AimFlows(const net::DueAiming& aiming, Services& services, const Served& served, pid_t task,
              Counters& counters) {
  net::AimedFlows& flows = served.memory->facts().aimed;
  const uint64_t service = net::HashOfName(aiming.name);
  const auto leaves = [&](const net::AimedFlows::Flow& flow) { return !aiming.stay.contains(flow.backend); };
  bool any = false;
  flows.ForEach(service, [&](const net::AimedFlows::Flow& flow) { return !(any = leaves(flow)); });
  if (!any) return;
  const auto new_aim = [&](const net::AimedFlows::Flow& flow, const net::SockAddr& peer) {
    return services.Aim(aiming, flow, peer, served.container->affinity_key);
  };
  const Result<net::FlowsAimed> aimed =
      net::AimAnew(task, served.memory->network().netns, flows, service, leaves, new_aim);
  if (!aimed) return;  // it has ended
  counters.Add(Counter::flows_moved, aimed->moved);
  counters.Add(Counter::flows_stuck, aimed->failed);
}

}  // namespace

void CarryOut(const Services::Wants& wants, Services& services, const Served& served, pid_t task,
              Counters& counters) {
  for (const net::DueClosing& closing : wants.closings) (void)net::ShutDownConnections(task, closing.address);
  for (const net::DueAiming& aiming : wants.aimings) {
    if (!aiming.stay.empty()) AimFlows(aiming, services, served, task, counters);
  }
}

}  // namespace shunt
