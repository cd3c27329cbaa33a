// SPDX-License-Identifier: Apache-2.0
// Balancer: what happens to backends, and what follows from it.

#include "net/balancer/balancer.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/balancer/balancer_state.h"

namespace shunt::net {

std::string SomeOf(const std::vector<std::string>& names) {
  constexpr size_t kMost = 8;
  if (names.empty()) return "none";
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kMost); ++i)
    absl::StrAppend(&text, i == 0 ? "" : ", ", names[i]);
  if (names.size() > kMost) absl::StrAppend(&text, " and ", names.size() - kMost, " more");
  return text;
}

void Balancer::State::Settle(Member& member, const Standing& before, int64_t at) {
  const Standing after(member);
  if (after == before) return;
  MarkDirty(*member.service);
  if (after.serves() && !before.serves()) StartSlowly(member, at);
  if (!after.serves()) member.health.StopSlowStart();
}

void Balancer::State::StartSlowly(Member& member, int64_t at) {
  const ServiceRecord& record = *member.service;
  if (record.spec.slow_start.window.count() <= 0) return;
  member.health.StartSlowly(at);
  if (slow_starts.Has(record.id)) return;
  slow_starts.Set(record.id, std::min(After(at, record.SlowStartStep()),
                                      member.health.SlowUntil(record.spec.slow_start)));
}

void Balancer::State::Connected(Member& member, bool well) {
  ServiceRecord& record = *member.service;
  if (!member.health.Connected(record.spec.outlier, well)) return;
  if (record.ejected >= record.MostEjected()) return;
  const Standing before(member);
  member.health.Eject(record.spec.outlier, now);
  ++record.ejected;
  ejections.Set(member.slot, member.health.ejected_until());
  Settle(member, before, now);
}

void Balancer::State::EndEjection(Member& member, int64_t at) {
  const Standing before(member);
  ejections.Clear(member.slot);
  --member.service->ejected;
  member.health.Return(at);
  Settle(member, before, at);
}

// Where there are fewer backends now, those come back that would be the first to do so.
void Balancer::State::KeepWithinMostEjected(ServiceRecord& record) {
  if (record.ejected <= record.MostEjected()) return;
  std::vector<Member*> ejected;
  for (const std::unique_ptr<Member>& member : record.members) {
    if (member->health.ejected()) ejected.push_back(member.get());
  }
  std::stable_sort(ejected.begin(), ejected.end(), [](const Member* a, const Member* b) {
    return a->health.ejected_until() < b->health.ejected_until();
  });
  for (size_t i = 0; record.ejected > record.MostEjected(); ++i) EndEjection(*ejected[i], now);
}

void Balancer::State::Obey(Member& member, const BackendCommand& command) {
  const Standing before(member);
  const bool was_disabled = member.order == Member::Order::kDisable;
  const ClosingKey key{member.service->spec.name, member.address};
  switch (command.kind) {
    case BackendCommand::Kind::kWeight:
      if (member.weight() != command.weight) MarkDirty(*member.service);
      member.told_weight = command.weight;
      break;
    case BackendCommand::Kind::kEnable:
      member.order = Member::Order::kServe;
      closings.Clear(key);
      break;
    case BackendCommand::Kind::kDrain:
      if (member.order == Member::Order::kDrain) break;
      member.order = Member::Order::kDrain;
      member.drained = now;
      if (const auto& close_after = member.service->spec.close_after)
        closings.Set(key, After(now, close_after->count()));
      break;
    case BackendCommand::Kind::kDisable:
      member.order = Member::Order::kDisable;
      StopChecks(member);
      break;
  }
  // Nobody has looked at it for a while: it counts as up, and is checked at once, as with HAProxy.
  if (was_disabled && IsChecked(member)) {
    member.health.ForgetChecks();
    ScheduleCheck(member, now);
  }
  Settle(member, before, now);
  AimFlows(*member.service);
}

// --- Checks.

void Balancer::State::ScheduleCheck(Member& member, int64_t time) {
  member.next_check = time;
  if (member.check == 0 && IsChecked(member)) checks.Set(member.slot, time);
}

void Balancer::State::StopChecks(Member& member) {
  checks.Clear(member.slot);
  member.last_error.clear();
}

// --- Time.

void Balancer::State::Advance(int64_t new_now) {
  now = std::max(now, new_now);
  // In the order of time, so that it does not matter how often somebody looks.
  while (std::min(ejections.next(), slow_starts.next()) <= now) {
    if (ejections.next() <= slow_starts.next()) {
      const auto due = ejections.TakeDue(now);
      EndEjection(*by_slot[due->second], due->first);
    } else {
      const auto due = slow_starts.TakeDue(now);
      ServiceRecord& record = *by_id[due->second];
      MarkDirty(record);
      StepSlowStart(record, due->first);
    }
  }
}

