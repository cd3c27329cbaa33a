// SPDX-License-Identifier: Apache-2.0
// MountBuilder: the companion of a worker (core/worker.h) that makes what a container may not make: a proc of
// its own while its /proc is masked, a device.
//
// It stays outside, with the rights of the agent, in a mount namespace of its own in which there is next to
// nothing, and answers its worker with descriptors of mounts that are mounted nowhere. The worker puts them
// where the caller could reach, so no path of the container's is ever walked out here. A mount is complete
// before it leaves: the container's masks lie on a proc, and cannot be taken off.
//
// What makes them stay is the kernel's rule for mounts that come from a more privileged mount namespace: what
// lies on another mount there is locked (MNT_LOCKED). So after building, the process joins the container's
// user namespace, takes a copy of its mount namespace, which belongs to that, and sends a copy of the tree in
// there. If that is the user namespace it builds in (the container has none of its own, or an agent without
// rights on the host builds in the container's outermost), a new one within it serves for the way. A process
// can do this once: one is forked for each request.

#pragma once

#include <sys/types.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>

#include "core/worker.h"

namespace shunt {

struct BuildRequest {
  enum class Kind : uint32_t {
    kProc,    // of the caller's pid namespace, with the masks
    kSysfs,   // of its network namespace, with the masks
    kOther,   // any filesystem that the policy names, with the agent's rights
    kDevice,  // a device node of `mode` and `device`, the caller's own
    kTry,     // the same, and it is opened as by one in the caller's cgroup; kRefusedThere: it cannot be
  };
  static constexpr int kRefusedThere = EOWNERDEAD;  // nothing else here fails with it
  static constexpr uint32_t kNone = ~0U;

  Kind kind{};
  pid_t tid = 0;     // the caller
  int32_t cpu = -1;  // where the worker is, and waits
  uint64_t flags = 0;
  uint32_t mode = 0;
  uint64_t device = 0;
  // In `text`, each with its NUL; kNone: there is none.
  uint32_t type = kNone, source = kNone, data = kNone;
  std::array<char, 3 * PATH_MAX> text{};

  const char* string(uint32_t at) const { return at == kNone ? nullptr : text.data() + at; }
};

struct BuildAnswer {
  int32_t error = 0;  // 0: with the mount's descriptor
};

// A StartCompanion. The orders are the container's policy as JSON (handlers/policy_json.h).
Result<Fd> StartMountBuilder(const CompanionSetup& setup);

// From the worker: has it made. Should the builder have died, this process ends as well: another worker
// comes, with a builder of its own.
Result<Fd> HaveBuilt(int builder_fd, const BuildRequest& request);

}  // namespace shunt
