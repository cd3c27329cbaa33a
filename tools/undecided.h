// SPDX-License-Identifier: Apache-2.0
// Undecided: a container whose policy waits for what the API server says of its pod. Nobody receives its
// calls meanwhile, so they wait; its listener is held like every other, with all that an engine after this
// one needs in order to ask again (ContainerSpec::undecided).

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "core/fd.h"
#include "core/intake.h"
#include "core/peer.h"
#include "tools/pod_identity.h"
#include "tools/pod_record.h"

namespace shunt {

// The pid of a process that may end, and its number become another's, while we wait.
class LastingPid {
 public:
  LastingPid() = default;
  // One that was true a moment ago; 0: none.
  explicit LastingPid(pid_t pid) : pid_(pid) {}
  // From here on it is only told as long as the process is there.
  void Watch();
  pid_t Get() const;

 private:
  pid_t pid_ = 0;
  bool watched_ = false;
  Fd process_;  // not valid although watched: it was gone
};

struct Undecided {
  Fd listener;
  ContainerState state;
  Peer peer;
  ContainerOrigin origin;         // as runtime and control group tell it
  LastingPid pid, first_process;  // not kept for other engines

  PodQuery query() const { return {origin.identity.pod_namespace, origin.identity.pod, origin.pod_uid}; }
};

// What an engine after this one has to know beside the listener.
std::string ToText(const Undecided& container);
absl::StatusOr<Undecided> UndecidedFrom(const std::string& text);

}  // namespace shunt
