// SPDX-License-Identifier: Apache-2.0
// Reactor: one thread, one ring, and the listeners that it owns. Receives their notifications, has them
// handled, answers.
//
// How it works. Each listener has one one-shot poll in the ring. When it fires, exactly one notification is
// received, handled and answered, and the poll is queued again; the kernel looks at it in the same system
// call that puts us to sleep. So a flood from one container gets one call per turn like everybody else's, and
// no RECV is made without its own POLLIN: RECV blocks even on an O_NONBLOCK listener.
//
// A listener belongs to one reactor. When that finds a second thread of the container waiting behind the one
// that it serves, it asks the next reactor to help, until that finds nothing to do: most of a swap is waiting
// for the target to be scheduled, and two such waits can overlap. While there is help, who wants to receive
// takes a flag and looks with poll(2) first.
//
// What one container can cost another. In each turn containers that were not served in the turn before come
// first, so a call of theirs waits for one call of each other container at most, and for one of a flooding
// one only if that had begun already. A wait for a target that gets no CPU ends after two milliseconds
// (core/patience.h); the call is put off, and what such waits cost is paid back: the reactor rests from that
// container for kStallShare times as long. One for a target's memory, which the target's program holds up by
// changes of its mappings, cannot be ended, but is paid back as well. With only one listener there is nobody
// to protect, and no limit.
//
// What holds:
//  1. Nobody receives from a listener without having seen POLLIN since the last RECV: its reactor by its own
//     poll, or whoever holds `receiving`.
//  2. Every notification received is answered exactly once (Answer), or its target is gone; and it is in the
//     journal from before we have seen it until it is answered.
//  3. After Start() nothing on this thread allocates or logs, and no ordinary connect takes a lock.
//     tests/endure/frozen_heap_test aborts on any malloc.

#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "core/call.h"
#include "core/dispatch.h"
#include "core/mailbox.h"
#include "core/patience.h"
#include "core/ring.h"
#include "core/slots.h"
#include "core/task.h"

namespace shunt {

struct ServedListener;

// What one reactor keeps for one listener. Its thread only.
struct Seat {
  ServedListener* served = nullptr;
  Reactor* reactor = nullptr;
  uint32_t slots_held = 0;          // tasks of this listener on this reactor
  std::atomic<uint64_t> calls = 0;  // received here; anybody may read it
  bool ended = false;               // nothing is received here any more; what waits is finished or cancelled
  Operation* operations = nullptr;
  uint64_t served_in = 0;    // the last turn in which a call was received
  int64_t settled_at = 0;    // when its waits for slow targets will be paid back; CLOCK_MONOTONIC, ns
  __kernel_timespec rest{};  // until it is armed again
};

// One listener. Made by the control thread, lent to its reactor by Add, given back by a message when the
// listener has ended and no task holds it any more.
struct ServedListener {
  ServedListener(Listener its_listener, std::unique_ptr<Guest> its_guest, uint64_t its_owner)
      : listener(std::move(its_listener)), guest(std::move(its_guest)), owner(its_owner) {
    main.served = this;
    helper.served = this;
  }

  Listener listener;
  std::unique_ptr<Guest> guest;
  const Dispatch* dispatch = nullptr;
  Middleware* middleware = nullptr;
  const uint64_t owner;  // its name, never given twice, not even by engines before or after this one
  std::vector<JournalRecord*> left_behind;  // what an engine before this one has received and not answered
  Seat main;                                // its reactor's
  Seat helper;      // of the reactor that helps; `reactor` is null if there is only one
  Message add;      // to its reactor: serve this
  Message resumed;  // to the control thread: left_behind has been dealt with
  Message gone;     // to the control thread: this has ended

  // The main reactor's: is there help, and who called last?
  bool shared = false;
  pid_t last_tid = 0;
  Message ask;   // to the helper: help
  Message left;  // back: the helper has nothing of this listener any more
  // The helper's: how often in a row it found nothing.
  uint32_t found_nothing = 0;

