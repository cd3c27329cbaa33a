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

// A walk through the sockets that are held by processes in one network namespace, as far as we may look at
// them: once for each descriptor, of which a container may have millions, and 3 us for each. So it is gone
// through in pieces. What is opened or passed on meanwhile may be missed. Nothing is to be seen in our own
// network, where not everything is a container's.
class SocketWalk {
 public:
  explicit SocketWalk(Namespace network) : network_(network) {}

  // Goes on, until then (CLOCK_MONOTONIC, ns), but by one descriptor or process at least. Calls `see` with
  // our own copy of each socket. What was a socket when we looked may have been exchanged for another file
  // meanwhile: such copies are closed elsewhere, and not seen. True: that was all.
  Result<bool> GoOn(int64_t until, absl::FunctionRef<void(const Fd& copy)> see);

 private:
  bool GoThrough(uint64_t mount, int64_t until, absl::FunctionRef<void(const Fd& copy)> see);

  const Namespace network_;
  off_t at_ = 0;       // in the list of processes
  pid_t process_ = 0;  // the one that it is in; 0: none
  off_t within_ = 0;   // in the list of its descriptors
};

// For one task on Linux 6.9 and later, before that for a process.
Result<Fd> OpenPidFd(pid_t pid);

}  // namespace shunt::net
