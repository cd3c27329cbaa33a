// SPDX-License-Identifier: Apache-2.0
// Balancer::State: all that the Balancer knows, and the steps that its functions are made of.
//
// reconcile.cc has those that make backends and services come, change and go, found_services.cc services that
// nobody has configured; balancer.cc has those that happen to a backend. Each of them that changes one ends
// in Settle(), which knows whether picks are to change and whether a slow start begins. What is to happen by
// itself stands in an agenda. Time has been advanced before any of them begins. All take time in proportion
// to the service that they are about, but for Configure(), and RebuildIndex(), once for a table at most.

#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "net/balancer/agenda.h"
#include "net/balancer/balancer.h"
#include "net/balancer/service_record.h"
#include "net/balancer/slots.h"

namespace shunt::net {

// What makes an address the same backend. Both spellings of IPv4 do.
struct AddressKey {
  uint64_t high, low;
  uint32_t scope;
  uint16_t port;

  explicit AddressKey(const SockAddr& address)
      : high(address.ip().high()), low(address.ip().low()), scope(address.scope_id()), port(address.port()) {}
  friend auto operator<=>(const AddressKey&, const AddressKey&) = default;
  template <typename H>
  friend H AbslHashValue(H hash, const AddressKey& key) {
    return H::combine(std::move(hash), key.high, key.low, key.scope, key.port);
  }
};

// A backend's connections. It may have gone.
struct ClosingKey {
  std::string service;
  SockAddr address;

  friend bool operator==(const ClosingKey& a, const ClosingKey& b) {
    return a.service == b.service && AddressKey(a.address) == AddressKey(b.address);
  }
  friend bool operator<(const ClosingKey& a, const ClosingKey& b) {
    return std::tuple(std::string_view(a.service), AddressKey(a.address)) <
           std::tuple(std::string_view(b.service), AddressKey(b.address));
  }
  template <typename H>
  friend H AbslHashValue(H hash, const ClosingKey& key) {
    return H::combine(std::move(hash), key.service, AddressKey(key.address));
  }
};

// Each backend is a service's, at the address that BackendSpec::service says; the first one counts.
FoundChanges ServicesIn(const std::vector<BackendSpec>& backends);

// "a, b, c and 17 more"
std::string SomeOf(const std::vector<std::string>& names);

struct Balancer::State {
  State(BackendCountBook& the_counts, std::string the_zone) : counts(the_counts), zone(std::move(the_zone)) {}

  // --- What the operator and the sources want.
  void Configure(std::vector<ServiceSpec> specs, std::string new_zone);
  // A service as it is wanted now: `before` changed, or if that is null a new one.
  using Record = std::unique_ptr<ServiceRecord>;
  Record Admit(Record before, ServiceSpec spec, FoundServicePtr found, const std::string& finder);
  void Change(ServiceRecord& record, ServiceSpec spec, FoundServicePtr found);
  void Remove(ServiceRecord& record);
  // All services, those that are configured first.
  template <typename Visit>
  void ForEach(const Visit& visit) const {
    for (const Record& record : services) visit(*record);
    for (const auto& [name, record] : found_services) visit(*record);
  }
  // Before its first Reconcile().
  void Recall(ServiceRecord& record);
  void RebuildIndex();
  void MarkIndexStale() { index_stale = table_wanted = true; }

  // --- Services that sources have found (found_services.cc). What may be there follows from what was found
  // and what is configured, each time anew: a service that is configured later takes its address back.
  // Which addresses were turned down, of each that was found.
  using TurnedDown = absl::flat_hash_map<std::string, std::vector<std::string>>;
  // All, after all that is configured has changed. `before`: those that there were, by name.
  void PlaceAll(absl::flat_hash_map<std::string, Record>& before);
  // `record`: the one that there was of that name and finder; null: none. `told`: of what was turned down.
  void Place(const ServiceRecord& finder, const FoundServicePtr& found, Record record,
             const std::vector<std::string>& told);
  Record TakeFound(const ServiceRecord& finder, const std::string& name);
  static std::vector<std::string> TakeTold(TurnedDown& of_all, const ServiceRecord& finder,
                                           const std::string& name);
  void Follow(ServiceRecord& finder, FoundChanges changes);
  void Lose(ServiceRecord& finder, const std::string& name);
  void TellTurnedDown();

