// SPDX-License-Identifier: Apache-2.0
// PodRecord: what the API server says of a pod, as far as it tells who a container is. Pure.
//
// The server is trusted, the texts in its answers are not: whoever may make a pod chooses its labels and
// annotations. An answer that is not what was asked for is an error, and never half of a record.

#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "tools/pod_identity.h"

namespace shunt {

// What is asked. With both names known it is that one pod, else the one with the uid among those of a node.
struct PodQuery {
  std::string pod_namespace;
  std::string pod;
  std::string uid;  // as the kubelet has it; may be empty if the names are known
  friend auto operator<=>(const PodQuery&, const PodQuery&) = default;

  bool has_names() const { return !pod_namespace.empty() && !pod.empty(); }
  // For messages: "NAMESPACE/NAME (uid UID)".
  std::string ToString() const;
};

struct PodRecord {
  struct OfContainer {
    std::string name;
    std::string image;
    std::string id;  // the runtime's; empty until the kubelet has told the server, after the start
  };
  std::string pod_namespace;
  std::string pod;
  std::string uid;
  // A pod from a file of its node's has another uid there, of which the server's is a copy.
  std::string mirror_of;
  std::map<std::string, std::string> annotations;
  std::map<std::string, std::string> labels;
  std::vector<OfContainer> containers;  // those that initialize it and those for debugging included
};

// Such names as the server takes; all others need not be asked for.
bool IsPodName(absl::string_view name);

// Reads a pod, or a list of pods. InvalidArgument: it is something else, and the error says what is wrong;
// NotFound: it is not the pod of the query, or none of the list's is.
absl::StatusOr<PodRecord> ReadPod(absl::string_view json, const PodQuery& query);

// What a server's refusal (a `Status`) says, or "".
std::string RefusalIn(absl::string_view json);

// Adds to what runtimes have told of a container what they have not. Which one of the pod's containers it is
// the server can tell by the runtime's `id`, or if there is no other.
void AddRecord(const PodRecord& record, absl::string_view id, ContainerOrigin& origin);

}  // namespace shunt
