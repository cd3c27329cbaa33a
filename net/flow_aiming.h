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

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/functional/function_ref.h"
#include "core/result.h"
#include "net/aimed_flows.h"
#include "net/sock_addr.h"

namespace shunt::net {

struct FlowsAimed {
  size_t moved = 0;
  size_t failed = 0;  // sockets that the kernel did not connect, or that were not found in time
};

// A new aim for a flow of the service whose socket is connected to `peer` now; nothing: it stays.
using NewAim = absl::FunctionRef<std::optional<SockAddr>(const AimedFlows::Flow& flow, const SockAddr& peer)>;

// Looks through the processes in the network of `pid`, as ForEachSocketWith() does and `until` then, for
// flows of `service` that are to `leave`. Those that have no socket are forgotten. `netns`: the cookie of the
// container's network, whose sockets alone are touched; 0: not known.
Result<FlowsAimed> AimAnew(pid_t pid, int64_t until, uint64_t netns, AimedFlows& flows, uint64_t service,
                           absl::FunctionRef<bool(const AimedFlows::Flow&)> leaves, NewAim new_aim);

}  // namespace shunt::net
