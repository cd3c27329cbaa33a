// SPDX-License-Identifier: Apache-2.0
// io_uring: liburing's functions on simulated rings (the linker leads core/ring.cc to them).
//
// What a ring does is done late and in any order: requests become complete at some step, and their
// completions appear in the queue at some later one. Rings are small, so that full queues are met all the
// time; the kernel may give a caller fewer places than it asked for (IORING_SETUP_CLAMP).

#include <liburing.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "tests/sim/kernel.h"
#include "tests/sim/world.h"

namespace shunt::sim {
namespace {

struct Request {
  uint64_t tag;
  uint8_t opcode;
  FileRef file;
  unsigned events;
  uint64_t deadline;  // of a timeout
  uint64_t serial;
  uint64_t linked_to;  // of a link timeout: the serial of what it limits
};

class RingFile final : public File, public Actor {
 public:
  RingFile(unsigned entries, unsigned completions) : sqes(entries), cqes(completions) {
    World::Get().AddActor(*this);
  }
  ~RingFile() override { World::Get().RemoveActor(*this); }
  const char* kind() const override { return "ring"; }

  int Submit(io_uring& ring);
  bool HasCompletions() const { return cq_head != cq_tail; }

  size_t Weight() override;
  void Act() override;

  std::vector<io_uring_sqe> sqes;
  std::vector<io_uring_cqe> cqes;
  std::weak_ptr<char> owner = World::Get().EngineLife();
  unsigned sq_head = 0, sq_tail = 0, cq_head = 0, cq_tail = 0, flags = 0;

 private:
  void Start(const io_uring_sqe& sqe, const io_uring_sqe* before);
  void StartPoll(const io_uring_sqe& sqe);
  void StartTimeout(const io_uring_sqe& sqe, const io_uring_sqe* before);
  void Cancel(const io_uring_sqe& sqe);
  void Complete(uint64_t tag, int result);
  // Ends a request; whatever is linked to it ends, too.
  void Finish(size_t index, int result);
  bool IsDue(const Request& request) const;

