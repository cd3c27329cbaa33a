// SPDX-License-Identifier: Apache-2.0
// Decide: the policy of a container that a runtime has handed over: who it is, which rule of the
// configuration selects it, what its metadata says, and what of that is wrong.

#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/intake.h"
#include "handlers/accelerator.h"
#include "tools/agent_config.h"
#include "tools/container_rule.h"
#include "tools/pod_identity.h"

namespace shunt {

// Where policies come from, beside the rules of the configuration, which hold with each of these.
enum class Resolver : uint8_t {
  kMetadata,    // what containers' metadata says
  kNone,        // nowhere: calls are continued
  kDemoBasic,   // the same for all: chmod fails, mkdir appends the process id, proc may be mounted
  kKubernetes,  // as kMetadata; what annotations do not tell is looked for in the kubelet's folders, and the
                // API server is asked (tools/pod_directory.h)
};
absl::StatusOr<Resolver> ParseResolver(const std::string& text);

struct DecisionMaker {
  const AgentConfig& config;
  Resolver resolver = Resolver::kMetadata;
  bool strict = false;  // a mistake has the container refused
};

struct Decision {
  ContainerSpec spec;  // all but the pid and the owner
  // Why its connections stay on the ordinary path although it wished otherwise; OK: they do not.
  absl::Status wishes;
  std::vector<std::string> mistakes;  // in its metadata
  absl::Status masks;                 // why the container's own masks are not known
  std::string rule;                   // that selected it; empty: none
  ContainerOrigin origin;
};

// What this machine tells. `pid` as TrustedPid() says (tools/container_pid.h).
ContainerOrigin OriginOf(const ContainerState& state, pid_t pid, Resolver resolver);

Decision Decide(const ContainerState& state, ContainerOrigin origin, uid_t uid, const DecisionMaker& maker);
// With what this machine tells.
inline Decision Decide(const ContainerState& state, pid_t pid, uid_t uid, const DecisionMaker& maker) {
  return Decide(state, OriginOf(state, pid, maker.resolver), uid, maker);
}

// What the configuration has watch the calls of every container.
void AddMiddleware(const AgentConfig& config, Policy& policy);

}  // namespace shunt
