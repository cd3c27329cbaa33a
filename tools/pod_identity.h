// SPDX-License-Identifier: Apache-2.0
// Who a container is to its orchestrator, as far as can be told without asking it: from the annotations that
// the runtime passes on, the control group of its first process, and the kubelet's folder of logs.
//
// Pure but for FindLoggedPod().

#pragma once

#include <map>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "handlers/policy.h"

namespace shunt {

// Empty: not known.
struct ContainerOrigin {
  PodIdentity identity;
  std::string pod_uid;
  std::string container_id;  // by its control group
  std::string image;
  // CRI-O passes on the labels that the kubelet gives a container: who it is, and none of its pod's own.
  std::optional<std::map<std::string, std::string>> labels;
};

// containerd: io.kubernetes.cri.*; CRI-O and dockershim: io.kubernetes.pod.*, io.kubernetes.container.name.
ContainerOrigin OriginFromAnnotations(const std::map<std::string, std::string>& annotations);

struct CgroupOrigin {
  std::string pod_uid;       // with "-", as the API server writes it
  std::string container_id;  // 64 hexadecimal digits
};

// `text` is that of /proc/PID/cgroup, with version 1, 2 or both of control groups, whose paths systemd or the
// kubelet's own driver has made. Where paths are nested (a node that is a container) the innermost pod and
// container count.
CgroupOrigin OriginFromCgroups(absl::string_view text);

// Adds to `origin` what the control groups of `pid` tell of it. 0: nothing.
void AddCgroupOrigin(pid_t pid, ContainerOrigin& origin);

// The kubelet keeps a folder NAMESPACE_POD_UID for each pod of its node in `logs`, with one for each
// container in it; the container's name is known only if there is no other.
inline constexpr char kPodLogs[] = "/var/log/pods";
PodIdentity FindLoggedPod(const std::string& logs, absl::string_view pod_uid);

}  // namespace shunt
