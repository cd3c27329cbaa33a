// SPDX-License-Identifier: Apache-2.0
// Peer and PeerRule: who is at the other end of a unix socket of ours, and whether he may talk.
//
// Whoever gives us orders does so by a unix socket in the file system, whose mode is only a first fence: what
// decides is the kernel's word about the process that connected (SO_PEERCRED). It is the process's effective
// user id at the moment of connect(), translated to our user namespace. Runtimes that work in a user
// namespace (rootless Podman, runc, crun) therefore show the id of the user who started them, although they
// are root in there, and need no rule of their own. An id that our own namespace does not have shows as the
// kernel's overflow id, which stands for everybody who is not known here, and is never permitted.

#pragma once

#include <sys/types.h>

#include <vector>

#include "absl/status/status.h"
#include "core/result.h"

namespace shunt {

// The process that connected, as the kernel knows it.
struct Peer {
  uid_t uid = 0;
  pid_t pid = 0;  // 0: not visible in our pid namespace
};

// The peer of a connected unix socket.
Result<Peer> PeerOf(int socket_fd);

// The users whose processes may talk to us: root, our own user, and those that are named.
class PeerRule {
 public:
  explicit PeerRule(std::vector<uid_t> uids = {}) : uids_(std::move(uids)) {}

  // PermissionDenied, with the peer's ids and the remedy, if it may not.
  absl::Status Check(const Peer& peer) const;

  // Those that are named, each once, without root and our own: who has to be let in by the socket's node as
  // well (core/socket_file.h).
  std::vector<uid_t> Others() const;

 private:
  std::vector<uid_t> uids_;
};

}  // namespace shunt
