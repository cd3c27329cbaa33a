// SPDX-License-Identifier: Apache-2.0
#include "core/ring.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <iterator>
#include <tuple>

namespace shunt {
namespace {

// Lets the ring do nothing but what this file asks for, for good: what goes through a ring passes by the
// seccomp filter (core/confinement.h), and a ring can open, write and connect. Then starts it. Positive
// errno.
int StartRestricted(io_uring& ring) {
  std::array<io_uring_restriction, 6> restrictions{};
  constexpr uint8_t kOperations[] = {IORING_OP_POLL_ADD, IORING_OP_TIMEOUT, IORING_OP_LINK_TIMEOUT,
                                     IORING_OP_CLOSE, IORING_OP_ASYNC_CANCEL};
  static_assert(std::size(kOperations) + 1 == std::tuple_size_v<decltype(restrictions)>);
  for (size_t i = 0; i < std::size(kOperations); ++i) {
    restrictions[i].opcode = IORING_RESTRICTION_SQE_OP;
    restrictions[i].sqe_op = kOperations[i];
  }
  restrictions.back().opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
  restrictions.back().sqe_flags = IOSQE_IO_LINK;
  // Debian's liburing declares functions for these two, and lacks them.
  const auto request = [&ring](unsigned opcode, void* argument, size_t count) {
    return syscall(SYS_io_uring_register, ring.ring_fd, opcode, argument, count) == 0 ? 0 : errno;
  };
  const int error = request(IORING_REGISTER_RESTRICTIONS, restrictions.data(), restrictions.size());
  return error != 0 ? error : request(IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
}

}  // namespace

absl::StatusOr<Ring> Ring::Create(unsigned entries, unsigned completions) {
  constexpr unsigned kBest = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  constexpr unsigned kChoices[] = {kBest, IORING_SETUP_COOP_TASKRUN, 0};
  int error = 0;
  for (const unsigned flags : kChoices) {
    io_uring_params params{};
    params.flags = flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED;
    params.cq_entries = completions;
    io_uring ring{};
    error = -io_uring_queue_init_params(entries, &ring, &params);
    if (error == 0) {
      Ring made(ring, completions, flags == kBest);
      error = StartRestricted(made.ring_);
      if (error == 0) return made;
      break;
    }
    if (error != EINVAL) break;
  }
  if (error == EPERM || error == ENOSYS) {
    return absl::FailedPreconditionError(
        "io_uring is not available here: set kernel.io_uring_disabled to 0 and allow io_uring_setup in the "
        "seccomp "
        "profile that shunt itself runs under");
  }
  return ToStatus({error}, "set up an io_uring (memory locking limit or open files?)");
}

Ring::Ring(Ring&& other) noexcept
    : ring_(other.ring_),
      early_(std::move(other.early_)),
      early_size_(other.early_size_),
      early_count_(other.early_count_),
      open_(std::exchange(other.open_, false)),
      defers_task_work_(other.defers_task_work_) {}

Ring::~Ring() {
  if (open_) io_uring_queue_exit(&ring_);
}

io_uring_sqe* Ring::Next() {
  MakeRoomFor(1);
  return io_uring_get_sqe(&ring_);
}

// Full submission queue: hands over what is queued without waiting. The kernel may take nothing: it has no
// memory at the moment (EAGAIN), or, before Linux 5.19, wants completions to be collected first (EBUSY). So
// they are, and the next Turn gives them out.
void Ring::MakeRoomFor(unsigned submissions) {
  while (io_uring_sq_space_left(&ring_) < submissions) {
    if (io_uring_submit(&ring_) >= 0) continue;
    early_count_ += Collect({early_.get() + early_count_, early_size_ - early_count_});
  }
}

void Ring::PollOnce(int fd, unsigned events, uint64_t tag) {
  io_uring_sqe* sqe = Next();
  io_uring_prep_poll_add(sqe, fd, events);
  io_uring_sqe_set_data64(sqe, tag);
}

void Ring::Timer(const __kernel_timespec* timeout, uint64_t tag) {
  io_uring_sqe* sqe = Next();
  io_uring_prep_timeout(sqe, const_cast<__kernel_timespec*>(timeout), 0, 0);
  io_uring_sqe_set_data64(sqe, tag);
}

void Ring::PollWithTimeout(int fd, unsigned events, const __kernel_timespec* timeout, uint64_t tag,
                           uint64_t timeout_tag) {
  MakeRoomFor(2);  // a linked pair must not be torn apart by a submission in between
  io_uring_sqe* poll = Next();
  io_uring_prep_poll_add(poll, fd, events);
  io_uring_sqe_set_data64(poll, tag);
  poll->flags |= IOSQE_IO_LINK;
  io_uring_sqe* limit = Next();
  io_uring_prep_link_timeout(limit, const_cast<__kernel_timespec*>(timeout), 0);
  io_uring_sqe_set_data64(limit, timeout_tag);
}

void Ring::Close(int fd, uint64_t tag) {
  io_uring_sqe* sqe = Next();
  io_uring_prep_close(sqe, fd);
  io_uring_sqe_set_data64(sqe, tag);
}

void Ring::Cancel(uint64_t tag, uint64_t own_tag) {
  io_uring_sqe* sqe = Next();
  io_uring_prep_cancel64(sqe, tag, 0);
  io_uring_sqe_set_data64(sqe, own_tag);
}

size_t Ring::Turn(bool wait, std::span<Completion> out) {
  // EINTR and EBUSY (completions must be collected first) leave what is queued in place: the next turn
  // submits it.
  if (wait && early_count_ == 0) {
    io_uring_submit_and_wait(&ring_, 1);
  } else {
    io_uring_submit_and_get_events(&ring_);
  }
  const size_t early = std::min(early_count_, out.size());
  std::copy_n(early_.get(), early, out.begin());
  std::copy(early_.get() + early, early_.get() + early_count_, early_.get());
  early_count_ -= early;
  return early + (early_count_ == 0 ? Collect(out.subspan(early)) : 0);
}

size_t Ring::Collect(std::span<Completion> out) {
  size_t count = 0;
  unsigned head = 0;
  io_uring_cqe* cqe = nullptr;
  io_uring_for_each_cqe(&ring_, head, cqe) {
    if (count == out.size()) break;
    out[count++] = {.tag = cqe->user_data, .result = cqe->res};
  }
  io_uring_cq_advance(&ring_, static_cast<unsigned>(count));
  return count;
}

}  // namespace shunt
