// SPDX-License-Identifier: Apache-2.0
// Balancer: what is known of all services and their backends, and the tables that follow from it.
//
// It decides and remembers, and does nothing else: no thread, no descriptor, no clock. Times are
// CLOCK_MONOTONIC in nanoseconds, as the caller says; so tests run it with a clock of their own. One thread.
//
//   what comes in                      what goes out
//   Configure   what the operator wants        TakeTable     when picks are to change
//   Discover    what a source has found        TakeChecks    whom to try to connect to now
//   Checked     how an active check went       TakeClosings  whose connections are to be closed
//   Connected   how a program's connect went   Describe      for people
//   Remember    what sources found before us   TakeAimings   whose UDP flows are to go elsewhere
//   Command     drain, weight, disable...      Found         what sources have found now
//
// A backend takes new connections if the operator lets it (not drained, not disabled, weight above 0), its
// active checks do not say that it is down (`fall` failures in a row, until `rise` successes in a row; one
// that was never checked counts as up), and it is not ejected. `consecutive` failed connects in a row eject
// it for base_ejection times the number of its ejections (at most max_ejection) as long as no more than
// max_ejected of the service's backends are, or else they are counted anew; each `interval` without an
// ejection takes one off that number. A backend that comes back, for whatever reason it was away, or comes
// new to a service that has others, starts slowly.

#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "net/balancer/backend_counts.h"
#include "net/balancer/found.h"
#include "net/balancer/pick_groups.h"
#include "net/balancer/service.h"
#include "net/balancer/service_table.h"

namespace shunt::net {

// A backend that is to be checked: connect within `timeout_ns` and say Checked().
struct DueCheck {
  uint32_t slot = 0;
  uint64_t check = 0;  // its number, for Checked()
  SockAddr address;
  ServiceNetwork network = ServiceNetwork::kHost;
  int64_t timeout_ns = 0;
};

// Connections of programs to this address are to be closed.
struct DueClosing {
  std::string service;
  SockAddr address;
};

// UDP flows of this service may be at these backends; what is at another one is to be aimed anew.
struct DueAiming {
  uint32_t service = 0;  // its id
  std::string name;
  absl::flat_hash_set<uint64_t> stay;  // BackendIdentity()
};

// What the operator can tell a backend at run time. Holds until it is told otherwise, or the backend has
// gone.
// Disabled backends are not checked; one that is enabled counts as up and is checked at once. A command about
// the weight leaves the others in force, and they it.
struct BackendCommand {
  enum class Kind : uint8_t { kDrain, kDisable, kEnable, kWeight };
  Kind kind = Kind::kEnable;
  uint32_t weight = 1;  // kWeight
};

// For `shunt ctl services` and the metrics.
struct BackendReport {
  std::string address;
  std::string zone;
  uint32_t weight = 1;          // as the operator wants it
  double effective_weight = 1;  // with slow start
  bool backup = false;
  // "up", "down", "ejected", "draining", "disabled", "off" (weight 0), "slow-start", "full"
  std::string state;
  uint64_t picks = 0, connected = 0, failed = 0, ejections = 0;
  uint32_t in_flight = 0;
  uint32_t limit = 0;  // connections that it may have; 0: any number
  // Where the policy or the limit needs it: connections that are open; and the time to reach it (0: not
  // known).
  std::optional<uint32_t> open;
  uint32_t rtt_us = 0;
  double mean_connect_us = 0;  // 0: none was connected
  std::string last_error;      // of active checks; may be empty
};

struct ServiceReport {
  std::string name;
  std::vector<std::string> addresses;
  std::string policy;
  std::string affinity;
  bool panic = false;
  std::string source;        // "" (the configuration), or which file or name
  std::string source_error;  // why it does not answer; empty: it does
  double source_age_s = 0;   // since what is in force came from it
  // With limits: connects that wait for a place, that found none in the end, that have waited, and how long.
  bool limited = false;
  uint32_t queued = 0;
  uint64_t refused = 0, waited = 0;
  double waited_s = 0;
  std::vector<BackendReport> backends;
};

class Balancer {
 public:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  // Tables are made this far apart at least.
  static constexpr int64_t kTableInterval = 100'000'000;

  // `counts` outlives it and everything that it makes. `zone`: this machine's; may be empty.
  Balancer(BackendCountBook& counts, std::string zone);
  ~Balancer();

