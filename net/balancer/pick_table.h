// SPDX-License-Identifier: Apache-2.0
// PickTable: the backends of one service that new connections may go to, laid out so that a pick takes
// nanoseconds. Made off the hot path, then never changed; picks neither allocate nor lock.
//
// Policies
//   round-robin    in turn, each as often as its weight says and evenly spread (earliest deadline first as
//                  with Envoy, but no turn before its time; computed in advance); each reactor has a place
//                  of its own in the order
//   random         by weight (an alias table)
//   least-request  the less loaded of two different random ones by weight (P2C), the first one if they are
//                  equal: the load is attempts under way by weight
//   least-connections   as least-request: the load is connections that are open, by weight
//   least-rtt      as least-request: the load is the time to reach the backend, times one more than its open
//                  connections by weight; so the near ones get more, until they are busy
//   maglev         by hash, Maglev's table of a prime size of at least 100 places for each backend
//   ring-hash      by hash, on a ring of at least 100 points for each backend
//   first          the first one that is there
//
// With an affinity key every policy but `first` picks by hash: maglev and ring-hash by their own tables, the
// others by Maglev's. So the key's connections stay together without any memory of it.
//
// Backends are in groups (net/balancer/pick_groups.h); a group gets its share of the connections, and with an
// affinity key the key decides which one. When all of a group were tried, or are full, the others are asked
// in their order, so a group without a share is one that is kept in reserve.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "net/balancer/backend_counts.h"
#include "net/balancer/mix.h"
#include "net/balancer/service.h"
#include "net/sock_addr.h"

namespace shunt::net {

// A backend as a table has it.
struct Backend {
  SockAddr address;
  uint32_t slot = 0;      // of its counts
  uint32_t weight = 1;    // 1 to kMostWeight, with slow start taken into account
  uint64_t identity = 0;  // the same for an address everywhere: what hashes place it by
};

// Of a backend's address: the same on every machine, in every process and in either spelling of IPv4.
uint64_t BackendIdentity(const SockAddr& address);
// Of a name that is a key: the same.
uint64_t HashOfName(std::string_view name);

// Backends among which one is picked, and how many of 65536 new connections they get. Shares add up to 65536;
// should a group have no backends, the others share what is its.
struct PickGroup {
  uint32_t share = 65536;
  std::vector<Backend> backends;
  bool backup = false;
};

// What a reactor keeps for its picks. Its thread only.
class PickSeat {
 public:
  // `seed`: any number, another one for each reactor.
  PickSeat(size_t reactor, const BackendCountBook& counts, uint64_t seed)
      : reactor_(reactor), counts_(&counts), state_(seed) {}

  uint64_t Random() { return Mix64(state_ += kMixStep); }  // SplitMix64
  size_t reactor() const { return reactor_; }
  BackendCounts& CountsOf(const Backend& backend) const { return counts_->At(reactor_, backend.slot); }
  const BackendCountBook& counts() const { return *counts_; }

 private:
  size_t reactor_;
  const BackendCountBook* counts_;
  uint64_t state_;
};

// Places of reactors in the orders of a round-robin, one for each group; outlives the tables of its service.
class RoundRobinPlaces {
 public:
  static constexpr size_t kGroups = 8;  // the groups beyond share their places

  explicit RoundRobinPlaces(size_t reactors) : places_(reactors) {}
  // The reactor's thread. 0, 1, 2...
  uint64_t Next(size_t reactor, size_t group = 0) { return places_[reactor].next[group % kGroups]++; }
  size_t reactors() const { return places_.size(); }

 private:
  struct alignas(64) Place {
    std::array<uint64_t, kGroups> next{};
  };
  std::vector<Place> places_;
};

// What one connection asks for.
struct PickWish {
  bool has_key = false;
  uint64_t key = 0;                      // a hash of whose connections are to stay together
  std::span<const uint32_t> tried = {};  // slots of backends that shall not be picked again
  // Connections that a backend may have: one that has so many is not picked either. 0: any number.
  uint32_t places = 0;
  // After others have failed, the last try: in another zone if there is one, since what has failed may be a
  // zone.
  bool elsewhere = false;
};

class PickTable {
 public:
  // Off the hot path. `places` is used by round-robin; outlives the table.
  static std::unique_ptr<const PickTable> Make(PickPolicy policy, bool by_key, std::vector<PickGroup> groups,
                                               RoundRobinPlaces& places);
  virtual ~PickTable() = default;

  // nullptr: there is none, or none that was not tried and has a place. All groups are asked before that.
  virtual const Backend* Pick(const PickWish& wish, PickSeat& seat) const = 0;
  // Of all groups.
  virtual size_t size() const = 0;
};

}  // namespace shunt::net
