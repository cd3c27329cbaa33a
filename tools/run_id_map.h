// SPDX-License-Identifier: Apache-2.0
// The users of a container that `shunt run` makes: which ids it has, and who they are on the host.
//
//   caller          subordinate ids   map
//   root            -                 every id is itself. Root in the container is root on the host for
//                                     files: the namespaces keep it from the host's network and devices, not
//                                     from root's files
//   anybody else    yes               the caller is one id; the subordinate ids fill the others from 0 up
//   anybody else    none              the caller is the only id
//
// Which id the caller is: with the host's files the one that the command runs as, so that the command has the
// caller's files whatever --user says; in a root filesystem always 0, since the owners of its files follow
// from that map, as in other rootless containers.

#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace shunt {

struct UserIds {
  uid_t uid = 0;
  gid_t gid = 0;
};

// Reads "UID[:GID]", two numbers; without a GID it is the same number. The error says what would be right.
absl::StatusOr<UserIds> ParseUserIds(const std::string& text);

struct IdRange {
  uint32_t inside = 0;
  uint32_t outside = 0;
  uint32_t count = 0;
  friend bool operator==(const IdRange&, const IdRange&) = default;
};

struct IdMap {
  std::vector<IdRange> uids;
  std::vector<IdRange> gids;
  bool by_tools = false;    // to be written by newuidmap and newgidmap
  bool set_groups = true;   // the container may change its supplementary groups
  std::string description;  // for people
};

// `caller` at `caller_inside`, `others` from 0 up around it.
std::vector<IdRange> FillAround(uint32_t caller_inside, uint32_t caller, std::vector<IdRange> others);

// The maps to try for a command that is to run as `command`, the best one first. Empty if there is
// no such user: root has the ids 0 to 65535 to give.
std::vector<IdMap> PlanIdMaps(const UserIds& command, bool in_rootfs);

// Gives `map` to the user namespace of `pid`, which has none yet.
absl::Status WriteIdMap(const IdMap& map, pid_t pid);

}  // namespace shunt