  // Replaces everything. What is known of a backend of a service of the same name stays: its health,
  // ejections, commands, slot and counts. The specs are consistent (tools/service_config.h).
  void Configure(std::vector<ServiceSpec> services, std::string zone, int64_t now);
  // What the source of `service` has found, in the place of what it had found before; it adds to what is
  // listed. Of an address that is there several times the first one counts. Ignored if there is no such
  // service, or it has no source any more. Another source than before: what the former has found is in force
  // until this one answers.
  //
  // Where it finds services by their addresses (DiscoverSpec::services_in), each is one of TCP that is named
  // after its address and has one backend.
  void Discover(std::string_view service, std::vector<BackendSpec> backends, int64_t now);
  // What has become of the services that the source of `finder` finds (DiscoverSpec::finds_services()), and
  // what is wrong with the source now; empty: nothing. They are as `finder` is configured in all that is not
  // found. None gets an address of a service that is configured. Of two for one address, the first one by
  // name gets it. Takes time in proportion to what has changed.
  void DiscoverServices(std::string_view finder, FoundChanges changes, std::string wrong, int64_t now);
  // What sources had found for who balanced before us. It is in force, until the source answers, in services
  // that come with the next Configure() and look for their backends in the same place; the rest is forgotten.
  void Remember(std::vector<FoundBackends> found);
  // What is in force of a source, that of `service` or the one before.
  FoundBackends Found(std::string_view service) const;
  // The source does not answer: what is in force stays.
  void SourceFailed(std::string_view service, std::string why, int64_t now);

  // Each check that was taken ends in one of these, or its backend is not checked again. Ignored if it is not
  // the one under way: the slot may be another backend's by now.
  void Checked(uint32_t slot, uint64_t check, bool up, std::string_view error, int64_t now);
  // The check could not be made, which says nothing about the backend: there will be another one.
  void CheckSkipped(uint32_t slot, uint64_t check, int64_t now);
  // Reactors say so before they take the attempt off the slot's count, and what they have said is told before
  // the next Configure() or Discover(), which may give the slot to another backend.
  void Connected(uint32_t slot, bool well, int64_t now);
  // `backend` is an address, "192.168.7.11:8080". The error names what there is.
  absl::Status Command(std::string_view service, std::string_view backend, const BackendCommand& command,
                       int64_t now);

  // When something is to be done next, if nothing comes in: call Advance() then, and take what there is.
  // Exact, and never before the latest time that was told. kNever: nothing is.
  int64_t NextDue() const;
  void Advance(int64_t now);

  // A source has not said anything yet, good or bad.
  bool AwaitsSources() const;

  // A new table if picks are to change and the last one is old enough, or somebody waits for it (`at_once`);
  // else nullptr, and NextDue() says when.
  std::shared_ptr<const ServiceTable> TakeTable(int64_t now, bool at_once = false);
  // Checks of a backend are an interval apart. The first one comes a part of it after the backend, by a hash,
  // and they keep that rhythm: after a pause they are not all due at the same time. Never two at once.
  std::vector<DueCheck> TakeChecks(int64_t now);
  std::vector<DueClosing> TakeClosings(int64_t now);
  // Of services with addresses for UDP that have changed; in force when the table that was taken last is. A
  // flow stays at a backend that is listed, up (or there is a panic) and enabled; at one that is drained as
  // long as its connections would; not at one that has gone. Ejections, which are about connects, and weights
  // move none. Where a service has nobody to take them, all stay until it has.
  std::vector<DueAiming> TakeAimings(int64_t now);

  // Nobody uses this table any more. Slots that it named, and ids of services that had gone when it was made,
  // may be given out again if they have been given up, once no attempt under way holds them. Said before the
  // last reference to it is dropped.
  void TableRetired(const ServiceTable& table);

  std::vector<ServiceReport> Describe(int64_t now) const;
  // Lines for the operator: services that were found and may not be there. Each is told of once, as long as
  // it is found.
  std::vector<std::string> TakeRemarks();

  // The backends of services that pick by live counts, or limit them, until the next Configure(), Discover()
  // or Command().
  struct Counted {
    SockAddr address;
    uint32_t slot = 0;
    bool by_rtt = false;
    bool limited = false;
  };
  std::vector<Counted> CountedBackends() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace shunt::net
