// SPDX-License-Identifier: Apache-2.0
// Verdicts: a container is killed or frozen as a whole because of a call that it made.
//
// What that takes is one descriptor, the lever, taken when the container is first served and held as long as
// its listener: a file of its own cgroup, open for writing, or the pidfd of its first process. Neither can
// come to mean another container, which a pid or a path can. Which of them it is shows when it is used.
//
//            own cgroup, v2         own cgroup, v1         none
//   kill     cgroup.kill            pidfd                  pidfd
//   freeze   cgroup.freeze          freezer.state          impossible
//
// A pidfd kills the first process: with a pid namespace of the container's own, all die with it.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "core/cgroup.h"
#include "core/fd.h"
#include "handlers/accelerator.h"

namespace shunt {

// Control thread, when a container comes: the lever for its policy. An invalid descriptor: the policy needs
// none. The error says why there is none, and what to do.
//
// A cgroup is the container's own if it is neither the root, nor holds us or the parent of the container's
// first process, and if it belongs to the container's owner where that is not root.
absl::StatusOr<Fd> TakeLever(const ContainerSpec& spec, const CgroupOpener* opener);

// The process of a thread, for Kill().
Result<Fd> ProcessOf(pid_t tid);

// Kills what the lever is about. False: nobody was killed.
bool Kill(int lever);
// Begins to freeze it; whoever is inside a system call stops when that is over. False: nothing was frozen.
bool Freeze(int lever);

}  // namespace shunt