  std::vector<Request> requests_;
  std::vector<io_uring_cqe> hidden_;  // complete, but nobody can see it yet
  uint64_t last_serial_ = 0;
  uint64_t last_poll_ = 0;
};

std::shared_ptr<RingFile> RingOf(const io_uring& ring) {
  auto file = Fiber::Current()->table->GetAs<RingFile>(ring.ring_fd);
  if (file == nullptr) World::Get().Wrong("descriptor %d is no ring", ring.ring_fd);
  return file;
}

// What the kernel has not taken stays in the queue.
int RingFile::Submit(io_uring& ring) {
  World& world = World::Get();
  unsigned count = ring.sq.sqe_tail - sq_head;
  if (count > 0) {
    if (const int error = world.Fault({EAGAIN, EBUSY, EINTR, ENOMEM}); error != 0) return -error;
  }
  if (count > 1 && world.Fault({EAGAIN}) != 0) count = static_cast<unsigned>(1 + world.chance.Below(count));
  const io_uring_sqe* before = nullptr;
  for (unsigned i = 0; i < count; ++i) {
    const io_uring_sqe& sqe = sqes[sq_head++ & (sqes.size() - 1)];
    Start(sqe, before);
    before = &sqe;
  }
  return static_cast<int>(count);
}

void RingFile::Start(const io_uring_sqe& sqe, const io_uring_sqe* before) {
  World& world = World::Get();
  world.Trace("  submits operation %d, descriptor %d, tag %llx", sqe.opcode, sqe.fd, sqe.user_data & 7);
  switch (sqe.opcode) {
    case IORING_OP_POLL_ADD:
      return StartPoll(sqe);
    case IORING_OP_TIMEOUT:
    case IORING_OP_LINK_TIMEOUT:
      return StartTimeout(sqe, before);
    case IORING_OP_ASYNC_CANCEL:
      return Cancel(sqe);
    case IORING_OP_CLOSE: {
      FdTable& table = *Fiber::Current()->table;
      if (table.open.erase(sqe.fd) == 0) world.Wrong("a descriptor that is not open is closed by the ring");
      ++table.closed;
      return Complete(sqe.user_data, 0);
    }
    default:
      world.Wrong("the ring does not know operation %d", sqe.opcode);
  }
}

void RingFile::StartPoll(const io_uring_sqe& sqe) {
  World& world = World::Get();
  last_poll_ = 0;
  const FileRef file = Fiber::Current()->table->Get(sqe.fd);
  if (file == nullptr) world.Wrong("descriptor %d is polled and not open", sqe.fd);
  if (const int error = world.Fault({ENOMEM, ECANCELED}); error != 0) return Complete(sqe.user_data, -error);
  if (world.Fault({EIO}) != 0) return Complete(sqe.user_data, POLLERR);
  last_poll_ = ++last_serial_;
  requests_.push_back({.tag = sqe.user_data,
                       .opcode = sqe.opcode,
                       .file = file,
                       .events = sqe.poll32_events | POLLERR | POLLHUP,
                       .deadline = 0,
                       .serial = last_poll_,
                       .linked_to = 0});
}

void RingFile::StartTimeout(const io_uring_sqe& sqe, const io_uring_sqe* before) {
  const bool linked = sqe.opcode == IORING_OP_LINK_TIMEOUT;
  // Torn apart from what it limits: the kernel refuses it.
  if (linked && (before == nullptr || (before->flags & IOSQE_IO_LINK) == 0))
    return Complete(sqe.user_data, -EINVAL);
  if (linked && last_poll_ == 0) return Complete(sqe.user_data, -ECANCELED);  // that is over already
  const auto* time = reinterpret_cast<const __kernel_timespec*>(sqe.addr);
  const uint64_t deadline = Kernel::Get().now + static_cast<uint64_t>(time->tv_sec) * 1'000'000'000 +
                            static_cast<uint64_t>(time->tv_nsec);
  World::Get().WaitsUntil(deadline);
  requests_.push_back({.tag = sqe.user_data,
                       .opcode = sqe.opcode,
                       .file = nullptr,
                       .events = 0,
                       .deadline = deadline,
                       .serial = ++last_serial_,
                       .linked_to = linked ? last_poll_ : 0});
}

void RingFile::Cancel(const io_uring_sqe& sqe) {
  for (size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i].tag != sqe.addr) continue;
    Finish(i, -ECANCELED);
    return Complete(sqe.user_data, 0);
  }
  Complete(sqe.user_data, World::Get().chance.OneOf({-ENOENT, -EALREADY}));
}

void RingFile::Complete(uint64_t tag, int result) {
  hidden_.push_back({.user_data = tag, .res = result, .flags = 0});
}

void RingFile::Finish(size_t index, int result) {
  const Request request = requests_[index];
  requests_.erase(requests_.begin() + static_cast<ptrdiff_t>(index));
  World::Get().WaitsNoLonger(request.deadline);
  Complete(request.tag, result);
  const auto other = std::find_if(requests_.begin(), requests_.end(), [&](const Request& candidate) {
    return request.linked_to != 0 ? candidate.serial == request.linked_to
                                  : candidate.linked_to == request.serial;
  });
  if (other == requests_.end()) return;
  World::Get().WaitsNoLonger(other->deadline);
  Complete(other->tag, -ECANCELED);
  requests_.erase(other);
}

bool RingFile::IsDue(const Request& request) const {
  if (request.file != nullptr) return (request.file->Ready() & request.events) != 0;
  return request.deadline <= Kernel::Get().now;
}

size_t RingFile::Weight() {
  if (owner.expired()) return 0;  // killed
  const bool room = cq_tail - cq_head < cqes.size();
  const bool due = std::any_of(requests_.begin(), requests_.end(),
                               [this](const Request& request) { return IsDue(request); });
  return (due ? 4u : 0u) + (room && !hidden_.empty() ? 4u : 0u);
}

