// SPDX-License-Identifier: Apache-2.0
// Worker: a process that acts inside a container on behalf of the calls of its programs.
//
// A thread cannot join a user namespace, and a thread that puts the capabilities of a container's root on
// outside of the container's user namespace could reach what no container may. So whoever acts inside is a
// process of its own, which has joined the caller's user and mount namespace for good, and uses capabilities
// nowhere else. It is executed anew (tools/starter.h): nothing of an engine's memory is in it.
//
// One worker serves one desk (core/desk.h). For each piece of work it looks the caller up (identity, root,
// working directory), makes sure that the caller is in its own namespaces and still waits, does the deed with
// the caller's rights, and answers the notification itself: that is the shortest way for the caller, and
// holds even if the engine dies meanwhile. Then it waits for more. It ends when the engine that
// has started it does, when it has had nothing to do for a while, or when a deed takes longer than
// kLongestDeed.
//
// One thread. After its start it allocates nothing.

#pragma once

#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "core/desk.h"
#include "core/fd.h"
#include "core/identity.h"
#include "core/listener.h"
#include "core/reply.h"
#include "core/result.h"

namespace shunt {

// A filesystem that somebody in the container serves may let us wait for ever; the call then fails with EIO.
// Up to a tenth less, for the time is not set anew for each deed.
inline constexpr std::chrono::seconds kLongestDeed{60};
inline constexpr std::chrono::seconds kIdleWorker{30};
// After an answer that nobody has looked at for so long it knocks.
inline constexpr std::chrono::milliseconds kUnseenAnswer{20};

// What a new worker is told, with these descriptors beside it: the container's user namespace, its mount
// namespace, its listener, its memory, and the status file of the thread in /proc that these namespaces are
// of.
struct WorkerSetup {
  // "shwork5"; changes with any layout in here, and with the desk's.
  static constexpr uint64_t kMagic = 0x35'6b'72'6f'77'68'73;
  static constexpr size_t kDescriptors = 5;
  static constexpr size_t kLongestOrders = 32 * 1024;
  uint64_t magic = kMagic;
  uint64_t desk_offset = 0;    // in the memory's file
  uint64_t mounts_offset = 0;  // the same of the table of mounts
  uint32_t orders_size = 0;    // 0: no companion is wanted
  std::array<char, kLongestOrders> orders{};
};

// A companion does for a worker what takes the rights that it loses on its way in. It is forked before the
// worker goes, from the worker, and ends with it.
struct CompanionSetup {
  std::string_view orders;
  int proc_fd;            // /proc, in which the container's threads are seen
  int user_namespace_fd;  // the worker's, or where it goes
};
// Returns the worker's end of the link.
using StartCompanion = Result<Fd> (*)(const CompanionSetup& setup);

// By this it is told that there is work: the CPU of the reactor, where the worker goes as well; -1: it is
// free to move.
using WorkerCall = int32_t;

// What it says when it is in, or why it is not (`error`, then it ends). ESRCH: the thread has ended. Later it
// sends single bytes: knocks.
struct WorkerHello {
  int32_t error = 0;
  int32_t pid = 0;
  uint64_t user_namespace = 0;  // inodes
  uint64_t mount_namespace = 0;
};

// What a deed returns to have the kernel run the call, with the caller's own rights. No errno is as large.
inline constexpr int64_t kLeaveToKernel = -(1 << 20);

// The answer that a deed's result means.
inline Reply ReplyOf(int64_t value) {
  if (value == kLeaveToKernel) return Reply::Continue();
  return value < 0 ? Reply::Fail(static_cast<int>(-value)) : Reply::Return(value);
}

class Inside;
struct Deed {
  // Acts on inside.request() and returns what the call returns; negative: the errno.
  int64_t (*act)(Inside& inside);
  // The caller's mount namespace must be the worker's. Paths need that not: they are walked from the caller's
  // root, and from there mounts lead on whoever walks.
  bool on_mounts;
};

// The process: the rest of its life. `link` is a packet socket (core/packet_socket.h), where the setup comes.
// `companion` is called if the setup has orders for one.
[[noreturn]] void RunWorker(Fd link, std::span<const Deed> deeds, StartCompanion companion);

class Worker;

// What a deed sees of the container: everything with the caller's rights.
class Inside {
 public:
  const WorkRequest& request() const { return request_; }

  // Where the last component of a path lies or shall lie.
  struct Place {
    Fd owned;               // a directory (O_PATH); if not valid it is AT_FDCWD and `last` is absolute
    const char* last = "";  // with the slashes behind it

    int directory() const;
  };
  // What the caller could not reach by that path is an error, with the errno that the kernel would have given
  // it. Magic links (/proc/PID/cwd) are not followed: ELOOP, as what they show depends on who looks. But
  // /proc/self/cwd, root and fd/N are the caller's.
  Result<Place> Find(const char* path);

  // What the path leads to, links included, opened with O_PATH and `flags`. Errors as above.
  Result<Fd> Open(const char* path, int flags);

  // Who calls. Its capabilities count in its own user namespace.
  const Identity& caller() const { return identity_; }
  // The container's user namespace is not the one that we come from.
  bool in_own_user_namespace() const { return own_user_namespace_; }
  // From here on with all rights that a root of the container's could have, and with none of the caller's
  // limits: for what has been decided and found already.
  Result<void> TakeOwnRights() { return guise_.TakeOff(); }
  // The caller's rights and these capabilities.
  Result<void> AddRights(uint64_t capabilities) { return guise_.Raise(capabilities); }

  // Each remark once in the worker's life, for the engine is woken by it. What does not fit of `about`
  // (WorkResult) is cut.
  void Say(Remark remark, std::string_view about = {});

  // What was mounted for the container's calls so far.
  MountTable& mounts() { return mounts_; }
  // This one has gone: its place is free when the deed's result is known. Before, whoever did the deed again
  // would not know what has become of it.
  void Forget(uint64_t mount) { gone_ = mount; }
  int companion_fd() const { return companion_fd_; }
  // Where this worker is bound to; -1: it is free to move.
  WorkerCall cpu() const { return cpu_; }
  // /proc as we have come with it: shows ourselves.
  int proc_fd() const { return proc_; }

  // The last moment before the deed's side effect. False: the caller has left, and nothing shall happen.
  bool Begin();

 private:
  friend class Worker;
  // A thread in /proc, by descriptors that are that thread's for ever: if another one has its number by now,
  // there is nothing behind them any more.
  struct Caller {
    pid_t tid = 0;
    Fd directory;
    Fd status;
  };

  Inside(Worker& worker, Desk& desk);

  Result<void> LookUp();
  Result<void> EnterRoot();
  Result<Fd> OpenOfCaller(const char* what, int flags) const;
  Result<Fd> OpenWithOwnRights(const char* what);
  Result<Fd> OpenOfProcess(const char* what);
  Result<Fd> Start(const char*& path, std::span<char> rewritten);

  const WorkRequest& request_;
  int proc_;  // the /proc in which we see the caller
  const Caller& caller_;
  const Listener& listener_;
  Guise& guise_;
  Identity& identity_;
  Desk& desk_;
  MountTable& mounts_;
  uint64_t& gone_;
  uint32_t& said_;
  const int companion_fd_;
  const WorkerCall cpu_;
  const bool own_user_namespace_;
  PidNumbers pids_;
};

}  // namespace shunt
