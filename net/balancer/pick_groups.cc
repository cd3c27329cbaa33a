// SPDX-License-Identifier: Apache-2.0
// Groups: two levels, each of two zones at most, and one rule that says how much of the two goes where.

#include "net/balancer/pick_groups.h"

#include <algorithm>
#include <array>
#include <utility>

namespace shunt::net {
namespace {

// All new connections: shares are parts of it.
constexpr uint32_t kWhole = 65536;

// How much of all connections these backends could take: 1.4 times the part of them that is available. Not
// nothing as long as one is.
uint32_t Health(size_t available, size_t all) {
  if (available == 0) return 0;
  return static_cast<uint32_t>(std::clamp<uint64_t>(available * 14 * kWhole / (all * 10), 1, kWhole));
}

// The first takes of `whole` what it can, the second the rest. Both are scaled up if together they cannot.
std::array<uint32_t, 2> ShareOut(uint32_t whole, uint32_t first_health, uint32_t second_health) {
  const uint64_t together = std::min(kWhole, first_health + second_health);
  if (together == 0) return {0, 0};
  const uint32_t first = static_cast<uint32_t>(uint64_t{whole} * first_health / together);
  return {first, whole - first};
}

struct Zone {
  std::vector<Backend> available;
  size_t all = 0;

  uint32_t health() const { return Health(available.size(), all); }
};

struct Level {
  std::vector<Backend> all;
  Zone own, others;

  size_t available() const { return own.available.size() + others.available.size(); }
  uint32_t health() const { return Health(available(), all.size()); }
  // More of them than a rounding error.
  bool BelowPanic(double panic) const {
    return static_cast<double>(available()) + 1e-6 < panic * static_cast<double>(all.size());
  }
};

void AddGroups(Level& level, bool backup, uint32_t share, bool panics, std::vector<PickGroup>& groups) {
  const auto add = [&](uint32_t its_share, std::vector<Backend>& backends) {
    if (!backends.empty()) groups.push_back({its_share, std::move(backends), backup});
  };
  // In panic nobody looks at zones, as with Envoy: what is left of the own one is not to get it all.
  if (panics) return add(share, level.all);
  const auto [own, others] = ShareOut(share, level.own.health(), level.others.health());
  add(own, level.own.available);
  add(others, level.others.available);
}

}  // namespace

Grouping GroupBackends(std::span<const GroupCandidate> candidates, double panic, bool zone_aware) {
  Level primary, backup;
  for (const GroupCandidate& candidate : candidates) {
    Level& level = candidate.backup ? backup : primary;
    level.all.push_back(candidate.backend);
    // Who does not look at zones takes all for one.
    Zone& zone = zone_aware && candidate.own_zone ? level.own : level.others;
    ++zone.all;
    if (candidate.available) zone.available.push_back(candidate.backend);
  }

  Grouping grouping;
  auto [primary_share, backup_share] = ShareOut(kWhole, primary.health(), backup.health());
  if (primary.health() + backup.health() < kWhole) {
    grouping.primary_panics = primary.BelowPanic(panic);
    grouping.backup_panics = backup.BelowPanic(panic);
    // When nobody knows of a level that is well, health says nothing any more.
    const bool all_panic = (grouping.primary_panics || primary.all.empty()) &&
                           (grouping.backup_panics || backup.all.empty()) && !candidates.empty();
    if (all_panic) {
      primary_share = static_cast<uint32_t>(kWhole * primary.all.size() / candidates.size());
      backup_share = kWhole - primary_share;
    }
  }
  AddGroups(primary, /*backup=*/false, primary_share, grouping.primary_panics, grouping.groups);
  AddGroups(backup, /*backup=*/true, backup_share, grouping.backup_panics, grouping.groups);
  return grouping;
}

}  // namespace shunt::net
