// SPDX-License-Identifier: Apache-2.0
// ServiceRecord and Member: what the Balancer keeps of one service and of each of its backends, and what it
// makes of them: the service as reactors see it, and the report for people.
//
// Values and what follows from them. When something changes, and what else does then, is decided in
// balancer.cc.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "net/balancer/backend_counts.h"
#include "net/balancer/backend_health.h"
#include "net/balancer/balancer.h"
#include "net/balancer/found.h"
#include "net/balancer/pick_table.h"
#include "net/balancer/service.h"
#include "net/balancer/service_table.h"

namespace shunt::net {

struct ServiceRecord;

// What all reactors have counted of a slot, at a glance.
struct CountTotals {
  uint64_t picks = 0, connected = 0, failed = 0, connect_ns = 0;
};
CountTotals TotalsOf(const BackendCountBook& counts, uint32_t slot);

// A backend of a service: in the configuration or discovered, with all labels that the service asks for.
struct Member {
  // What the operator has said last, besides the weight.
  enum class Order : uint8_t { kServe, kDrain, kDisable };

  ServiceRecord* service = nullptr;
  uint32_t slot = 0;
  SockAddr address;  // AF_INET for IPv4, in whichever spelling it was listed
  uint32_t listed_weight = 1;
  bool backup = false;
  std::string zone;

  Order order = Order::kServe;
  std::optional<uint32_t> told_weight;
  int64_t drained = 0;  // kDrain: since when
  BackendHealth health;

  // Active checks. They keep the rhythm that they began with: the next one is an interval after the time that
  // this one was due, so a pause of the engine's does not make all of them start at the same time ever after.
  int64_t next_check = 0;
  uint64_t check = 0;  // the number of the one under way; 0: none
  std::string last_error;

  CountTotals before;  // of the slot, when it became this one's

  uint32_t weight() const { return told_weight.value_or(listed_weight); }
  // The operator lets it take connections.
  bool Wanted() const { return order == Order::kServe && weight() > 0; }
  // It can take connections.
  bool Fit() const { return health.up() && !health.ejected(); }
};

struct ServiceRecord {
  ServiceRecord(ServiceSpec the_spec, uint32_t the_id) : spec(std::move(the_spec)), id(the_id) {}

  // Its source has not said anything yet, good or bad.
  bool IsPending() const { return !spec.discover.none() && !discovered_at && source_error.empty(); }
  // At most so many backends are ejected at a time.
  size_t MostEjected() const;
  // How far apart tables are made while a slow start lasts: a hundredth of it, and no less than a second.
  int64_t SlowStartStep() const;

  // Connected datagram sockets are aimed at its backends.
  bool TakesDatagrams() const;
  // UDP flows that are at this backend stay there: see Balancer::TakeAimings().
  bool KeepsFlows(const Member& member, int64_t now) const;
  // When those of the next drained backend go, if nothing else happens; the end of time: none do.
  int64_t NextFlowsLeave(int64_t now) const;

  // The service as it is now. Notes whether it panics.
  std::shared_ptr<const Service> Build(const std::string& own_zone, size_t reactors, int64_t now);
  ServiceReport Report(const BackendCountBook& counts, int64_t now) const;

  ServiceSpec spec;
  const uint32_t id;
  std::vector<BackendSpec> discovered;           // what the source has found
  DiscoverSpec discovered_from;                  // which one it was
  std::optional<int64_t> discovered_at;          // nothing: it has not answered yet
  std::string source_error;                      // of the source
  std::vector<std::unique_ptr<Member>> members;  // listed ones first
  size_t without_slot = 0;                       // backends for which there was no slot
  size_t ejected = 0;                            // of the members
  bool dirty = false;                            // the next table has it anew
  bool panics = false;                           // in the last table

  // Where a source has found it and nobody has configured it: what it is made of, and the name of the service
  // whose source that is. Null, and empty: it is configured.
  FoundServicePtr found;
  std::string finder;
  // Where its own source finds services: these, by name.
  absl::flat_hash_map<std::string, FoundServicePtr> finds;

 private:
  int64_t FlowsLeave(const Member& member) const;

  // Turns of this service's round-robin, which go on from table to table. A table keeps its own alive.
  std::shared_ptr<RoundRobinPlaces> v4_places_, v6_places_;
  const std::shared_ptr<QueueTally> queue_ = std::make_shared<QueueTally>();
};

// kDefault is given its meaning.
AffinityKey EffectiveAffinity(const ServiceSpec& spec);

// As tools/service_config.h reads them.
std::string TextOf(const ServiceAddress& address);
const char* TextOf(PickPolicy policy);
const char* TextOf(AffinityKey key);

}  // namespace shunt::net
