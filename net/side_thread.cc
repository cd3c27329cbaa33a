// SPDX-License-Identifier: Apache-2.0
// SideThread: a thread with a descriptor table of its own that runs a reactor's slow jobs, one after the
// other.

#include "net/side_thread.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <system_error>
#include <utility>

#include "core/confinement.h"

namespace shunt::net {
namespace {

int CloseRange(unsigned first, unsigned last) {
  return first > last ? 0 : static_cast<int>(syscall(SYS_close_range, first, last, 0));
}

// Gives this thread a table that holds nothing but the two. Positive errno on failure.
int LeaveSharedTable(int one, int other) {
  if (unshare(CLONE_FILES) != 0) return errno;
  const auto low = static_cast<unsigned>(std::min(one, other));
  const auto high = static_cast<unsigned>(std::max(one, other));
  if ((low > 0 && CloseRange(0, low - 1) != 0) || CloseRange(low + 1, high - 1) != 0 ||
      CloseRange(high + 1, ~0U) != 0) {
    return errno;
  }
  return 0;
}

}  // namespace

Result<Fd> SideTable::FromEngine(int engine_fd) const {
  Fd copy(static_cast<int>(syscall(SYS_pidfd_getfd, engine_.get(), engine_fd, 0)));
  if (!copy.valid()) return FailErrno();
  return copy;
}

Result<Fd> SideTable::FromEngineAt(int engine_fd, int number) {
  if (Result<void> vacated = Vacate(number); !vacated) return tl::unexpected(vacated.error());
  Result<Fd> copy = FromEngine(engine_fd);
  if (!copy || copy->get() == number) return copy;
  if (dup3(copy->get(), number, O_CLOEXEC) < 0) return FailErrno();
  return Fd(number);
}

Result<void> SideTable::Vacate(int number) {
  for (Fd* own : {&engine_, &completion_}) {
    if (own->get() != number) continue;
    const int moved = fcntl(number, F_DUPFD_CLOEXEC, 0);
    if (moved < 0) return FailErrno();
    own->reset(moved);
  }
  return {};
}

void CloseElsewhere(Fd fd) {
  const int number = fd.release();
  try {
    std::thread([number] { ::close(number); }).detach();
  } catch (const std::system_error&) {  // no more threads: it stays open
  }
}

absl::StatusOr<std::unique_ptr<SideThread>> SideThread::Start() {
  Fd completion(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!completion.valid()) return ToStatus(Errno{errno}, "create the eventfd of a side thread");
  const Fd engine(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  if (!engine.valid()) return ToStatus(Errno{errno}, "open a pidfd of ourselves for a side thread");
  std::unique_ptr<SideThread> side(new SideThread(std::move(completion)));

  // Signals are the engine's business: the new thread inherits a mask that blocks them all.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int error = 0;
  try {
    side->thread_ = std::thread(&SideThread::Main, side.get(), engine.get(), side->completion_.get());
  } catch (const std::system_error& thrown) {  // the only way in which std::thread can fail; it ends here
    error = thrown.code().value();
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error != 0) return ToStatus(Errno{error}, "start a side thread (is pids.max or RLIMIT_NPROC reached?)");

  side->start_error_.wait(-1);
  error = side->start_error_.load();
  if (error == 0) return side;
  side->thread_.join();
  return ToStatus(Errno{error}, "give a side thread a descriptor table of its own (unshare, close_range)");
}

SideThread::~SideThread() {
  if (!thread_.joinable()) return;
  Push(nullptr);
  thread_.join();
}

bool SideThread::Submit(SideJob* job) {
  if (submitted_.load(std::memory_order_relaxed) - taken_ == kCapacity) return false;
  Push(job);
  return true;
}

void SideThread::Push(SideJob* job) {
  const uint32_t place = submitted_.load(std::memory_order_relaxed);
  jobs_[place % kPlaces] = job;
  submitted_.store(place + 1, std::memory_order_release);
  submitted_.notify_one();
}

SideJob* SideThread::TakeFinished() {
  if (taken_ == finished_.load(std::memory_order_acquire)) return nullptr;
  return jobs_[taken_++ % kPlaces];
}

void SideThread::Main(int engine_pidfd, int completion_fd) {
  KeepCapabilities(EngineThread::kSide).IgnoreError();  // ConfineEngine() finds out and says so
  const int error = LeaveSharedTable(engine_pidfd, completion_fd);
  start_error_.store(error);
  start_error_.notify_one();
  if (error != 0) return;  // the table is still the engine's: nothing in it is ours to close

  // The same numbers, but our own copies now.
  SideTable table{Fd(engine_pidfd), Fd(completion_fd)};
  for (uint32_t next = 0;; ++next) {
    submitted_.wait(next, std::memory_order_acquire);
    SideJob* const job = jobs_[next % kPlaces];
    if (job == nullptr) return;
    job->Run(table);
    finished_.store(next + 1, std::memory_order_release);
    const uint64_t one = 1;
    // Full (EAGAIN) after 2^64 unread completions only; readable is all that it has to be.
    [[maybe_unused]] const ssize_t written = write(table.completion_fd(), &one, sizeof(one));
  }
}

}  // namespace shunt::net
