// SPDX-License-Identifier: Apache-2.0
// Target: the thread that made a trapped call, as far as we may look into it: its memory and its descriptors.
//
// Everything here can be stale or hostile: a target may die and its tid be given to another, other threads
// change memory and descriptors at any moment. Read once, then ask Listener::StillValid, then decide on the
// copy. Hot path: no allocation, errno-valued results. A Target lives in its reactor's TargetCache; one
// thread only.

#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/fd.h"
#include "core/limits.h"
#include "core/result.h"

namespace shunt {

// What /proc says of one descriptor.
struct DescriptorInfo {
  int flags = 0;     // as F_GETFL gives them, and O_CLOEXEC as the target's own descriptor has it
  uint64_t ino = 0;  // 0 before Linux 5.14
  int mount = 0;  // the id of the mount that the file is on; all sockets are on the kernel's one socket mount
};

// Whose call it is.
struct TaskOwner {
  pid_t process = 0;  // as seen from our pid namespace
  uid_t user = 0;     // the real one, as seen from our user namespace
};

class Target {
 public:
  pid_t tid() const { return tid_; }

  // Reads up to into.size() bytes at `address`. A result shorter than asked for means that the rest is not
  // readable.
  Result<size_t> ReadMemory(uint64_t address, std::span<std::byte> into) const;
  // The same for writing; for results that a call is meant to store (getsockname), never for the target's
  // arguments.
  Result<size_t> WriteMemory(uint64_t address, std::span<const std::byte> from) const;

  // A duplicate of the target's descriptor `number` (O_CLOEXEC). EBADF: the target has none of that number.
  // Only for what Describe() has just called a socket: to close a duplicate of another file can wait for
  // whoever serves it (FUSE asks its server), as long as he likes. If it turns out to be none, give it to
  // Reactor::CloseInBackground().
  Result<Fd> TakeFd(int number);

  Result<DescriptorInfo> Describe(int number);

  // Names the thread for pidfd calls. Valid as long as this Target is not looked up anew.
  Result<int> PidFd();

  // Takes some microseconds.
  Result<TaskOwner> Owner() const;

  // For layers above: a note that lives as long as the entry does and is zeroed when it is given to another
  // target.
  std::array<uint64_t, 4>& note() { return note_; }

 private:
  friend class TargetCache;
  Result<void> OpenPidFd();
  Result<Fd> OpenInfo(int number);

  pid_t tid_ = 0;
  uint64_t owner_ = 0;
  Fd pidfd_;
  Fd info_dir_;   // /proc/TID/fdinfo
  Fd info_file_;  // the last descriptor's file there; reading it again from the start tells the present state
  int info_number_ = -1;
  std::array<uint64_t, 4> note_{};
};

// The targets that called lately, so that their pidfds need not be opened for every call. A pidfd names one
// thread for ever: if the thread is gone, using it says ESRCH and it is opened anew, so an entry can be stale
// but never wrong.
class TargetCache {
 public:
  // `owner` tells listeners apart. The reference is good until the next Find.
  Target& Find(uint64_t owner, pid_t tid);
  // Forgets the targets of a listener that has ended.
  void Forget(uint64_t owner);

 private:
  std::array<Target, limits::kCachedTargets> entries_;
};

}  // namespace shunt
