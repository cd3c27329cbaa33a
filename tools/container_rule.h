// SPDX-License-Identifier: Apache-2.0
// ContainerRule: an item of the list `containers:` of the agent's configuration: which containers it is
// about, and what they get.
//
//   containers:
//     - name: web                       # for messages
//       select:                         # all of these hold; without: every container
//         namespace: [prod, "stage-*"]  # one pattern, or a list of which one fits
//         annotations: {tier: "front*"}
//       handlers:                       # what the keys of tools/metadata.h say, in this file's spelling
//         mkdir-template: "-{{.Pod}}"
//         errors: {chmod: EBADMSG}
//       metadata: false                 # what the container's profile says about handlers does not count
//       ignore: [10.0.0.0/8]
//       publish: ["8080:80"]
//
// The first rule that selects a container is the only one that holds for it. What the rule says about
// handlers comes on top of what the container's metadata says, key by key.

#pragma once

#include <sys/types.h>
#include <yaml-cpp/yaml.h>

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/intake.h"
#include "net/publish.h"
#include "net/subnet_set.h"
#include "tools/metadata.h"
#include "tools/pod_identity.h"

namespace shunt {

// What rules can look at.
struct Candidate {
  const ContainerState& state;
  const ContainerOrigin& origin;
  uid_t uid;  // the user whose runtime has handed the container over
};

// Patterns as fnmatch(3) takes them, whose "*" also stands for "/". Empty: not looked at. What is not known
// of a container fits no pattern.
struct Selection {
  using Patterns = std::vector<std::string>;
  Patterns pod_namespace, pod, container, image, id;
  std::vector<uid_t> uids;
  std::map<std::string, Patterns> annotations, labels;

  bool Selects(const Candidate& candidate) const;
};

struct ContainerRule {
  int line = 0;      // of the file, from 1
  std::string name;  // may be empty
  Selection selection;
  std::vector<Setting> settings;
  bool metadata = true;
  net::SubnetSet ignore;
  std::vector<net::Publish> publish;

  // For messages: its name, or its line.
  std::string Title() const;
};

// The first rule that selects it; nullptr: none.
const ContainerRule* RuleFor(const std::vector<ContainerRule>& rules, const Candidate& candidate);

// Reads the list. `name` is the file's. Every setting has been tried: what is wrong is an error.
absl::Status ReadContainerRules(const std::string& name, const YAML::Node& value,
                                std::vector<ContainerRule>& rules);

}  // namespace shunt