  std::atomic_flag receiving;  // while shared: somebody is between poll(2) and RECV
};

class Reactor {
 public:
  struct Config {
    int index = 0;
    int cpu = -1;  // -1: free to move
    const Dispatch* dispatch = nullptr;
    Mailbox* control = nullptr;  // where ended listeners and control jobs go
    Journal* journal = nullptr;  // the part of the same index is this reactor's
    std::unique_ptr<Workbench> bench;
    std::function<void()> on_thread_start;  // on the reactor's thread, when it is about to stop allocating
    std::function<void()> on_thread_stop;   // the same, when it has served its last call
  };

  explicit Reactor(Config config);
  ~Reactor();

  // Returns when the thread runs, or why it does not.
  absl::Status Start();

  // Control thread. The listener is this reactor's (and now and then `helper`'s, if there is one) until
  // `served.gone` arrives at the control mailbox.
  void Add(ServedListener& served, Reactor* helper);
  // Control thread: `message` is delivered on the reactor's thread between two calls.
  void Post(Message& message) { mailbox_.Push(&message); }
  // The thread is to end. What it still serves is simply left: its owner closes the listeners.
  void AskToStop();
  // The same, and returns when it has ended.
  void Stop();

  // Reactor's thread: a task's target got no CPU in time (core/patience.h). Charges its container with the
  // waits that were given up, and says how long nothing more shall be tried for it, in nanoseconds; 0: it may
  // be tried now. The first wait is kBreath:
  //   for (int64_t rest = Reactor::kBreath; rest > 0 && !call.seat.ended; rest =
  //   call.reactor.RestOf(call.seat))
  //     co_await Pause(call, rest);
  int64_t RestOf(Seat& seat);
  static constexpr int64_t kBreath = 1'000'000;

  // Reactor's thread: for a duplicate of a file of which nobody knows how long it takes to close.
  void CloseInBackground(Fd fd);

  const Counters& counters() const { return counters_; }
  bool defers_task_work() const { return defers_task_work_; }
  int cpu() const { return config_.cpu; }

 private:
  friend void* task_internal::TakeSlot(Call& call, size_t bytes);
  friend void task_internal::GiveSlot(void* slot);
  friend void task_internal::Finish(Call& call, Reply reply);
  friend class PollFd;
  friend class Pause;
  friend class OnControl;

  void Run(std::atomic<int>* started);
  void Complete(const Completion& completion);
  void Serve(Seat& seat, int32_t poll_result);
  bool ReceiveShared(Seat& seat, JournalRecord& record, Result<Notification>& notification);
  void Handle(Seat& seat, const Notification& notification, JournalRecord& record);
  void Resume(ServedListener& served);
  void ResumeOne(ServedListener& served, JournalRecord& left);
  void Answer(const ServedListener& served, JournalRecord& record, Reply reply);
  void Tell(const ServedListener& served, const JournalRecord& record, Reply reply) const;
  void Arm(Seat& seat);
  bool ComesLast(const Completion& completion) const;
  Reply PutOff(Call& call, Reply again);
  static Task TryAgain(Call call);
  void Settle(Seat& seat);
  static int64_t RestFrom(const Seat& seat);
  void Count(int more);
  void End(Seat& seat);
  void GiveBackIfUnused(Seat& seat);
  void AskForHelp(ServedListener& served);
  void Help(ServedListener& served);

  Config config_;
  std::unique_ptr<Ring> ring_;
  Mailbox mailbox_;
  Slots slots_;
  TargetCache targets_;
  FreeRecords records_;
  Counters& counters_;
  Patience patience_;
  size_t listeners_ = 0;  // served or helped with
  uint64_t turn_ = 1;
  bool stopping_ = false;
  Message stop_;  // to ourselves; `context` is null until it is sent
  bool defers_task_work_ = false;
  std::thread thread_;
};

}  // namespace shunt
