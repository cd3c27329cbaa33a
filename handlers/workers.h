// SPDX-License-Identifier: Apache-2.0
// Workers: the processes that act inside one container, as one of its reactors sees them, and the task that
// has a call done by one of them.
//
// A container's first worker is started as soon as it is served, if its policy will want one; others when a
// call wants one and none is idle in the caller's namespaces. A worker goes by itself when it has been idle
// for a while. Each reactor has its own few, on its own CPU, and as many calls of the container are done at
// once. A thread's next call waits until its earlier one is done with, so that one that a signal has
// interrupted is not done twice.
//
// A start takes milliseconds, and signals may come faster. So it does not depend on the call that it is for:
// the caller's namespaces and status are opened at once, as descriptors, and if the call is valid after that
// they are the caller's, whatever becomes of its call, of itself and of its number. Should the call be
// interrupted then, its task sees the start through all the same, and what the kernel restarts finds the
// worker on its way or there. One is started at a time: all calls that wait do so for the same one, which
// has done most of them before a second one could be there.
//
// The first worker is started for the process that the runtime names when it hands its listener over. That
// has entered its namespaces before it has put itself under the filter, as runtimes do, though it may not be
// the program yet; if they are others, or nobody may look there so early, the first call has one started for
// itself. No worker is used for a caller that is elsewhere: it looks for itself each time (core/worker.h).
// What an engine before this one has served gets its workers by its calls, so that a new engine does not
// begin with hundreds of them.

#pragma once

#include <array>
#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "core/call.h"
#include "core/desk.h"
#include "core/fd.h"
#include "core/task.h"
#include "core/worker.h"
#include "handlers/deeds.h"

namespace shunt {

class Container;
class LostReplies;

// Who has processes started. Control thread.
class WorkerSource {
 public:
  virtual ~WorkerSource() = default;
  // Has a worker begin at the other end of `link`. Says nothing about whether that works.
  virtual void StartWorker(Fd link) = 0;
  // What the operator should know, one line.
  virtual void Warn(std::string_view line) = 0;
};

class Workers {
 public:
  // At once, for each reactor.
  static constexpr size_t kMost = 4;
  // A worker is a program that is executed, at the cost of some milliseconds of everybody's time and of the
  // starter that all containers share; whoever makes user namespaces without an end could have them without
  // an end. So starts are counted, for each reactor: a few at once, then one in so long (nanoseconds).
  static constexpr int kStartsAtOnce = 16;
  static constexpr int64_t kBetweenStarts = 20'000'000;

  // What has become of a piece of work. Lives in its task's frame.
  struct Outcome {
    PollFd knock;
    bool seen = false;  // it is over, and the rest holds; the bench is somebody else's again
    WorkResult result{};
  };

  // One worker, or the place for one.
  struct Bench {
    enum class State : uint8_t { kEmpty, kStarting, kIdle, kBusy };
    State state = State::kEmpty;
    bool awaited = false;  // kStarting: a task sees the start through
    Desk* desk = nullptr;
    Fd link;
    uint64_t user_namespace = 0, mount_namespace = 0;
    uint64_t used = 0;  // the larger, the later
    // What lies on the desk is a call of an engine before this one, which a task here sees to.
    std::atomic<bool> claimed = false;
    Outcome* outcome = nullptr;  // kBusy: where the task waits for it
  };

  // `desks` are kMost, in the container's memory, where the engine before this one may have left something.
  explicit Workers(std::span<Desk> desks);

  Bench& bench(size_t index) { return benches_[index]; }

  // An idle one in these namespaces (in any, if they are 0), busy from now on. nullptr: there is none.
  Bench* TakeIdle(uint64_t user_namespace, uint64_t mount_namespace);
  // A place for a new one; an idle one elsewhere is sent away for it. nullptr: all are busy.
  Bench* TakePlace();
  // The one that is being started. nullptr: none is.
  Bench* Coming();
  // Gives back those whose worker has sent its answer, and tells their tasks.
  void Reap(LostReplies& lost);
  // An earlier call of this thread is being done; or it may have been interrupted, and this may be the same
  // one.
  bool IsBusyFor(pid_t tid, uint64_t registers) const;
  void GiveBack(Bench& bench, Bench::State state);
  // Lets all that wait for a change look again.
  void WakeAll();
  // One task waits until another worker may be started; the others wait for that one.
  bool somebody_pauses = false;
  // How long to wait before one more may be started; 0: none. `now` in nanoseconds.
  int64_t DelayOfStart(int64_t now) const;
  void CountStart(int64_t now);
  // Ends it, or lets it end as soon as it can.
  static void Dismiss(Bench& bench) { bench.link.reset(); }

  // Waits until one was given back.
  struct Change {
    // Has the workers knock, of whom one may be finished by now.
    bool await_ready() const noexcept { return workers.Hurry(lost); }
    void await_suspend(std::coroutine_handle<> handle) {
      waiter = handle;
      *workers.last_ = this;
      workers.last_ = &next;
    }
    void await_resume() const noexcept {}

    Workers& workers;
    LostReplies& lost;
    std::coroutine_handle<> waiter;
    Change* next = nullptr;
  };
  Change Changed(LostReplies& lost) { return {.workers = *this, .lost = lost, .waiter = {}}; }

 private:
  // True: something was given back meanwhile.
  bool Hurry(LostReplies& lost);

  std::array<Bench, kMost> benches_;
  uint64_t clock_ = 0;
  int64_t starts_paid_until_ = 0;
  Change* first_ = nullptr;  // waiting tasks, the oldest first
  Change** last_ = &first_;
};

// Control thread, before the container is served: has its first worker begin if its policy will want one, in
// the namespaces of `pid`, a process of it, or of its first one; 0: not known. Whatever goes wrong is left to
// the first call.
void StartFirstWorker(Container& container, int listener, pid_t pid);

// Fills in what the deed has to know, from the caller's registers and memory: read once, and checked to be
// the caller's by whoever calls this. A reply is the answer instead.
using Prepare = std::optional<Reply> (*)(Call& call, WorkRequest& request);

// Has `deed` done inside the container, on behalf of the call. The answer is the deed's.
Reply DoInside(Call& call, DeedName deed, Prepare prepare);

// Reads the caller's string at `address`, with its NUL, into `into`. Returns its length. EFAULT, and
// ENAMETOOLONG if there is no NUL within PATH_MAX bytes, as the kernel says it of a path.
Result<size_t> ReadPath(const Call& call, uint64_t address, std::span<char> into);

// Of a call's registers: what the kernel restarts has the same.
uint64_t FingerprintOf(const Notification& notification);

}  // namespace shunt
