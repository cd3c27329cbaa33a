// SPDX-License-Identifier: Apache-2.0
// Desk: where a reactor lays work for a worker (core/worker.h), in the container's memory.
//
// One desk has at most one worker at a time, and a worker has one desk. The reactor fills in `request`, sets
// kGiven and knocks; the worker does what is asked inside the container and answers the notification itself.
// It knocks back only if somebody waits for that (`hurry`), or if nobody has looked for a while: a program
// that makes one call after the other brings the reactor here anyway. Either may die at any moment: what
// stands here tells the survivor how far things have come. So each state is set before what it names may be
// visible to anybody else, as in the journal.
//
// A worker holds a record lock (fcntl(2)) on the byte of the memory's file that its desk begins at. Thus
// whoever has the file can see whether a worker is still there, also that of an engine before this one.

#pragma once

#include <fcntl.h>
#include <sys/types.h>

#include <array>
#include <atomic>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace shunt {

enum class DeskState : uint32_t {
  kFree,
  kGiven,  // there is work, and nothing has been done
  kBegun,  // the side effect may have happened
  kDone,   // `result` holds; the answer may or may not have been sent
  kSent,   // it was sent, or could not be: result.send_error
};

// What is to be done, in values: nothing here is looked up in the caller's memory again.
struct WorkRequest {
  uint64_t call = 0;         // the notification's id
  pid_t tid = 0;             // the caller, as we see it
  uint32_t deed = 0;         // which of the handlers' deeds (handlers/deeds.h)
  uint64_t registers = 0;    // a fingerprint of the call's
  uint64_t fingerprint = 0;  // the same with `text`: tells a restarted call from another one of the thread
  // The work was begun before and its worker died, or a signal kept the answer from the caller: what would be
  // the work of this very call counts as such if it is found done.
  bool may_be_done = false;
  int32_t directory = 0;  // for a relative path: a descriptor of the caller's, or AT_FDCWD
  std::array<uint64_t, 4> values{};
  // Up to four strings of the caller's, one behind the other, each with its NUL.
  static constexpr size_t kStrings = 4;
  std::array<uint32_t, kStrings> offsets{};
  uint32_t text_size = 0;
  std::array<char, kStrings * PATH_MAX> text;

  const char* string(size_t index) const { return text.data() + offsets[index]; }
};

// What the operator should know of a deed: that it was done and is of no use, or why it was refused where
// another policy or configuration would have it done. Programs see an EPERM in either case.
enum class Remark : uint32_t {
  kNone,
  kDeviceRefused,  // the device that was made cannot be opened there: its cgroup forbids it
  kNoNetAdmin,     // nobody who opens it can make a network interface of it: CAP_NET_ADMIN is missing
  kMayNotMount,    // the caller has no CAP_SYS_ADMIN, which the policy asks for
  kSharedPlace,    // nor has this one, and what is mounted there would show in other mount namespaces
};

struct WorkResult {
  int64_t value = 0;  // what the call returns; negative: the errno
  // Not done: the caller is in other namespaces than the worker, namely in these (inodes).
  bool elsewhere = false;
  uint64_t user_namespace = 0;
  uint64_t mount_namespace = 0;
  Remark remark = Remark::kNone;
  std::array<char, 32> about{};  // what the remark names: a device ("c 10:229"), a filesystem. With a NUL
  int32_t send_error = 0;        // of the answer; ENOENT: the caller had left; ESRCH: it is dead
};

// On pages of its own, so that a worker maps its desk and nothing else of the container's memory.
struct alignas(4096) Desk {
  std::atomic<DeskState> state = DeskState::kFree;
  std::atomic<pid_t> tid = 0;         // of the call that is on it, while it is not free
  std::atomic<int64_t> given_by = 0;  // which of the container's engines (Container::incarnation)
  std::atomic<bool> hurry = false;    // the reactor waits for a knock
  WorkRequest request;
  WorkResult result;
};

// What workers have mounted in the container, so that it can be told from what was there, and from what the
// container has mounted itself. In the container's memory; all its workers write it.
struct alignas(4096) MountTable {
  static constexpr size_t kPlaces = 128;
  struct Place {
    // The mount's id, which no other mount ever gets (STATX_MNT_ID_UNIQUE); 0: free. Set before it is
    // visible, so there may be none of that id.
    std::atomic<uint64_t> mount = 0;
    // The call it was made for, should that be done again.
    std::atomic<pid_t> tid = 0;
    std::atomic<uint64_t> fingerprint = 0;
  };
  std::array<Place, kPlaces> places;

  // nullptr: all are taken.
  Place* Add(uint64_t mount, pid_t tid, uint64_t fingerprint);
  Place* Find(uint64_t mount);
  Place* FindFor(pid_t tid, uint64_t fingerprint);
  bool empty() const;
  // Frees its place, if it has one.
  void Remove(uint64_t mount);
  // Frees the places of those of which `is_gone`.
  void Forget(bool (*is_gone)(uint64_t mount));
};

// The lock of the worker at the desk that lies at `offset` in the memory's file, for fcntl(2).
inline struct flock LockOfDesk(uint64_t offset) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(offset);
  lock.l_len = 1;
  return lock;
}

}  // namespace shunt
