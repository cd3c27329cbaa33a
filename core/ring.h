// SPDX-License-Identifier: Apache-2.0
// Ring: one io_uring, owned by one thread. The only file that includes liburing.
//
// Operations are one-shot. A one-shot poll on a listener checks readiness when it is submitted, in the same
// system call that waits, so "re-arm, then sleep" loses nothing and says once per notification that RECV will
// not block. (A multishot poll merges wake-ups and reports notifications that were drained already; it needs
// two poll(2) calls around every RECV.)

#pragma once

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "core/result.h"

namespace shunt {

// What the kernel tells when an operation is over. `result` is what the system call would have returned,
// negative errno included; `tag` is what the submitter gave.
struct Completion {
  uint64_t tag;
  int32_t result;
};

class Ring {
 public:
  // Creates the ring on the calling thread. With `entries` submissions in one turn; completions never get
  // lost (the kernel keeps what does not fit). The best set of features that the kernel has is found by
  // trying.
  static absl::StatusOr<Ring> Create(unsigned entries, unsigned completions);
  Ring(Ring&& other) noexcept;
  Ring& operator=(Ring&&) = delete;
  ~Ring();

  // Task work runs only when this thread asks for it (DEFER_TASKRUN): no interruptions in the middle of a
  // call.
  bool defers_task_work() const { return defers_task_work_; }

  void PollOnce(int fd, unsigned events, uint64_t tag);
  // Ends with -ETIME after `nanoseconds`.
  void Timer(const __kernel_timespec* timeout, uint64_t tag);
  // Like PollOnce, but ends with -ECANCELED when the time is over. The timeout's own completion carries
  // `timeout_tag`.
  void PollWithTimeout(int fd, unsigned events, const __kernel_timespec* timeout, uint64_t tag,
                       uint64_t timeout_tag);
  // Closes where waiting for it hurts nobody.
  void Close(int fd, uint64_t tag);
  void Cancel(uint64_t tag, uint64_t own_tag);

  // Hands over what was queued, sleeps until something is complete if `wait`, and copies out completions, the
  // oldest first. They are collected before any of them is acted upon, so that acting may submit freely.
  size_t Turn(bool wait, std::span<Completion> out);

 private:
  Ring(const io_uring& ring, unsigned completions, bool defers)
      : ring_(ring),
        early_(std::make_unique<Completion[]>(completions)),
        early_size_(completions),
        open_(true),
        defers_task_work_(defers) {}
  io_uring_sqe* Next();
  void MakeRoomFor(unsigned submissions);
  size_t Collect(std::span<Completion> out);

  io_uring ring_{};
  // Collected before their turn, the oldest first: see MakeRoomFor.
  std::unique_ptr<Completion[]> early_;
  size_t early_size_ = 0;
  size_t early_count_ = 0;
  bool open_ = false;
  bool defers_task_work_ = false;
};

}  // namespace shunt
