// SPDX-License-Identifier: Apache-2.0
// SideThread does what a reactor must not: work that takes milliseconds, or that needs descriptor numbers of
// its own.
//
// The thread has its own descriptor table (unshare(CLONE_FILES)), empty but for what it needs itself. So it
// can put a socket at the very number that it has in a container's process, which is what an epoll
// registration is keyed by, and nothing that the engine opens is kept alive by it.
//
// One reactor owns one SideThread and is the only one to call Submit() and TakeFinished(). Neither waits,
// locks or allocates. Finished jobs are announced on completion_fd().

#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>

#include "absl/status/statusor.h"
#include "core/fd.h"
#include "core/limits.h"
#include "core/result.h"

namespace shunt::net {

// What a job may do with the side thread's descriptor table. Only for use inside SideJob::Run.
class SideTable {
 public:
  SideTable(Fd engine_pidfd, Fd completion)
      : engine_(std::move(engine_pidfd)), completion_(std::move(completion)) {}

  // A copy of a descriptor of the engine (of the thread group's leader). EBADF: the engine has closed it.
  Result<Fd> FromEngine(int engine_fd) const;
  // A copy of a descriptor of the engine, at exactly this number. EBADF: also if the number is beyond
  // RLIMIT_NOFILE.
  Result<Fd> FromEngineAt(int engine_fd, int number);

  int completion_fd() const { return completion_.get(); }

 private:
  // Moves what the table needs itself away from `number`.
  Result<void> Vacate(int number);

  Fd engine_;  // a pidfd of ourselves
  Fd completion_;
};

// For a duplicate of a file that is not what it was taken for: to close it can wait for whoever serves it
// (FUSE asks its server), as long as he likes. Closes it on a thread of its own in the caller's descriptor
// table. Allocates: not for reactors, which have Reactor::CloseInBackground().
void CloseElsewhere(Fd fd);

// One piece of work. It belongs to the reactor until Submit() and again after TakeFinished(), and must live
// until then.
class SideJob {
 public:
  virtual ~SideJob() = default;
  virtual void Run(SideTable& table) = 0;
};

class SideThread {
 public:
  // Jobs that may be under way at once. A job occupies its place from Submit() to TakeFinished(). Every call
  // that waits has one at most.
  static constexpr size_t kCapacity = limits::kTaskSlots;

  static absl::StatusOr<std::unique_ptr<SideThread>> Start();
  // Finishes what was submitted, then ends the thread.
  ~SideThread();
  SideThread(const SideThread&) = delete;
  SideThread& operator=(const SideThread&) = delete;

  // False: kCapacity jobs are under way.
  [[nodiscard]] bool Submit(SideJob* job);

  // Readable (an eventfd) after a job has finished. Read it first, then take until nullptr.
  int completion_fd() const { return completion_.get(); }
  SideJob* TakeFinished();

 private:
  explicit SideThread(Fd completion) : completion_(std::move(completion)) {}

  void Push(SideJob* job);
  void Main(int engine_pidfd, int completion_fd);

  // A ring of jobs. The counters only grow (and wrap), taken <= finished <= submitted; place = counter %
  // kPlaces. The destructor's nullptr, which ends the thread, needs a place even when kCapacity jobs are
  // under way.
  static constexpr size_t kPlaces = 2 * kCapacity;
  std::array<SideJob*, kPlaces> jobs_{};
  uint32_t taken_ = 0;                  // the reactor's
  std::atomic<uint32_t> submitted_{0};  // written by the reactor; the side thread sleeps on it
  std::atomic<uint32_t> finished_{0};   // written by the side thread
  std::atomic<int> start_error_{-1};    // -1: not known yet

  Fd completion_;
  std::thread thread_;
};

}  // namespace shunt::net