  // Makes the members of what is listed and discovered. True: picks are to change.
  bool Reconcile(ServiceRecord& record);
  std::unique_ptr<Member> NewMember(ServiceRecord& record, const BackendSpec& spec);
  // True: what reactors see of it has changed.
  bool Relist(Member& member, const BackendSpec& spec);
  void Drop(Member& member);
  // After Drop() of all that go: what it frees may be given out again.
  void Reclaim();

  // --- What happens to a backend.
  // Before and after a change at `at`.
  struct Standing {
    explicit Standing(const Member& member) : wanted(member.Wanted()), fit(member.Fit()) {}
    bool wanted, fit;
    bool serves() const { return wanted && fit; }
    friend bool operator==(const Standing&, const Standing&) = default;
  };
  void Settle(Member& member, const Standing& before, int64_t at);
  void StartSlowly(Member& member, int64_t at);
  void Connected(Member& member, bool well);
  void EndEjection(Member& member, int64_t at);
  void KeepWithinMostEjected(ServiceRecord& record);
  void Obey(Member& member, const BackendCommand& command);

  // --- Checks.
  static bool IsChecked(const Member& member) {
    return member.service->spec.health.enabled && member.order != Member::Order::kDisable;
  }
  // The next one, unless one is under way: then that is when it ends.
  void ScheduleCheck(Member& member, int64_t time);
  void StopChecks(Member& member);

  // --- Time.
  void Advance(int64_t new_now);
  void StepSlowStart(ServiceRecord& record, int64_t at);
  int64_t NextDue() const;

  void MarkDirty(ServiceRecord& record);
  void AimFlows(const ServiceRecord& record);
  int64_t TableDue() const {
    return table_wanted ? (tables.last() == 0 ? now : After(table_made, kTableInterval)) : kNever;
  }
  Member* MemberAt(uint32_t slot) { return slot < by_slot.size() ? by_slot[slot] : nullptr; }
  ServiceRecord* Find(std::string_view name) {
    const auto found = by_name.find(absl::string_view(name.data(), name.size()));
    return found == by_name.end() ? nullptr : found->second;
  }

  BackendCountBook& counts;
  std::string zone;
  int64_t now = std::numeric_limits<int64_t>::min();  // the latest that was told

  std::vector<Record> services;                         // as they were configured
  absl::btree_map<std::string, Record> found_services;  // by name
  std::vector<ServiceRecord*> finders;                  // of `services`, in their order
  absl::flat_hash_map<std::string, ServiceRecord*> by_name;
  absl::flat_hash_map<std::string, FoundBackends> remembered;  // by service, until they are configured
  std::vector<ServiceRecord*> by_id;                           // null: nobody's
  std::vector<Member*> by_slot;                                // null: nobody's

  NumberPool ids, slots;
  std::vector<uint32_t> id_of_slot;   // whose it was last
  std::vector<uint32_t> slots_of_id;  // how many are not free
  uint32_t grown = 0;                 // slots for which there are counts

  Agenda<uint32_t> checks;       // by slot
  Agenda<uint32_t> ejections;    // by slot: their ends
  Agenda<uint32_t> slow_starts;  // by service: when the next table is to be made for them
  Agenda<ClosingKey> closings;
  Agenda<uint32_t> aimings;  // by service: when it is to be said where its UDP flows may be
  uint64_t last_check = 0;
  ServiceIndex owned;  // addresses of services that are configured
  TurnedDown turned_down;
  std::vector<std::string> owned_now, elsewhere_now, twice_now;  // turned down, and not told of yet
  std::vector<std::string> remarks;

  // The next table: what it shares with the last one, and what is to be made anew.
  bool table_wanted = false;
  int64_t table_made = 0;                             // the last one
  std::vector<std::shared_ptr<const Service>> built;  // by id
  std::vector<uint32_t> dirty;
  std::shared_ptr<const ServiceIndex> index;
  bool index_stale = true;
  TablesInUse tables;
};

}  // namespace shunt::net
