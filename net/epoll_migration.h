// SPDX-License-Identifier: Apache-2.0
// Moves epoll registrations from a container's socket to its twin.
//
// An epoll entry belongs to a pair (file, descriptor number). A swap keeps the number and replaces the file,
// so a registration made before the swap would be lost: no events ever, and EPOLL_CTL_MOD would say ENOENT.
// So before the swap the twin is added to the same epoll under the same number, with the events and data of
// the old entry.
//
// Order: FindEpolls (once per process; again when it has made an epoll), FindWatchers (0.6 us per epoll;
// nearly always none, and then that is all), EpollMigration on the side thread, then the swap, then the
// connect. Adding before the swap makes both one step: if it fails, or if we crash, the twin is closed and
// takes its entries with it, and the old ones are still there. The old entries go away with the old file.
//
// Guaranteed: every registration of the socket under its number, in an epoll of the target's own descriptor
// table, as it was when the call was trapped: level, edge, oneshot, exclusive, all 64 bits of data.
// Afterwards the program can MOD and DEL it. Not guaranteed:
//   - what another thread of the target does to this very registration while the connect is under way
//     (natively a race as well, but one that ends in one of two orders): ADD is lost, MOD is lost, DEL comes
//     back;
//   - a thread that waits in epoll_wait meanwhile may see EPOLLHUP of the unconnected twin once more.
//     Natively it has seen that of its own socket already, when it registered it;
//   - an epoll that only another process has open, and a registration under another number (through a dup
//     that has been closed since);
//   - an epoll that another process has sent to one that looked for its epolls before.
// A oneshot entry that has fired and was not armed again cannot be re-created (the kernel always adds ERR and
// HUP): ENOTSUP, the socket belongs on the ordinary path.

#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/result.h"
#include "net/side_thread.h"

namespace shunt::net {

// Numbers of epoll descriptors in one process.
struct EpollSet {
  static constexpr size_t kCapacity = 32;
  std::array<int, kCapacity> fds{};
  size_t count = 0;
  bool stale = false;  // FindWatchers: the set that it was given named what is no epoll any more

  const int* begin() const { return fds.data(); }
  const int* end() const { return fds.data() + count; }
};

// The epolls in the descriptor table of `tid`, from our pid namespace. 0.6 us per open descriptor plus 10 us.
// E2BIG: more than kCapacity epolls, or more than 4096 descriptors: the socket belongs on the ordinary path,
// if it may be watched at all. EPERM, EACCES: we may not look. ESRCH, ENOENT: the target left. Any thread; no
// heap.
Result<EpollSet> FindEpolls(pid_t tid);

// Those of `epolls` that watch the file of `old_fd` (our copy of the target's `number`) under this number. An
// entry of `epolls` that has been closed or is no epoll any more is passed over, and the result is stale: the
// epoll may have another number by now. Any thread; no heap.
Result<EpollSet> FindWatchers(pid_t tid, int number, int old_fd, const EpollSet& epolls);

// Adds the twin to `watchers` as the old file stands in them. All descriptors are the engine's and stay open
// until the job is finished. If the result is an error, the twin may stand in some of them: close it, and do
// not swap.
class EpollMigration : public SideJob {
 public:
  EpollMigration(int target_pidfd, int number, int old_fd, int twin_fd, const EpollSet& watchers)
      : target_pidfd_(target_pidfd),
        number_(number),
        old_fd_(old_fd),
        twin_fd_(twin_fd),
        watchers_(watchers) {}

  void Run(SideTable& table) override { result_ = Migrate(table); }

  // After SideThread::TakeFinished(). ENOTSUP: a disarmed oneshot entry. ENOSPC: the container's limit of
  // watches. EBADF: the target has closed the epoll meanwhile, or `number` is beyond our RLIMIT_NOFILE.
  const Result<void>& result() const { return result_; }

 private:
  Result<void> Migrate(SideTable& table) const;

  const int target_pidfd_;
  const int number_;
  const int old_fd_;
  const int twin_fd_;
  const EpollSet watchers_;
  Result<void> result_;
};

}  // namespace shunt::net
