// SPDX-License-Identifier: Apache-2.0
// Is the container's old socket still held by somebody, after the swap has taken it away from one descriptor?
//
// dup, fork and SCM_RIGHTS make further references to one open file, and the kernel exports no count of them.
// But an epoll of ours knows: its entry lives as long as the file, and an unconnected TCP socket always
// reports a hang-up. So after the swap, with our own copies closed, an event means that somebody else holds
// the file. Then the swap must be taken back (the socket would be two different ones for its holders):
// HolderSearch finds a holder, TakeHeld copies the old file from it, and it is put where it was.
//
// A reference in flight (SCM_RIGHTS in a queue, a registered io_uring file) cannot be found, only noticed:
// ENOENT.

#pragma once

#include <sys/types.h>

#include <cstdint>

#include "absl/status/statusor.h"
#include "core/fd.h"
#include "core/result.h"
#include "net/side_thread.h"

namespace shunt::net {

// One for each reactor. Arm, swap, close all copies, StillHeld: one after the other for one socket, before
// the next.
class HolderProbe {
 public:
  static absl::StatusOr<HolderProbe> Create();

  // `old_fd`: our copy of a TCP socket that is neither connected nor listening.
  Result<void> Arm(int old_fd);
  // There is no swap after all; `old_fd` is still open.
  void Disarm(int old_fd);
  // Ends the probe. True if the file armed last is still open somewhere; our own copy counts as well.
  bool StillHeld();

 private:
  explicit HolderProbe(Fd epoll) : epoll_(std::move(epoll)) {}

  Fd epoll_;
  uint64_t serial_ = 0;  // tells this probe's event from those of files that turned out to be held earlier
  bool armed_ = false;
};

// A socket beyond doubt: inode numbers wrap, cookies do not.
struct SocketIdentity {
  uint64_t inode = 0;
  uint64_t cookie = 0;  // SO_COOKIE; 0: not asked, the inode has to do
};
Result<SocketIdentity> Identify(int socket_fd);

// Where a copy of the file is.
struct Holder {
  pid_t pid = 0;  // a process or task, in our pid namespace
  int fd = -1;    // its number there
};

// Searches the target itself, its parent, then every process of the target's network namespace that we may
// look at. 3 us for each open descriptor: milliseconds, for the side thread. ENOENT: nobody found (in flight,
// or gone meanwhile). E2BIG: given up after 16384 descriptors. ENOTSOCK: given up, because somebody exchanges
// descriptors under our hands.
Result<Holder> FindHolder(pid_t tid, const SocketIdentity& socket);

// Our own copy of the file at `holder`. ENOENT: it is not there any more. ENOTSOCK: something else is, namely
// `stranger`, and to close that may wait for whoever serves it (CloseElsewhere, Reactor::CloseInBackground).
Result<Fd> TakeHeld(const Holder& holder, const SocketIdentity& socket, Fd& stranger);

class HolderSearch : public SideJob {
 public:
  HolderSearch(pid_t tid, const SocketIdentity& socket) : tid_(tid), socket_(socket) {}

  void Run(SideTable&) override { result_ = FindHolder(tid_, socket_); }
  const Result<Holder>& result() const { return result_; }

 private:
  const pid_t tid_;
  const SocketIdentity socket_;
  Result<Holder> result_ = Fail(ENOENT);
};

}  // namespace shunt::net
