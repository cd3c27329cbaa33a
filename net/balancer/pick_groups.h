// SPDX-License-Identifier: Apache-2.0
// Which backends get new connections, and what share: priorities, panic and zones, with Envoy's meaning.
//
// Primary backends come first, backups get what those cannot take. A level that has all of its backends takes
// 100%, one that has lost more than 2 of 7 takes 140% of what is left of it, and the rest goes to the next
// level (Envoy's overprovisioning factor 1.4). If both together cannot take 100%, shares are scaled up, and a
// level of which less than `panic` is available is in panic: all of its backends are taken for available. If
// all levels are, each gets its share by the number of its backends.
// Within a level that is not in panic, backends of the own zone come before the others by the same rule.

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
  // Primary before backup, own zone before others. Those without a share are there as well: a connection for
  // which all backends of the others have failed is better tried there than refused. None if nobody is
  // available and nothing panics.
  std::vector<PickGroup> groups;
  bool primary_panics = false;
  bool backup_panics = false;
};

// Candidates that take no new connections at all (weight 0, drained, disabled) are not to be given.
Grouping GroupBackends(std::span<const GroupCandidate> candidates, double panic, bool zone_aware);

}  // namespace shunt::net