// When the next table is due because weights have grown: a step later, or when all have their full weight.
void Balancer::State::StepSlowStart(ServiceRecord& record, int64_t at) {
  int64_t until = std::numeric_limits<int64_t>::min();
  for (const std::unique_ptr<Member>& member : record.members) {
    // What is over does not begin again if the window is made longer.
    if (!member->health.StartsSlowlyAt(record.spec.slow_start, at)) member->health.StopSlowStart();
    until = std::max(until, member->health.SlowUntil(record.spec.slow_start));
  }
  slow_starts.Set(record.id, until <= at ? kNever : std::min(After(at, record.SlowStartStep()), until));
}

int64_t Balancer::State::NextDue() const {
  const int64_t due =
      std::min({ejections.next(), slow_starts.next(), checks.next(), closings.next(), TableDue()});
  // Aimings wait for the table.
  return std::max(now, table_wanted ? due : std::min(due, aimings.next()));
}

void Balancer::State::AimFlows(const ServiceRecord& record) {
  if (record.TakesDatagrams()) aimings.Set(record.id, now);
}

void Balancer::State::MarkDirty(ServiceRecord& record) {
  table_wanted = true;
  AimFlows(record);
  if (std::exchange(record.dirty, true)) return;
  dirty.push_back(record.id);
}

Balancer::Balancer(BackendCountBook& counts, std::string zone)
    : state_(std::make_unique<State>(counts, std::move(zone))) {}
Balancer::~Balancer() = default;

void Balancer::Configure(std::vector<ServiceSpec> services, std::string zone, int64_t now) {
  state_->Advance(now);
  state_->Configure(std::move(services), std::move(zone));
}

bool Balancer::AwaitsSources() const {
  return std::ranges::any_of(state_->services, [](const auto& record) { return record->IsPending(); });
}

void Balancer::Discover(std::string_view service, std::vector<BackendSpec> backends, int64_t now) {
  state_->Advance(now);
  ServiceRecord* record = state_->Find(service);
  if (record == nullptr || record->spec.discover.none()) return;
  if (record->IsPending()) state_->MarkDirty(*record);
  record->source_error.clear();
  record->discovered_from = record->spec.discover;
  record->discovered_at = state_->now;
  if (record->discovered == backends && record->without_slot == 0) return;
  record->discovered = std::move(backends);
  if (record->spec.discover.finds_services()) return state_->Follow(*record, ServicesIn(record->discovered));
  state_->Reclaim();
  if (state_->Reconcile(*record)) state_->MarkDirty(*record);
}

void Balancer::DiscoverServices(std::string_view finder, FoundChanges changes, std::string wrong,
                                int64_t now) {
  state_->Advance(now);
  ServiceRecord* record = state_->Find(finder);
  if (record == nullptr || !record->spec.discover.finds_services()) return;
  if (wrong.empty() || !changes.empty()) {
    record->discovered_from = record->spec.discover;
    record->discovered_at = state_->now;
  }
  record->source_error = std::move(wrong);
  if (!changes.empty()) state_->Follow(*record, std::move(changes));
}

void Balancer::Remember(std::vector<FoundBackends> found) {
  for (FoundBackends& one : found) state_->remembered.insert_or_assign(one.service, std::move(one));
}

FoundBackends Balancer::Found(std::string_view service) const {
  FoundBackends found{.service = std::string(service)};
  const ServiceRecord* record = state_->Find(service);
  if (record == nullptr || !record->discovered_at) return found;
  found.source = record->discovered_from;
  found.backends = record->discovered;
  if (record->spec.discover.services_in.empty()) {
    for (const auto& [name, one] : record->finds) found.services.push_back(one);
  }
  found.found_at = *record->discovered_at;
  return found;
}

void Balancer::SourceFailed(std::string_view service, std::string why, int64_t now) {
  state_->Advance(now);
  ServiceRecord* record = state_->Find(service);
  if (record == nullptr || record->spec.discover.none()) return;
  if (record->IsPending()) state_->MarkDirty(*record);
  record->source_error = std::move(why);
}

void Balancer::Checked(uint32_t slot, uint64_t check, bool up, std::string_view error, int64_t now) {
  state_->Advance(now);
  Member* member = state_->MemberAt(slot);
  if (member == nullptr || check == 0 || member->check != check) return;
  member->check = 0;
  if (!State::IsChecked(*member)) return;
  state_->ScheduleCheck(*member, member->next_check);
  const State::Standing before(*member);
  member->health.Checked(member->service->spec.health, up);
  member->last_error = up ? std::string_view() : error;
  state_->Settle(*member, before, state_->now);
}

void Balancer::CheckSkipped(uint32_t slot, uint64_t check, int64_t now) {
  state_->Advance(now);
  Member* member = state_->MemberAt(slot);
  if (member == nullptr || check == 0 || member->check != check) return;
  member->check = 0;
  if (State::IsChecked(*member)) state_->ScheduleCheck(*member, member->next_check);
}

void Balancer::Connected(uint32_t slot, bool well, int64_t now) {
  state_->Advance(now);
  if (Member* member = state_->MemberAt(slot)) state_->Connected(*member, well);
}

