// SPDX-License-Identifier: Apache-2.0
// Control groups: which ones a process is in, and how we get to write one of their files.
//
// An engine that serves may not open a file for writing (core/confinement.h). CgroupOpener is a process of
// its own, forked before that, which can open nothing but three files of the control group file systems:
// whoever takes the engine over can freeze and kill with it, and change no other file.
//
// Control thread only.

#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/fd.h"
#include "core/result.h"

namespace shunt {

// The hierarchies that can stop what is in them, and that which says what devices it may use. On a hybrid
// machine a process is in several.
enum class Hierarchy : uint8_t { kUnified, kFreezer, kDevices };

// The process's cgroup there, as /proc/PID/cgroup has it: "/" is the root of all. Empty: none.
std::string CgroupIn(std::string_view proc_cgroup, Hierarchy hierarchy);

// True if `inner` is the cgroup `outer` or lies in it.
bool IsWithin(std::string_view inner, std::string_view outer);

// Where the hierarchy's `cgroup` is in the file system, by /proc/self/mountinfo. Empty: it is not mounted, or
// so that this cgroup cannot be seen.
std::string DirectoryOf(std::string_view mountinfo, Hierarchy hierarchy, std::string_view cgroup);

// What can be written.
enum class CgroupFile : uint8_t {
  kKill,          // cgroup.kill, unified (5.14): "1" kills all that is in the cgroup and below
  kFreeze,        // cgroup.freeze, unified: "1" freezes it
  kFreezerState,  // freezer.state: "FROZEN" does
};

class CgroupOpener {
 public:
  // Forks. Before the first thread and before confinement. The process ends with the calling thread or with
  // this object, whichever is earlier.
  static absl::StatusOr<std::unique_ptr<CgroupOpener>> Start();
  ~CgroupOpener();
  CgroupOpener(const CgroupOpener&) = delete;
  CgroupOpener& operator=(const CgroupOpener&) = delete;

  // A file of the cgroup `directory`, for writing. EPERM: that is no directory of a cgroup. EPIPE: the
  // process is gone.
  Result<Fd> Open(int directory, CgroupFile file) const;

 private:
  CgroupOpener(Fd socket, pid_t pid) : socket_(std::move(socket)), pid_(pid) {}

  Fd socket_;
  const pid_t pid_;
};

}  // namespace shunt
