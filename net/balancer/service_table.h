// SPDX-License-Identifier: Apache-2.0
// ServiceTable: all services as reactors see them. Immutable; replaced as a whole.
//
// Made by the Balancer (net/balancer/balancer.h) on its thread; a reactor gets it by one pointer store
// between two calls and keeps it for no longer than a call: what waits looks the service up again by its id.
// Services that did not change are shared by successive tables.

#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "net/balancer/pick_table.h"
#include "net/balancer/place_queue.h"
#include "net/balancer/service.h"

namespace shunt::net {

// The available backends of a service with affinity and a timeout, by what is remembered of them
// (net/balancer/affinity_memory.h). Neither of two that have the same name there.
class BackendIndex {
 public:
  void Add(const Backend& backend);
  // nullptr: none, or none that is available.
  const Backend* Find(uint64_t name) const {
    const auto found = by_name_.find(name);
    return found == by_name_.end() || !found->second ? nullptr : &*found->second;
  }

 private:
  absl::flat_hash_map<uint64_t, std::optional<Backend>> by_name_;
};

// One service, ready for picks.
struct Service {
  uint32_t id = 0;  // its place in the table; the same in every table as long as it is configured
  std::string name;
  int attempts = 3;
  int64_t attempt_timeout_ns = 0;
  int64_t race_after_ns = 0;
  AffinityKey affinity = AffinityKey::kNone;  // never kDefault
  ServiceNetwork network = ServiceNetwork::kHost;
  PeerName peer_name = PeerName::kBackend;
  bool pending = false;  // its source has not said anything yet, good or bad
  LimitSpec limits;
  std::shared_ptr<QueueTally> queue;  // the same in every table, as long as it is configured; never null
  // By what the socket can reach: AF_INET sockets IPv4 backends; AF_INET6 ones IPv6 backends, or IPv4 ones by
  // their mapped addresses if there are no others. Null: no backends.
  std::shared_ptr<const PickTable> v4, v6;
  // With affinity and a timeout: for how long, whose it is, and what `v4` and `v6` pick from.
  int64_t remembers_ns = 0;
  uint64_t name_hash = 0;
  std::shared_ptr<const BackendIndex> v4_index, v6_index;

  // For a socket of `family`, connecting to an address that IsV4() or not.
  const PickTable* TableFor(bool to_v4) const { return to_v4 || v6 == nullptr ? v4.get() : v6.get(); }
  const BackendIndex* IndexFor(bool to_v4) const {
    return to_v4 || v6 == nullptr ? v4_index.get() : v6_index.get();
  }
};

// Which address belongs to which service. The narrowest network wins, then the narrowest range of ports, then
// the one that begins first. A network in which no range has the port leaves it to the wider ones.
class ServiceIndex {
 public:
  struct Entry {
    uint16_t first_port, last_port;
    Transport transport;
    uint32_t service;
  };

  // False: exactly this address is another service's already. Before anybody uses the index. Ports are in
  // order.
  bool Add(const ServiceAddress& address, uint32_t service);
  // The id of the service; -1: none.
  int64_t Find(Transport transport, const IpAddress& ip, uint16_t port) const;

 private:
  // By first address; of each, the narrowest range of ports first. Most have one or two: an index of tens of
  // thousands is made in a few allocations.
  using Entries = absl::InlinedVector<Entry, 2>;
  using Networks = absl::flat_hash_map<IpAddress, Entries, std::hash<IpAddress>>;
  struct ByLength {
    bool v4;
    int prefix_len;  // 0 to 32 for IPv4
    Networks networks;
  };
  std::vector<ByLength> lengths_;  // the longest prefix first
};

class ServiceTable {
 public:
  ServiceTable(std::shared_ptr<const ServiceIndex> index,
               std::vector<std::shared_ptr<const Service>> services)
      : index_(std::move(index)), services_(std::move(services)) {}

  // The service that connections to this address belong to; nullptr: none. An IPv4 address is found in either
  // spelling.
  const Service* Find(Transport transport, const SockAddr& peer) const {
    const int64_t id = index_->Find(transport, peer.ip(), peer.port());
    return id < 0 ? nullptr : At(static_cast<uint32_t>(id));
  }
  // There are no services.
  bool empty() const {
    return std::all_of(services_.begin(), services_.end(), [](const auto& one) { return one == nullptr; });
  }
  // nullptr: there is none of this id any more.
  const Service* At(uint32_t id) const { return id < services_.size() ? services_[id].get() : nullptr; }

 private:
  const std::shared_ptr<const ServiceIndex> index_;
  const std::vector<std::shared_ptr<const Service>> services_;
};

}  // namespace shunt::net