absl::Status Balancer::Command(std::string_view service_name, std::string_view backend_name,
                               const BackendCommand& command, int64_t now) {
  state_->Advance(now);
  ServiceRecord* record = state_->Find(service_name);
  const std::string service(service_name), backend(backend_name);
  std::vector<std::string> known;
  if (record == nullptr) {
    state_->ForEach([&known](const ServiceRecord& other) { known.push_back(other.spec.name); });
    return absl::NotFoundError(
        absl::StrCat("there is no service \"", service, "\"; services: ", SomeOf(known)));
  }
  const absl::StatusOr<SockAddr> address = SockAddr::FromText(backend);
  for (const std::unique_ptr<Member>& member : record->members) {
    if (!address.ok() || AddressKey(member->address) != AddressKey(*address)) {
      known.push_back(member->address.ToString());
      continue;
    }
    if (command.kind == BackendCommand::Kind::kWeight && command.weight > kMostWeight) {
      return absl::InvalidArgumentError(absl::StrCat("a weight of ", command.weight, " for ", backend,
                                                     " is too much; say 0 to ", kMostWeight));
    }
    state_->Obey(*member, command);
    return absl::OkStatus();
  }
  return absl::NotFoundError(
      absl::StrCat("service \"", service, "\" has no backend \"", backend, "\"; backends: ", SomeOf(known)));
}

int64_t Balancer::NextDue() const {
  return state_->NextDue();
}

void Balancer::Advance(int64_t now) {
  state_->Advance(now);
}

std::shared_ptr<const ServiceTable> Balancer::TakeTable(int64_t now, bool at_once) {
  State& state = *state_;
  state.Advance(now);
  if (!state.table_wanted || (!at_once && state.TableDue() > state.now)) return nullptr;
  if (state.index_stale) state.RebuildIndex();
  for (const uint32_t id : std::exchange(state.dirty, {})) {
    ServiceRecord* record = state.by_id[id];
    if (record == nullptr) continue;
    record->dirty = false;
    state.built[id] = record->Build(state.zone, state.counts.reactors(), state.now);
  }
  auto table = std::make_shared<const ServiceTable>(state.index, state.built);
  state.tables.Made(table.get());
  state.table_made = state.now;
  state.table_wanted = false;
  return table;
}

std::vector<DueCheck> Balancer::TakeChecks(int64_t now) {
  State& state = *state_;
  state.Advance(now);
  std::vector<DueCheck> due;
  while (const auto first = state.checks.TakeDue(state.now)) {
    Member& member = *state.by_slot[first->second];
    const ServiceSpec& spec = member.service->spec;
    const int64_t interval = std::max<int64_t>(1, spec.health.interval.count());
    member.next_check = After(first->first, ((state.now - first->first) / interval + 1) * interval);
    member.check = ++state.last_check;
    due.push_back({member.slot, member.check, member.address, spec.network, spec.health.timeout.count()});
  }
  return due;
}

std::vector<DueClosing> Balancer::TakeClosings(int64_t now) {
  state_->Advance(now);
  std::vector<DueClosing> due;
  while (auto first = state_->closings.TakeDue(state_->now))
    due.push_back({std::move(first->second.service), first->second.address});
  return due;
}

std::vector<DueAiming> Balancer::TakeAimings(int64_t now) {
  State& state = *state_;
  state.Advance(now);
  std::vector<DueAiming> due;
  while (!state.table_wanted && state.aimings.next() <= state.now) {
    const ServiceRecord& record = *state.by_id[state.aimings.TakeDue(state.now)->second];
    state.aimings.Set(record.id, record.NextFlowsLeave(state.now));
    if (record.IsPending()) continue;  // its source may name whom we do not know
    DueAiming aiming{.service = record.id, .name = record.spec.name};
    for (const std::unique_ptr<Member>& member : record.members) {
      if (record.KeepsFlows(*member, state.now)) aiming.stay.insert(BackendIdentity(member->address));
    }
    due.push_back(std::move(aiming));
  }
  return due;
}

void Balancer::TableRetired(const ServiceTable& table) {
  state_->tables.Retired(&table);
}

std::vector<Balancer::Counted> Balancer::CountedBackends() const {
  std::vector<Counted> counted;
  state_->ForEach([&counted](const ServiceRecord& record) {
    const bool limited = record.spec.limits.enabled();
    if (!PicksByLiveCounts(record.spec.policy) && !limited) return;
    const bool by_rtt = record.spec.policy == PickPolicy::kLeastRtt;
    for (const std::unique_ptr<Member>& member : record.members)
      counted.push_back(
          {.address = member->address, .slot = member->slot, .by_rtt = by_rtt, .limited = limited});
  });
  return counted;
}

std::vector<ServiceReport> Balancer::Describe(int64_t now) const {
  std::vector<ServiceReport> reports;
  state_->ForEach(
      [&](const ServiceRecord& record) { reports.push_back(record.Report(state_->counts, now)); });
  return reports;
}

std::vector<std::string> Balancer::TakeRemarks() {
  return std::exchange(state_->remarks, {});
}

}  // namespace shunt::net