void RingFile::Act() {
  Chance& chance = World::Get().chance;
  std::vector<size_t> due;
  for (size_t i = 0; i < requests_.size(); ++i) {
    if (IsDue(requests_[i])) due.push_back(i);
  }
  const bool can_show = cq_tail - cq_head < cqes.size() && !hidden_.empty();
  if (!due.empty() && (!can_show || chance.OneIn(2))) {
    const size_t index = due[chance.Below(due.size())];
    const Request& request = requests_[index];
    Finish(index,
           request.file != nullptr ? request.file->Ready() & static_cast<int>(request.events) : -ETIME);
    return;
  }
  if (!can_show) return;
  const auto shown = hidden_.begin() + static_cast<ptrdiff_t>(chance.Below(hidden_.size()));
  cqes[cq_tail++ & (cqes.size() - 1)] = *shown;
  hidden_.erase(shown);
}

}  // namespace
}  // namespace shunt::sim

using shunt::sim::Fiber;
using shunt::sim::RingFile;
using shunt::sim::RingOf;
using shunt::sim::World;

extern "C" {

int __wrap_io_uring_queue_init_params(unsigned entries, io_uring* ring, io_uring_params* params) {
  World& world = World::Get();
  world.Enter("io_uring_queue_init_params", entries);
  if (const int error = world.Fault({ENOMEM, EMFILE}); error != 0) return -error;
  // An older kernel; the plainest ring is always to be had.
  const bool fancy = (params->flags & (IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN)) != 0;
  if (fancy && world.chance.OneIn(4)) return -EINVAL;
  const auto file = std::make_shared<RingFile>(2u << world.chance.Below(6), 4u << world.chance.Below(6));
  std::memset(ring, 0, sizeof(*ring));
  ring->ring_fd = ring->enter_ring_fd = Fiber::Current()->table->Add(file, true);
  ring->flags = params->flags;
  ring->sq.khead = &file->sq_head;
  ring->sq.ktail = &file->sq_tail;
  ring->sq.kflags = &file->flags;
  ring->sq.sqes = file->sqes.data();
  ring->sq.ring_entries = static_cast<unsigned>(file->sqes.size());
  ring->sq.ring_mask = ring->sq.ring_entries - 1;
  ring->cq.khead = &file->cq_head;
  ring->cq.ktail = &file->cq_tail;
  ring->cq.kflags = &file->flags;
  ring->cq.cqes = file->cqes.data();
  ring->cq.ring_entries = static_cast<unsigned>(file->cqes.size());
  ring->cq.ring_mask = ring->cq.ring_entries - 1;
  return 0;
}

void __wrap_io_uring_queue_exit(io_uring* ring) {
  World::Get().Enter("io_uring_queue_exit", ring->ring_fd);
  auto& table = *Fiber::Current()->table;
  table.open.erase(ring->ring_fd);
  ++table.closed;
}

int __wrap_io_uring_submit(io_uring* ring) {
  World::Get().Enter("io_uring_submit");
  return RingOf(*ring)->Submit(*ring);
}

int __wrap_io_uring_submit_and_get_events(io_uring* ring) {
  return __wrap_io_uring_submit(ring);
}

int __wrap_io_uring_submit_and_wait(io_uring* ring, unsigned /*count*/) {
  World& world = World::Get();
  world.Enter("io_uring_submit_and_wait");
  const auto file = RingOf(*ring);
  const int submitted = file->Submit(*ring);
  // The kernel does not wait if it has not taken everything.
  if (submitted < 0 || file->sq_head != ring->sq.sqe_tail || file->HasCompletions()) return submitted;
  if (const int error = world.Fault({EINTR}); error != 0) return -error;
  Fiber::Pause([&file] { return file->HasCompletions(); });
  return submitted;
}

}  // extern "C"
