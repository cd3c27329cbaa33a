// SPDX-License-Identifier: Apache-2.0
// LiveCounts: how many connections each backend has, and how far away it is, for the policies that pick by
// that, and for services that limit them. The host's network only: that is where connections to services are,
// unless a service says otherwise.
//
// The kernel is asked for all connections (net/connection_census.h), every kInterval, but so that it takes
// a twentieth of a CPU at most, and more often while somebody waits for a connection to end; what reactors
// have begun since is added to that (BackendCountBook::Open()).
// So a count is never off for longer, whatever was missed: connections that end, those that were made by an
// engine before this one, or by other programs of this machine, which are counted as well. Multicasts of ends
// would be more punctual, but make every close(2) of the namespace a third slower and are lost by the
// thousand when there are many.
//
// Distance: the time that our connects take, where there are any; else the shortest round trip of the
// connections that are there. An average of about the last ten seconds. The time that a program takes to
// answer is not in it: nothing in the kernel knows it.
//
// One thread, that of the Balancer.

#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "net/balancer/backend_counts.h"
#include "net/balancer/balancer.h"
#include "net/connection_census.h"

namespace shunt::net {

class LiveCounts {
 public:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  static constexpr int64_t kInterval = 200'000'000;       // ns
  static constexpr int64_t kHurriedInterval = 5'000'000;  // while somebody waits
  static constexpr int64_t kShare = 20;                   // of the CPU time of a dump: the pause after it

  // `counts` outlives it.
  explicit LiveCounts(BackendCountBook& counts) : counts_(counts) {}

  // Whose connections are counted from now on, in the place of those before.
  void Watch(const std::vector<Balancer::Counted>& backends);
  // Somebody waits, from the last look on.
  void Hurry(bool on);
  // CLOCK_MONOTONIC, ns.
  int64_t NextDue() const { return backends_.empty() ? kNever : due_; }
  // True: it has looked.
  bool Advance(int64_t now);

  // Why there are no counts, once for each reason; then picks go by what was begun lately.
  std::optional<std::string> TakeFailure() { return std::exchange(failure_, {}); }

 private:
  using Place = std::tuple<uint64_t, uint64_t, uint16_t>;  // an address, either spelling, and a port
  static Place PlaceOf(const IpAddress& ip, uint16_t port) { return {ip.high(), ip.low(), port}; }
  struct Tally {
    uint32_t open = 0;
    uint64_t min_rtts = 0;  // us, together
    uint32_t with_rtt = 0;
  };
  struct Watched {
    Balancer::Counted backend;
    uint64_t connected = 0, connect_ns = 0;  // when it was looked at last
    uint32_t begun = 0;                      // PlaceCount::BeginLook()
    double rtt_us = 0;
  };

  void NotSeenYet(const Balancer::Counted& backend);
  Result<void> Count(bool with_rtt);
  void NoteRtt(Watched& watched, const Tally& tally, double weight);

  BackendCountBook& counts_;
  std::optional<ConnectionCensus> census_;
  std::vector<Watched> backends_;
  absl::flat_hash_map<Place, Tally> tallies_;
  std::vector<uint16_t> ports_;  // of backends
  int64_t interval_ = kInterval;
  int64_t due_ = 0;
  int64_t rest_until_ = 0;  // from the last dump
  int64_t looked_ = 0;
  int failed_with_ = 0;  // an errno, which has been told
  std::optional<std::string> failure_;
};

}  // namespace shunt::net
