// SPDX-License-Identifier: Apache-2.0
// What other processes hold, looked at from outside: their descriptors by /proc, and copies of them. For slow
// searches; any thread, no heap.

#pragma once

#include <sys/types.h>

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "core/fd.h"
#include "core/result.h"

namespace shunt::net {

// The inode and mount that a descriptor's fdinfo names; zeros if it is gone. The file itself is never
// touched: opening, stating or closing a copy of a file of a FUSE mount would wait for whoever serves it, and
// that is the container.
struct FdInfo {
  uint64_t inode = 0;
  uint64_t mount = 0;
};
FdInfo ReadFdInfo(int directory_fd, int number);

// /proc/TID/fdinfo. Not valid: the task has left, or is not ours to look at.
Fd OpenFdInfoDirectory(pid_t tid);

// All sockets lie on one mount of the kernel's own: an equal inode number on another mount is another file.
Result<uint64_t> MountOfSockets();

// A network namespace, by its file.
struct Namespace {
  dev_t device = 0;
  ino_t inode = 0;
  friend bool operator==(const Namespace&, const Namespace&) = default;
};
Result<Namespace> NetworkOf(pid_t pid);

// Calls `see` with our own copy of each socket that is held by processes in the network namespace of `pid`,
// as far as we may look at them, once for each descriptor. What was a socket when we looked may have been
// exchanged for another file meanwhile: such copies are closed elsewhere, and not seen. 3 us for each open
// descriptor of the container, of which it may have millions: for a thread that has time `until` then
// (CLOCK_MONOTONIC, ns). False: that was not enough. Sees nothing in our own network, where not everything is
// a container's. ESRCH and the like: `pid` has gone.
Result<bool> ForEachSocketWith(pid_t pid, int64_t until, absl::FunctionRef<void(const Fd& copy)> see);

// For one task on Linux 6.9 and later, before that for a process.
Result<Fd> OpenPidFd(pid_t pid);

}  // namespace shunt::net
