// SPDX-License-Identifier: Apache-2.0
// LockPolicy: what the kernel shall enforce on a container's TCP sockets in the host's network, and its form
// on the wire.
//
// The wire form goes from an engine without privilege to the lock server, which runs with one; so it is
// bounded, has one spelling for each policy, and is decoded as if an enemy had written it.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "net/ip_address.h"
#include "net/subnet_set.h"

namespace shunt::net {

// An address and a port in host byte order. 0.0.0.0 stands for every IPv4 address, :: for every IPv6 address;
// a dual-stack socket is in both families, so it takes two entries.
struct Endpoint {
  IpAddress ip;
  uint16_t port = 0;

  friend bool operator==(const Endpoint&, const Endpoint&) = default;
};

struct LockPolicy {
  // With the longest possible rules a program of this many entries stays far below what net.core.optmem_max
  // allows a socket to carry on every kernel (20 KiB until 6.7), so that a lock which loads can also be
  // attached and inherited.
  static constexpr size_t kMaxEndpoints = 64;

  // Networks that a connect must never reach: loopback, the container's own networks, the ignored ones.
  SubnetSet deny;
  // Single peers inside `deny` that a connect may reach all the same: the container's own published ports.
  std::vector<Endpoint> self;
  // Where a listening socket may accept: the container's published ports on the host. A listener anywhere
  // else is deaf.
  std::vector<Endpoint> listen;
};

// InvalidArgument, naming the list and its limit, if the policy is larger than a lock can be.
absl::Status CheckLockPolicy(const LockPolicy& policy);

// No request is longer.
inline constexpr size_t kMaxLockRequest = 8 + SubnetSet::kCapacity * 17 + 2 * LockPolicy::kMaxEndpoints * 18;

// Needs a policy that CheckLockPolicy() accepts (checked).
std::string EncodeLockPolicy(const LockPolicy& policy);
absl::StatusOr<LockPolicy> DecodeLockPolicy(std::span<const std::byte> wire);

}  // namespace shunt::net
