// SPDX-License-Identifier: Apache-2.0
// Services and backends that come, change and go: Configure(), and what Discover() leads to.
//
// What is known of a service goes by its name, and what is known of a backend by its address.

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "core/check.h"
#include "net/balancer/balancer_state.h"
#include "net/balancer/mix.h"

namespace shunt::net {
namespace {

bool HasLabels(const BackendSpec& backend, const std::map<std::string, std::string>& wanted) {
  return std::all_of(wanted.begin(), wanted.end(), [&](const auto& label) {
    const auto found = backend.labels.find(label.first);
    return found != backend.labels.end() && found->second == label.second;
  });
}

// The first check of a backend is so long after it came: anything below the interval, the same on each
// machine, and another one for each service.
int64_t CheckOffset(const ServiceSpec& spec, const SockAddr& address) {
  uint64_t hash = BackendIdentity(address);
  for (const char c : spec.name) hash = Mix64(hash ^ static_cast<unsigned char>(c));
  return static_cast<int64_t>(hash %
                              static_cast<uint64_t>(std::max<int64_t>(1, spec.health.interval.count())));
}

}  // namespace

void Balancer::State::Configure(std::vector<ServiceSpec> specs, std::string new_zone) {
  Reclaim();
  const bool zone_changed = zone != new_zone;
  zone = std::move(new_zone);
  absl::flat_hash_map<std::string, Record> before;
  for (Record& record : std::exchange(services, {})) before.emplace(record->spec.name, std::move(record));
  for (auto& [name, record] : std::exchange(found_services, {})) before.emplace(name, std::move(record));
  by_name.clear();
  finders.clear();
  owned = {};
  for (ServiceSpec& spec : specs) {
    if (by_name.contains(spec.name)) continue;  // the specs are consistent
    const auto known = before.find(spec.name);
    Record record =
        Admit(known == before.end() ? nullptr : std::move(known->second), std::move(spec), nullptr, "");
    for (const ServiceAddress& address : record->spec.addresses) (void)owned.Add(address, record->id);
    if (record->spec.discover.finds_services()) finders.push_back(record.get());
    services.push_back(std::move(record));
  }
  PlaceAll(before);
  for (const auto& [name, record] : before) {
    if (record != nullptr) Remove(*record);
  }
  if (zone_changed) ForEach([this](ServiceRecord& record) { MarkDirty(record); });
  remembered.clear();
}

Balancer::State::Record Balancer::State::Admit(Record record, ServiceSpec spec, FoundServicePtr found,
                                               const std::string& finder) {
  if (record != nullptr) {
    if (record->spec.addresses != spec.addresses) MarkIndexStale();
    Change(*record, std::move(spec), std::move(found));
  } else {
    const std::optional<uint32_t> id = ids.Take(std::numeric_limits<uint32_t>::max());
    SHUNT_CHECK(id);  // memory is too small for so many
    record = std::make_unique<ServiceRecord>(std::move(spec), *id);
    record->found = std::move(found);
    if (*id >= by_id.size()) {
      by_id.resize(*id + 1);
      built.resize(*id + 1);
      slots_of_id.resize(*id + 1);
    }
    by_id[*id] = record.get();
    MarkIndexStale();
    Recall(*record);
    Reconcile(*record);
    MarkDirty(*record);
  }
  record->finder = finder;
  by_name.insert_or_assign(record->spec.name, record.get());
  return record;
}

void Balancer::State::Recall(ServiceRecord& record) {
  const auto found = remembered.find(record.spec.name);
  if (found == remembered.end() || record.spec.discover.none()) return;
  if (found->second.source != record.spec.discover) return;
  record.discovered = std::move(found->second.backends);
  if (record.spec.discover.finds_services()) {
    for (const FoundServicePtr& service : found->second.services)
      record.finds.emplace(service->name, service);
    for (auto& [name, service] : ServicesIn(record.discovered).services)
      record.finds.emplace(name, std::move(service));
  }
  record.discovered_from = record.spec.discover;
  record.discovered_at = std::min(found->second.found_at, now);
  record.source_error = "it has not answered yet; what it told before stays in force";
}

// Puts another spec in the place of a service's.
void Balancer::State::Change(ServiceRecord& record, ServiceSpec spec, FoundServicePtr found) {
  const bool other_found = record.found != found;
  record.found = std::move(found);
  if (record.spec == spec) {
    if (other_found && Reconcile(record)) MarkDirty(record);
    return;
  }
  StepSlowStart(record, now);  // what is over by the old window is over
  const ServiceSpec old = std::exchange(record.spec, std::move(spec));
  const ServiceSpec& now_spec = record.spec;
  if (now_spec.discover.none()) {
    record.discovered.clear();
    record.finds.clear();
    record.discovered_from = {};
    record.discovered_at.reset();
  }
  // Until another source answers, what the former one has found is in force.
  if (now_spec.discover != old.discover) record.source_error.clear();

  for (const std::unique_ptr<Member>& member : record.members) {
    const Standing before(*member);
    if (!now_spec.health.enabled) {
      StopChecks(*member);
      member->health.ForgetChecks();
    } else if (!old.health.enabled || now_spec.health.interval != old.health.interval) {
      ScheduleCheck(*member, After(now, CheckOffset(now_spec, member->address)));
    }
    if (!now_spec.outlier.enabled && member->health.ejected()) {
      EndEjection(*member, now);
    } else {
      Settle(*member, before, now);
    }
    if (now_spec.close_after != old.close_after && member->order == Member::Order::kDrain) {
      // Those that were closed once are not closed again.
      const ClosingKey key{now_spec.name, member->address};
      if (!now_spec.close_after) {
        closings.Clear(key);
      } else if (!old.close_after || closings.Has(key)) {
        closings.Set(key, After(member->drained, now_spec.close_after->count()));
      }
    }
  }
  Reconcile(record);
  StepSlowStart(record, now);
  MarkDirty(record);
}

void Balancer::State::Remove(ServiceRecord& record) {
  for (const std::unique_ptr<Member>& member : record.members) Drop(*member);
  slow_starts.Clear(record.id);
  aimings.Clear(record.id);
  by_id[record.id] = nullptr;
  built[record.id] = nullptr;
  // Until a table without it has been in use: what waits has an id for longer than a table.
  ids.GiveUp(record.id, tables.last() + 1);
  MarkIndexStale();
}

void Balancer::State::RebuildIndex() {
  auto fresh = std::make_shared<ServiceIndex>();
  ForEach([&](const ServiceRecord& record) {
    for (const ServiceAddress& address : record.spec.addresses) (void)fresh->Add(address, record.id);
  });
  index = std::move(fresh);
  index_stale = false;
}

bool Balancer::State::Reconcile(ServiceRecord& record) {
  constexpr size_t kSeen = std::numeric_limits<size_t>::max();
  std::vector<std::unique_ptr<Member>> before = std::exchange(record.members, {});
  absl::flat_hash_map<AddressKey, size_t> place;
  place.reserve(before.size());
  for (size_t i = 0; i < before.size(); ++i) place.emplace(AddressKey(before[i]->address), i);

  record.without_slot = 0;
  bool changed = false, reordered = false;
  size_t next_place = 0;
  const auto admit = [&](const BackendSpec& spec) {
    if (!spec.address.valid() || !HasLabels(spec, record.spec.subset)) return;
    const auto [found, is_new] = place.try_emplace(AddressKey(spec.address), kSeen);
    const size_t was = std::exchange(found->second, kSeen);
    if (is_new) {
      std::unique_ptr<Member> member = NewMember(record, spec);
      if (member == nullptr) {
        ++record.without_slot;
        return;
      }
      if (!before.empty() && member->Wanted()) StartSlowly(*member, now);
      record.members.push_back(std::move(member));
      changed = true;
    } else if (was != kSeen) {
      reordered = reordered || was < next_place;
      next_place = was + 1;
      record.members.push_back(std::move(before[was]));
      changed = Relist(*record.members.back(), spec) || changed;
    }
  };
  for (const BackendSpec& spec : record.spec.backends) admit(spec);
  if (record.found != nullptr) {
    for (const BackendSpec& spec : record.found->backends) admit(spec);
  } else if (!record.spec.discover.finds_services()) {
    for (const BackendSpec& spec : record.discovered) admit(spec);
  }
  for (const std::unique_ptr<Member>& member : before) {
    if (member == nullptr) continue;
    Drop(*member);
    changed = true;
  }
  KeepWithinMostEjected(record);
  // A name server turns the order of its answers each time.
  return changed || (reordered && record.spec.policy == PickPolicy::kFirst);
}

std::unique_ptr<Member> Balancer::State::NewMember(ServiceRecord& record, const BackendSpec& spec) {
  const std::optional<uint32_t> slot = slots.Take(BackendCountBook::kMostSlots);
  if (!slot) return nullptr;
  if (*slot >= grown) {
    grown = std::min<uint32_t>(*slot + BackendCountBook::kChunk, BackendCountBook::kMostSlots);
    counts.Grow(grown);
    by_slot.resize(grown);
    id_of_slot.resize(grown);
  }
  auto member = std::make_unique<Member>();
  by_slot[*slot] = member.get();
  id_of_slot[*slot] = record.id;
  ++slots_of_id[record.id];
  member->service = &record;
  member->slot = *slot;
  member->address =
      spec.address.ip().IsV4() ? SockAddr(spec.address.ip(), spec.address.port()) : spec.address;
  member->before = TotalsOf(counts, *slot);
  counts.SetOpen(*slot, 0);
  counts.SetRtt(*slot, 0);
  counts.PlacesOf(*slot).Forget();
  Relist(*member, spec);
  closings.Clear({record.spec.name, member->address});
  if (IsChecked(*member)) ScheduleCheck(*member, After(now, CheckOffset(record.spec, member->address)));
  return member;
}

bool Balancer::State::Relist(Member& member, const BackendSpec& spec) {
  if (member.listed_weight == spec.weight && member.backup == spec.backup && member.zone == spec.zone)
    return false;
  const Standing before(member);
  member.listed_weight = spec.weight;
  member.backup = spec.backup;
  member.zone = spec.zone;
  Settle(member, before, now);
  return true;
}

void Balancer::State::Drop(Member& member) {
  StopChecks(member);
  if (member.health.ejected()) {
    ejections.Clear(member.slot);
    --member.service->ejected;
  }
  const ServiceSpec& spec = member.service->spec;
  ClosingKey key{spec.name, member.address};
  // One that was drained before keeps its time.
  if (spec.close_after && !closings.Has(key)) closings.Set(key, After(now, spec.close_after->count()));
  by_slot[member.slot] = nullptr;
  slots.GiveUp(member.slot, tables.last());
}

void Balancer::State::Reclaim() {
  slots.Reclaim(tables.oldest_in_use(), [&](uint32_t slot) {
    if (counts.InFlight(slot) != 0 || counts.PlacesOf(slot).held() != 0) return false;
    --slots_of_id[id_of_slot[slot]];
    return true;
  });
  // An attempt under way may go on with the service's other backends, which it finds by the id.
  ids.Reclaim(tables.oldest_in_use(), [&](uint32_t id) { return slots_of_id[id] == 0; });
}

}  // namespace shunt::net
