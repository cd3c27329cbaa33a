// SPDX-License-Identifier: Apache-2.0
// Service: what an operator wants to be balanced, as values. Nothing here acts.
//
// A service is an address that programs connect to and a set of backends of which each connection gets one
// (handlers/balance.cc). Names, meanings and defaults are those of Envoy and HAProxy where these have them,
// so that who knows one of them is at home.

#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "net/balancer/discover_spec.h"
#include "net/sock_addr.h"
#include "net/subnet_set.h"

namespace shunt::net {

enum class Transport : uint8_t { kTcp, kUdp };

// Where connections to a service go to: an address as a rule, or any address of a network, and a port or a
// range of ports (both ends included).
struct ServiceAddress {
  Subnet network;
  uint16_t first_port = 0;
  uint16_t last_port = 0;
  Transport transport = Transport::kTcp;

  friend bool operator==(const ServiceAddress&, const ServiceAddress&) = default;
};

// How a backend is picked. What each does stands at net/balancer/pick_table.h.
enum class PickPolicy : uint8_t {
  kRoundRobin,
  kRandom,
  kLeastRequest,
  kMaglev,
  kRingHash,
  kFirst,
  kLeastConnections,
  kLeastRtt
};
// Needs what the kernel knows of connections (net/balancer/live_counts.h).
constexpr bool PicksByLiveCounts(PickPolicy policy) {
  return policy == PickPolicy::kLeastConnections || policy == PickPolicy::kLeastRtt;
}

// Whose connections go to the same backend, as long as that is there: what is hashed. kDefault: kContainer
// for kMaglev and kRingHash, which would be kRandom without a key; kNone for the others.
enum class AffinityKey : uint8_t { kDefault, kNone, kContainer, kUser, kProcess };

inline constexpr uint32_t kMostWeight = 65535;

struct BackendSpec {
  SockAddr address;
  uint32_t weight = 1;  // 0 to kMostWeight; 0: no new connections
  bool backup = false;  // used when there is too little of the others
  std::string zone;     // empty: not told
  std::map<std::string, std::string> labels;
  // From a source that finds services by their addresses (DiscoverSpec::services_in): that of the service of
  // which this is the only backend. Else not valid.
  SockAddr service;

  friend bool operator==(const BackendSpec&, const BackendSpec&) = default;
};

struct ConnectSpec {
  static constexpr int kMostAttempts = 16;
  int attempts = 3;  // 1 to kMostAttempts, the first one included
  // Of each attempt but the last one, which takes as long as the kernel tries. Longer than the second that
  // the kernel waits before it sends a SYN again, so that one lost packet is no failure.
  std::chrono::nanoseconds attempt_timeout = std::chrono::milliseconds(1200);
  // After which another attempt joins one that takes long: gRPC's connection attempt delay. 0: never.
  std::chrono::nanoseconds race_after{0};

  friend bool operator==(const ConnectSpec&, const ConnectSpec&) = default;
};

// Active checks: a TCP connection is made and closed. HAProxy's inter, fall and rise.
struct HealthSpec {
  bool enabled = false;
  std::chrono::nanoseconds interval = std::chrono::seconds(2);
  std::chrono::nanoseconds timeout = std::chrono::seconds(1);
  uint32_t fall = 3;  // failures in a row that make a healthy backend unhealthy
  uint32_t rise = 2;  // successes in a row that make it healthy again

  friend bool operator==(const HealthSpec&, const HealthSpec&) = default;
};

// Passive checks, by the connects that programs make: Envoy's outlier detection by consecutive failures.
struct OutlierSpec {
  bool enabled = false;
  uint32_t consecutive = 5;
  std::chrono::nanoseconds interval = std::chrono::seconds(10);  // of looking back: see Balancer
  std::chrono::nanoseconds base_ejection = std::chrono::seconds(30);
  std::chrono::nanoseconds max_ejection = std::chrono::seconds(300);
  double max_ejected = 0.10;  // share of the backends; one may always be

  friend bool operator==(const OutlierSpec&, const OutlierSpec&) = default;
};

struct SlowStartSpec {
  std::chrono::nanoseconds window{0};  // 0: none
  double aggression = 1.0;
  double min_weight = 0.10;  // share of the weight

  friend bool operator==(const SlowStartSpec&, const SlowStartSpec&) = default;
};

// Which network the backends are in, seen from a container.
enum class ServiceNetwork : uint8_t {
  kHost,       // the host's: sockets are swapped, where the container is one of those whose sockets are
  kContainer,  // the container's own: its socket stays
};

// What getpeername(2) shows of a balanced connection.
enum class PeerName : uint8_t { kBackend, kService };

// How many connections a backend may have, HAProxy's maxconn; and how many connects of a service may wait
// for one (on one machine), HAProxy's queue.
struct LimitSpec {
  uint32_t max_connections = 0;  // 0: any number
  uint32_t queue = 0;
  std::chrono::nanoseconds queue_timeout = std::chrono::seconds(1);

  bool enabled() const { return max_connections > 0; }
  friend bool operator==(const LimitSpec&, const LimitSpec&) = default;
};

struct ServiceSpec {
  std::string name;
  std::vector<ServiceAddress> addresses;
  PickPolicy policy = PickPolicy::kLeastRequest;
  AffinityKey affinity = AffinityKey::kDefault;
  // Who has connected within this time gets the backend of his last connection, whatever the policy. 0: by
  // hash, without a memory of it.
  std::chrono::nanoseconds affinity_timeout{0};
  std::vector<BackendSpec> backends;
  std::map<std::string, std::string> subset;  // only backends that have all of these labels
  DiscoverSpec discover;
  ConnectSpec connect;
  LimitSpec limits;
  HealthSpec health;
  OutlierSpec outlier;
  double panic = 0.50;  // share of available backends below which all are taken for available
  SlowStartSpec slow_start;
  // Backends of the zone of this machine come first where the service has at least so many. 0: never.
  uint32_t zone_aware_from = 6;
  // After a backend has gone, or has been drained: its connections are closed when this time is over.
  // Nothing: never.
  std::optional<std::chrono::nanoseconds> close_after;
  ServiceNetwork network = ServiceNetwork::kHost;
  PeerName peer_name = PeerName::kBackend;

  friend bool operator==(const ServiceSpec&, const ServiceSpec&) = default;
};

}  // namespace shunt::net
