// SPDX-License-Identifier: Apache-2.0
// ServiceRecord: what reactors and people see of it.

#include "net/balancer/service_record.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/balancer/agenda.h"
#include "net/balancer/pick_groups.h"

namespace shunt::net {
namespace {

// While somebody starts slowly, one of weight 1 has this in the table, so that parts of it can be told.
constexpr uint32_t kParts = 100;

constexpr double kSecond = 1e9;

// A table and what it counts turns with.
struct TableAndPlaces {
  std::shared_ptr<RoundRobinPlaces> places;
  std::unique_ptr<const PickTable> table;
};

// By what all weights are multiplied.
uint32_t PartsOf(const ServiceRecord& record, int64_t now) {
  uint32_t heaviest = 1;
  bool slow = false;
  for (const std::unique_ptr<Member>& member : record.members) {
    if (!member->Wanted()) continue;
    heaviest = std::max(heaviest, member->weight());
    slow = slow || member->health.StartsSlowlyAt(record.spec.slow_start, now);
  }
  return slow ? std::clamp(kMostWeight / heaviest, 1u, kParts) : 1;
}

const char* StateOf(const Member& member, int64_t now) {
  if (member.order == Member::Order::kDisable) return "disabled";
  if (member.order == Member::Order::kDrain) return "draining";
  if (member.weight() == 0) return "off";
  if (!member.health.up()) return "down";
  if (member.health.ejected()) return "ejected";
  return member.health.StartsSlowlyAt(member.service->spec.slow_start, now) ? "slow-start" : "up";
}

// Connections that are open, or about to be; nothing before anybody has looked.
std::optional<uint32_t> TakenPlaces(const BackendCountBook& counts, uint32_t slot) {
  const uint32_t taken = counts.PlacesOf(slot).taken();
  if (taken >= PlaceCount::kMost) return {};
  return taken;
}

BackendReport ReportOf(const Member& member, const BackendCountBook& counts, int64_t now) {
  BackendReport report;
  report.address = member.address.ToString();
  report.zone = member.zone;
  report.weight = member.weight();
  report.effective_weight = report.weight * member.health.ShareAt(member.service->spec.slow_start, now);
  report.backup = member.backup;
  report.state = StateOf(member, now);
  const CountTotals totals = TotalsOf(counts, member.slot);
  report.picks = totals.picks - member.before.picks;
  report.connected = totals.connected - member.before.connected;
  report.failed = totals.failed - member.before.failed;
  report.ejections = member.health.ejections();
  report.in_flight = counts.InFlight(member.slot);
  if (PicksByLiveCounts(member.service->spec.policy)) {
    report.open = counts.Open(member.slot);
    report.rtt_us = counts.Rtt(member.slot);
  }
  if (const LimitSpec& limits = member.service->spec.limits; limits.enabled()) {
    report.limit = limits.max_connections;
    report.open = TakenPlaces(counts, member.slot);
    const bool serves = member.Wanted() && member.Fit();
    if (serves && report.open && *report.open >= report.limit) report.state = "full";
  }
  if (report.connected > 0) {
    const double ns = static_cast<double>(totals.connect_ns - member.before.connect_ns);
    report.mean_connect_us = ns / 1e3 / static_cast<double>(report.connected);
  }
  report.last_error = member.last_error;
  return report;
}

}  // namespace

CountTotals TotalsOf(const BackendCountBook& counts, uint32_t slot) {
  CountTotals totals;
  for (size_t i = 0; i < counts.reactors(); ++i) {
    const BackendCounts& of_one = counts.At(i, slot);
    totals.picks += of_one.picks.load(std::memory_order_relaxed);
    totals.connected += of_one.connected.load(std::memory_order_relaxed);
    totals.failed += of_one.failed.load(std::memory_order_relaxed);
    totals.connect_ns += of_one.connect_ns.load(std::memory_order_relaxed);
  }
  return totals;
}

size_t ServiceRecord::MostEjected() const {
  // 0.29 of 100 is 29, also in binary.
  constexpr double kRounding = 1e-9;
  const double share = spec.outlier.max_ejected * static_cast<double>(members.size());
  return std::max<size_t>(1, static_cast<size_t>(share + kRounding));
}

int64_t ServiceRecord::SlowStartStep() const {
  return std::max<int64_t>(1'000'000'000, spec.slow_start.window.count() / 100);
}

bool ServiceRecord::TakesDatagrams() const {
  return std::any_of(spec.addresses.begin(), spec.addresses.end(),
                     [](const ServiceAddress& address) { return address.transport == Transport::kUdp; });
}

bool ServiceRecord::KeepsFlows(const Member& member, int64_t now) const {
  if (member.order == Member::Order::kDisable || (!member.health.up() && !panics)) return false;
  return member.order == Member::Order::kServe || now < FlowsLeave(member);
}

// Without a time to close its connections, flows go when it is drained: nothing else would end them.
int64_t ServiceRecord::FlowsLeave(const Member& member) const {
  return After(member.drained, spec.close_after.value_or(std::chrono::nanoseconds(0)).count());
}

int64_t ServiceRecord::NextFlowsLeave(int64_t now) const {
  int64_t next = std::numeric_limits<int64_t>::max();
  for (const std::unique_ptr<Member>& member : members) {
    if (member->order == Member::Order::kDrain && FlowsLeave(*member) > now)
      next = std::min(next, FlowsLeave(*member));
  }
  return next;
}

std::shared_ptr<const Service> ServiceRecord::Build(const std::string& own_zone, size_t reactors,
                                                    int64_t now) {
  const bool zone_aware =
      !own_zone.empty() && spec.zone_aware_from > 0 && members.size() >= spec.zone_aware_from;
  const uint32_t parts = PartsOf(*this, now);
  std::vector<GroupCandidate> v4, v6;
  for (const std::unique_ptr<Member>& member : members) {
    if (!member->Wanted()) continue;
    const double share = member->health.ShareAt(spec.slow_start, now);
    const double weight = std::round(static_cast<double>(member->weight()) * parts * share);
    GroupCandidate candidate;
    candidate.backend.address = member->address;
    candidate.backend.slot = member->slot;
    candidate.backend.weight = std::clamp(static_cast<uint32_t>(weight), 1u, kMostWeight);
    candidate.backend.identity = BackendIdentity(member->address);
    candidate.available = member->Fit();
    candidate.backup = member->backup;
    candidate.own_zone = member->zone == own_zone;
    (member->address.family() == AF_INET ? v4 : v6).push_back(std::move(candidate));
  }

  panics = false;
  const AffinityKey affinity = EffectiveAffinity(spec);
  const bool remembers = affinity != AffinityKey::kNone && spec.affinity_timeout.count() > 0;
  const bool by_key = affinity != AffinityKey::kNone && !remembers;
  const auto make = [&](const std::vector<GroupCandidate>& candidates,
                        std::shared_ptr<RoundRobinPlaces>& places,
                        std::shared_ptr<const BackendIndex>& index) -> std::shared_ptr<const PickTable> {
    if (candidates.empty()) return nullptr;
    Grouping grouping = GroupBackends(candidates, spec.panic, zone_aware);
    panics = panics || grouping.primary_panics || grouping.backup_panics;
    if (places == nullptr) places = std::make_shared<RoundRobinPlaces>(reactors);
    if (remembers) {
      auto known = std::make_shared<BackendIndex>();
      for (const PickGroup& group : grouping.groups) {
        for (const Backend& backend : group.backends) known->Add(backend);
      }
      index = std::move(known);
    }
    auto both = std::make_shared<TableAndPlaces>();
    both->places = places;
    both->table = PickTable::Make(spec.policy, by_key, std::move(grouping.groups), *places);
    if (both->table->size() == 0) return nullptr;
    return {both, both->table.get()};
  };
  auto service = std::make_shared<Service>();
  service->id = id;
  service->name = spec.name;
  service->attempts = spec.connect.attempts;
  service->attempt_timeout_ns = spec.connect.attempt_timeout.count();
  service->race_after_ns = spec.connect.race_after.count();
  service->limits = spec.limits;
  service->queue = queue_;
  service->affinity = affinity;
  service->network = spec.network;
  service->peer_name = spec.peer_name;
  service->pending = IsPending();
  service->v4 = make(v4, v4_places_, service->v4_index);
  service->v6 = make(v6, v6_places_, service->v6_index);
  service->name_hash = HashOfName(spec.name);
  if (remembers) service->remembers_ns = spec.affinity_timeout.count();
  return service;
}

ServiceReport ServiceRecord::Report(const BackendCountBook& counts, int64_t now) const {
  ServiceReport report;
  report.name = spec.name;
  for (const ServiceAddress& address : spec.addresses) report.addresses.push_back(TextOf(address));
  report.policy = TextOf(spec.policy);
  report.affinity = TextOf(EffectiveAffinity(spec));
  report.panic = panics;
  report.source = found == nullptr ? spec.discover.Where() : finder;
  report.source_error = found == nullptr ? source_error : found->trouble;
  if (without_slot > 0) {
    absl::StrAppend(&report.source_error, report.source_error.empty() ? "" : "; ", without_slot,
                    " backends are left out: there may be ", BackendCountBook::kMostSlots,
                    " of all services together");
  }
  if (spec.limits.enabled()) {
    report.limited = true;
    report.queued = queue_->waiting.load(std::memory_order_relaxed);
    report.refused = queue_->refused.load(std::memory_order_relaxed);
    report.waited = queue_->waited.load(std::memory_order_relaxed);
    report.waited_s = static_cast<double>(queue_->waited_ns.load(std::memory_order_relaxed)) / kSecond;
  }
  if (discovered_at) report.source_age_s = static_cast<double>(now - *discovered_at) / kSecond;
  for (const std::unique_ptr<Member>& member : members)
    report.backends.push_back(ReportOf(*member, counts, now));
  return report;
}

AffinityKey EffectiveAffinity(const ServiceSpec& spec) {
  if (spec.affinity != AffinityKey::kDefault) return spec.affinity;
  const bool by_hash = spec.policy == PickPolicy::kMaglev || spec.policy == PickPolicy::kRingHash;
  return by_hash ? AffinityKey::kContainer : AffinityKey::kNone;
}

std::string TextOf(const ServiceAddress& address) {
  const Subnet& network = address.network;
  const bool one = network.prefix_len() == (network.IsV4() ? 32 : 128);
  const std::string where = one ? network.prefix().ToString() : network.ToString();
  std::string text = network.IsV4() ? where : absl::StrCat("[", where, "]");
  absl::StrAppend(&text, ":", address.first_port);
  if (address.last_port != address.first_port) absl::StrAppend(&text, "-", address.last_port);
  return text + (address.transport == Transport::kTcp ? "/tcp" : "/udp");
}

const char* TextOf(PickPolicy policy) {
  switch (policy) {
    case PickPolicy::kRoundRobin:
      return "round-robin";
    case PickPolicy::kRandom:
      return "random";
    case PickPolicy::kLeastRequest:
      return "least-request";
    case PickPolicy::kMaglev:
      return "maglev";
    case PickPolicy::kRingHash:
      return "ring-hash";
    case PickPolicy::kFirst:
      return "first";
    case PickPolicy::kLeastConnections:
      return "least-connections";
    case PickPolicy::kLeastRtt:
      return "least-rtt";
  }
  return "";
}

const char* TextOf(AffinityKey key) {
  switch (key) {
    case AffinityKey::kDefault:
      return "";
    case AffinityKey::kNone:
      return "none";
    case AffinityKey::kContainer:
      return "container";
    case AffinityKey::kUser:
      return "user";
    case AffinityKey::kProcess:
      return "process";
  }
  return "";
}

}  // namespace shunt::net
