// SPDX-License-Identifier: Apache-2.0
// Listener: a seccomp listener, the descriptor through which the kernel hands over the trapped calls of one
// filter.
//
// The only file that knows the ioctls. Hot path except Adopt(): no allocation, errno-valued results. One
// thread at a time. What the kernel does behind these calls is pinned in tests/facts.

#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "core/fd.h"
#include "core/notification.h"
#include "core/reply.h"
#include "core/result.h"

namespace shunt {

class Listener {
 public:
  // Takes over `fd`; InvalidArgument if it is no seccomp listener. Asks for synchronous wake-ups where the
  // kernel has them (6.6): the caller of a trapped call is then woken on the CPU of whoever answers, which is
  // the difference between 3 us and a cross-CPU wake.
  static absl::StatusOr<Listener> Adopt(Fd fd);

  int fd() const { return fd_.get(); }
  bool wakes_synchronously() const { return wakes_synchronously_; }

  // Takes the next notification, and leaves it in `room`, too. BLOCKS if there is none, even with O_NONBLOCK:
  // call it only after POLLIN, once. ENOENT: the target was killed in between; nothing to answer.
  Result<Notification> Receive(NotificationRoom& room) const;

  // True while the target still waits for the answer. Anything read from the target counts only after this.
  bool StillValid(uint64_t id) const;

  // Puts our `source_fd` under the number `target_fd` in the target, replacing what is there. The target runs
  // this itself: we wait until it is scheduled. EINTR: it was not in time (core/patience.h), and nothing has
  // happened.
  Result<void> Install(uint64_t id, int source_fd, int target_fd, bool cloexec) const;

  // Puts our `source_fd` under the target's lowest free number and makes that number the call's result; in
  // one step, if waits for targets have no bound. On failure the call is still unanswered. EINTR: as above.
  Result<void> InstallAndAnswer(uint64_t id, int source_fd, bool cloexec) const;

  // Answers. ENOENT: the target left, or a signal took it out of the call. Reply::Kind must be kReturn, kFail
  // or kContinue.
  Result<void> Send(uint64_t id, Reply reply) const;

 private:
  Listener(Fd fd, bool wakes_synchronously) : fd_(std::move(fd)), wakes_synchronously_(wakes_synchronously) {}

  Fd fd_;
  bool wakes_synchronously_;
};

}  // namespace shunt
