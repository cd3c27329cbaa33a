// SPDX-License-Identifier: Apache-2.0
// What is done in containers when backends of services go: connections to them are closed, UDP flows are
// aimed at others.
//
// Control thread, which has the rights over the containers. Each walk through one takes 3 us for each of its
// descriptors: one for all connections that are to be closed, and one for each service that has a flow there
// which is to leave.

#pragma once

#include <sys/types.h>

#include <cstdint>

#include "absl/container/flat_hash_set.h"
#include "core/counters.h"
#include "handlers/served.h"
#include "handlers/services.h"

namespace shunt {

// One round through all containers. It has an end: who does not hear of the control thread for ten seconds
// takes the engine for hung, and a container can have so many descriptors that it would not be through by
// then.
class ErrandRound {
 public:
  ErrandRound(const Services::Wants& wants, Services& services, Counters& counters);
  // Of one container, whose `task` is in its network; 0: it has none any more. `counters` are the control
  // thread's.
  void CarryOut(const Served& served, pid_t task);

 private:
  // Of the walk that begins: each has a quarter of the time that is left, so that no container has that of
  // all.
  int64_t NextEnd() const;
  void AimFlows(const net::DueAiming& aiming, const Served& served, pid_t task);

  const Services::Wants& wants_;
  Services& services_;
  Counters& counters_;
  const int64_t end_;
  absl::flat_hash_set<uint64_t> closing_;  // BackendIdentity() of the peers
};

}  // namespace shunt
