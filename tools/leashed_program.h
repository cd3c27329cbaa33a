// SPDX-License-Identifier: Apache-2.0
// Programs that `shunt run` starts: small tools that it waits for, and network programs that must not outlive
// it.

#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/fd.h"

namespace shunt {

// The path of an installed program: from PATH, else from where Debian keeps such tools (/usr/sbin is not in
// every user's PATH). Empty if it is not installed.
std::string FindProgram(const std::string& name);

// Runs a program to its end, without input. The error carries what it wrote to stderr.
absl::Status RunToEnd(const std::vector<std::string>& argv);

// A running program that ends when this object does, and also when our process ends in whatever way.
//
// PR_SET_PDEATHSIG does not do: the kernel forgets it when the program joins a user namespace, as slirp4netns
// and pasta do, and pasta keeps its network namespace alive, so that it would never notice. So a small
// process of ours, in a session of its own where no signal reaches it by accident, holds the leash: it waits
// for our end or the program's.
//
// What the program mounts or unmounts happens to itself alone.
class LeashedProgram {
 public:
  // Starts `argv`. The program finds the descriptor `ready_fd` as its descriptor 3, and neither input nor
  // output. Safe while other threads run.
  static absl::StatusOr<LeashedProgram> Start(const std::vector<std::string>& argv, int ready_fd);

  LeashedProgram(LeashedProgram&&) = default;
  LeashedProgram& operator=(LeashedProgram&&) = default;
  ~LeashedProgram();  // returns when the program has ended

  // Readable once the program has ended.
  int ended_fd() const { return holder_.get(); }

  // What the program wrote to stderr, as one line; its first 64 KiB are kept.
  std::string Complaint() const;

 private:
  LeashedProgram() = default;

  Fd complaint_;  // a memfd, the program's stderr
  Fd leash_;      // closing it ends the program
  Fd holder_;     // a pidfd of the process that holds the leash
  pid_t holder_pid_ = 0;
};

}  // namespace shunt
