// SPDX-License-Identifier: Apache-2.0
// AgentConfig: the configuration file of `shunt agent`, and what it makes of a container's own wishes.
//
// The file is YAML. All keys are optional; an unknown one is an error, so that a misspelt rule is not a
// missing rule:
//
//   allow-uids: [1000, 1001]     # users who may hand containers over, beside root and the agent's own
//   ignore: [10.0.0.0/8]         # networks that stay on the ordinary path, for every container
//   publish:
//     enabled: true              # false: containers may not publish ports
//     host-ip: 127.0.0.1         # for published ports that name no host address
//     host-ports: 1024-65535     # the host ports that containers may ask for
//   log:
//     level: info                # debug, info, warning or error
//   strict: false                # true: a container whose metadata has a mistake is refused
//   containers: [...]            # rules about some of them (tools/container_rule.h)
//   zone: a                      # where this machine is
//   node-name: node-1            # what Kubernetes calls it
//   services: [...]              # what is balanced (tools/service_config.h)
//   multinode: {...}             # where ports of other machines' containers are (tools/multinode.h)
//
// A container states its wishes in its listenerMetadata,
// "shunt.publish=8080:80,8443:443;shunt.ignore=10.0.0.0/8" (items separated by ";" or a line's end; the keys
// that do not begin with "shunt." are for tools/metadata.h), in the annotations "shunt/publish" and
// "shunt/ignore", or in both, which then add up.
//
// A profile of `shunt profile` says "shunt.traps=1" there: its filter traps all that a swap has to know of.
// Any other filter that traps connect works as well, but each swap then has to look at everything.

#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/intake.h"
#include "handlers/accelerator.h"
#include "net/balancer/service.h"
#include "net/ip_address.h"
#include "net/subnet_set.h"
#include "tools/container_rule.h"
#include "tools/log.h"
#include "tools/multinode.h"

namespace shunt {

// What `shunt profile` puts behind "shunt.traps=". Another number as soon as handlers/traps.h traps something
// else, so that a profile of an older shunt is not taken for what it is not.
inline constexpr absl::string_view kTrapsVersion = "1";

struct PublishPolicy {
  bool enabled = true;
  std::optional<net::IpAddress> host_ip;
  uint16_t first_host_port = 1;
  uint16_t last_host_port = 65535;  // included
};

struct AgentConfig {
  std::vector<uid_t> allow_uids;
  net::SubnetSet ignore;
  PublishPolicy publish;
  log::Level log_level = log::Level::kInfo;
  bool strict = false;
  std::string metrics_bind_address;     // empty: metrics are not served
  std::vector<std::string> middleware;  // of every container, beside its own
  std::vector<ContainerRule> rules;
  std::string zone;       // of this machine; empty: not told
  std::string node_name;  // of this machine in Kubernetes; empty: $NODE_NAME
  std::vector<net::ServiceSpec> services;
  MultinodeConfig multinode;

  // All that is to be balanced.
  std::vector<net::ServiceSpec> AllServices() const;
};

// Reads the text of a configuration file; `name` is the file's, for messages. The error names file, line and
// key, and says what would be right.
absl::StatusOr<AgentConfig> ParseAgentConfig(const std::string& text, const std::string& name);
absl::StatusOr<std::string> ReadConfigText(const std::string& path);
absl::StatusOr<AgentConfig> ReadAgentConfig(const std::string& path);

// The container's network: what it wants, as far as `config` lets it, and what the operator's `rule` gives it
// besides (nullptr: none). All but the pid. The error names the wish that cannot be granted.
absl::StatusOr<ContainerSpec> SpecFor(const ContainerState& state, const AgentConfig& config,
                                      const ContainerRule* rule = nullptr);

// A container that stays on its ordinary path entirely.
ContainerSpec OrdinarySpec(std::string name);

}  // namespace shunt
