// SPDX-License-Identifier: Apache-2.0
// Aims UDP flows of a container elsewhere: sockets that a connect to a service has connected to a backend
// that has gone. Each is connected anew through a copy of its descriptor, which takes no right over its
// network. Its local address stays, and what has arrived already; what its program sends from then on goes to
// the new backend.
//
// Only sockets that the container's connects have aimed (net/aimed_flows.h), and only as long as they are
// where they were aimed at. What remains: a program that connects such a socket elsewhere in the microsecond
// between our look and our connect finds it at the new backend instead.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "net/aimed_flows.h"
#include "net/sock_addr.h"

namespace shunt::net {

// Of one container, in one walk through its sockets (net/held_descriptors.h).
class FlowAiming {
 public:
  // True: the flow is not to stay where it is.
  using Leaves = absl::FunctionRef<bool(const AimedFlows::Flow& flow)>;
  // A new aim for one that leaves, whose socket is connected to `peer` now; nothing: it stays.
  using NewAim =
      absl::FunctionRef<std::optional<SockAddr>(const AimedFlows::Flow& flow, const SockAddr& peer)>;

  // `netns`: the cookie of the container's network, whose sockets alone are touched; 0: not known. `flows`
  // outlives it.
  FlowAiming(AimedFlows& flows, uint64_t netns) : flows_(flows), netns_(netns) {}

  // One of the sockets.
  void See(int socket_fd, Leaves leaves, NewAim new_aim);
  // Those were all: flows that leave and have no socket are forgotten. If not `whole`, they have failed.
  void End(bool whole, Leaves leaves);

  size_t moved() const { return moved_; }
  // The kernel did not connect them, or they were not found in time.
  size_t failed() const { return failed_; }

 private:
  AimedFlows& flows_;
  const uint64_t netns_;
  // Sockets that wait for another backend to come, by their cookies: their notes are still needed.
  absl::flat_hash_set<uint64_t> wait_;
  size_t moved_ = 0;
  size_t failed_ = 0;
};

}  // namespace shunt::net
