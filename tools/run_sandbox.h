// SPDX-License-Identifier: Apache-2.0
// Sandbox: the namespaces of `shunt run`, and the command in them, seen from the engine's process.
//
// The steps and their order: Create() makes the namespaces with init as their first process, which maps the
// ids and mounts what it can. Then the network program can start, since it needs nothing but namespaces.
// Prepare() hands over what depended on it, and brings the command up to the moment before its exec: its
// filter is in place by then and its listener in our hands, so that not one call of it is missed. Start()
// lets it go.

#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/fd.h"
#include "tools/run_id_map.h"
#include "tools/run_terminal.h"

namespace shunt {

struct SandboxOptions {
  std::vector<std::string> command;
  std::string rootfs;        // empty: the host's files
  UserIds user;              // as whom the command runs
  bool drop_groups = false;  // the command has no supplementary groups of the caller's
  // Installs the command's seccomp filter in the calling process and returns its listener. Runs in the
  // container, with every capability there, shortly before the exec.
  std::function<absl::StatusOr<Fd>()> install_filter;
};

class Sandbox {
 public:
  // Must be called while the process has one thread. Init ends when the calling thread does. `link_fd` leads
  // init to the front; both references have to live only as long as the call.
  static absl::StatusOr<Sandbox> Create(const SandboxOptions& options, const Terminal& terminal, int link_fd);

  // The container's /etc/resolv.conf reads `resolv_conf`, unless that is empty. With `filter` the command
  // gets its filter and the listener is returned, else an invalid Fd is.
  absl::StatusOr<Fd> Prepare(const std::string& resolv_conf, bool filter);

  absl::Status Start();

  // Init, which lives in all of the container's namespaces, as our pid namespace knows it.
  pid_t pid() const { return pid_; }
  // Readable once everything in the container has ended.
  int ended_fd() const { return pidfd_.get(); }
  // To be called once, then: 0 after an orderly end, else 128 + the signal that killed init.
  int Reap();

  const IdMap& id_map() const { return id_map_; }
  // What the kernel did not let us do, for people; "" if nothing.
  const std::string& shortcoming() const { return shortcoming_; }

 private:
  Sandbox() = default;

  pid_t pid_ = 0;
  Fd pidfd_;
  Fd setup_;  // packets of SetupMessage to and from init, later the command
  IdMap id_map_;
  std::string shortcoming_;
};

}  // namespace shunt
