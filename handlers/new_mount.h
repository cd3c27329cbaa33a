// SPDX-License-Identifier: Apache-2.0
// A filesystem from the arguments of mount(2), mounted nowhere yet.
//
// mount(2) takes a path for the place, which could lead elsewhere by the time that the kernel walks it. The
// calls behind fsopen(2) make the mount first, as a descriptor; where it goes is then a descriptor as well.

#pragma once

#include <sys/mount.h>

#include <cstdint>

#include "core/desk.h"
#include "core/fd.h"
#include "core/result.h"
#include "core/worker.h"

namespace shunt {

struct MountWish {
  const char* type;
  const char* source = nullptr;  // nullptr: none
  const char* data = nullptr;    // options of the filesystem, separated by commas; nullptr: none
  uint64_t flags = 0;            // MS_...
};

// What is not about a new filesystem, but about a mount that is there. With these mount(2) does something
// else.
inline constexpr uint64_t kOtherMountActions =
    MS_REMOUNT | MS_BIND | MS_MOVE | MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE;

// Those of the kernel's own and those that there are not: mount(2) refuses them.
inline constexpr uint64_t kForbiddenMountFlags = ~uint64_t{0x7fffffff};

// Without what old programs add to tell a kernel of last century that they have flags at all.
uint64_t WithoutMagic(uint64_t flags);

// The mount's attributes (MOUNT_ATTR_...) that the flags mean.
uint64_t AttributesOf(uint64_t flags);

// Makes it, with the rights of the calling thread. A proc shows the pid namespace `pid_namespace_fd`
// (EOPNOTSUPP: before Linux 6.18 it cannot be named); -1: the thread's own. Errors as mount(2) has them, with
// one exception: EPERM can also mean that a user namespace may not mount this type at all.
Result<Fd> MakeMount(const MountWish& wish, int pid_namespace_fd = -1);

// A copy of what is mounted at `path` below `from_fd`, mounted nowhere; `flags` as for open_tree(2).
Result<Fd> CopyMount(int from_fd, const char* path, unsigned flags = 0);

// Mounts it on what `place_fd` is.
Result<void> PutMount(int mount_fd, int place_fd);

// The mount that a descriptor (O_PATH will do) is in, by the number that no other ever gets; on a kernel
// without those (before 6.8), by one that is only not in use twice. 0: it has none.
struct MountOf {
  uint64_t id = 0;
  bool is_root = false;  // the descriptor is the mount's root
};
MountOf FindMountOf(int fd);

// There is a mount of this number in the calling thread's mount namespace.
bool MountExists(uint64_t id);

// The caller has the right to mount; or what is mounted on what this descriptor is shows nowhere else. Where
// the container shares that with others it would be mounted there as well, as a rule on the host, and no
// policy for the container lets anybody do that. Nobody without the right makes a mount shared, so what is
// found now holds until the end. Leaves the caller's rights in force.
bool MayMountOn(Inside& inside, int place_fd);

// Notes a mount that is about to be put in its place, where it cannot be told from others any more. nullptr:
// the container has as many as it may have.
MountTable::Place* NoteMount(MountTable& mounts, uint64_t id, const WorkRequest& request);

}  // namespace shunt
