// SPDX-License-Identifier: Apache-2.0
// Which backends get new connections, and what share: priorities, panic and zones, with Envoy's meaning.
//
// Primary backends come first, backups get what those cannot take. A level that has all of its backends takes
// 100%, one that has lost more than 2 of 7 takes 140% of what is left of it, and the rest goes to the next
// level (Envoy's overprovisioning factor 1.4). If both together cannot take 100%, shares are scaled up, and a
// level of which less than `panic` is available is in panic: all of its backends are taken for available.
// Within a level, backends of the own zone come before the others by the same rule.

#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "net/balancer/pick_table.h"

namespace shunt::net {

struct GroupCandidate {
  Backend backend;
  bool available = true;  // healthy and not ejected
  bool backup = false;
  bool own_zone = false;
};

struct Grouping {
  std::vector<PickGroup> groups;  // those with a share, primary before backup, own zone before others
  bool primary_panics = false;
  bool backup_panics = false;
};

// Candidates that take no new connections at all (weight 0, drained, disabled) are not to be given.
Grouping GroupBackends(std::span<const GroupCandidate> candidates, double panic, bool zone_aware);

}  // namespace shunt::net
