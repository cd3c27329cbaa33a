// SPDX-License-Identifier: Apache-2.0
// Reactor: one thread, one ring, and the listeners that it owns. Receives their notifications, has them
// handled, answers.
//
// How it works. Each listener has one one-shot poll in the ring. When it fires, exactly one notification is
// received, handled and answered, and the poll is queued again; the kernel looks at it in the same system
// call that puts us to sleep. So a flood from one container gets one call per turn like everybody else's, and
// no RECV is made without its own POLLIN: RECV blocks even on an O_NONBLOCK listener.
//
// What holds:
//  1. One listener belongs to one reactor, and nobody else receives from it.
//  2. Every notification received is answered exactly once (Answer), or its target is gone.
//  3. After Start() nothing on this thread allocates, locks or logs. tests/endure/frozen_heap_test aborts on
//  any malloc.

#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <thread>

#include "absl/status/status.h"
#include "core/call.h"
#include "core/dispatch.h"
#include "core/mailbox.h"
#include "core/ring.h"
#include "core/slots.h"
#include "core/task.h"

namespace shunt {

// One listener in its reactor. Made by the control thread, lent to the reactor by Add, given back by a
// message when the listener has ended and no task holds it any more.
struct ServedListener {
  ServedListener(Listener its_listener, std::unique_ptr<Guest> its_guest, uint64_t its_owner)
      : listener(std::move(its_listener)), guest(std::move(its_guest)), owner(its_owner) {}

  Listener listener;
  std::unique_ptr<Guest> guest;
  const uint64_t owner;  // unique for the life of the engine
  Reactor* reactor = nullptr;
  uint32_t slots_held = 0;  // tasks of this listener
  bool ended = false;
  Operation* operations = nullptr;
  Message add;   // to the reactor: serve this
  Message gone;  // to the control thread: this has ended
  ServedListener* next_parked = nullptr;
};

class Reactor {
 public:
  struct Config {
    int index = 0;
    int cpu = -1;  // -1: free to move
    const Dispatch* dispatch = nullptr;
    Mailbox* control = nullptr;  // where ended listeners and control jobs go
    std::unique_ptr<Workbench> bench;
    std::function<void()> on_thread_start;  // on the reactor's thread, when it is about to stop allocating
    std::function<void()> on_thread_stop;   // the same, when it has served its last call
  };

  explicit Reactor(Config config);
  ~Reactor();

  // Returns when the thread runs, or why it does not.
  absl::Status Start();

  // Control thread. The listener is the reactor's until `served.gone` arrives at the control mailbox.
  void Add(ServedListener& served);
  // Control thread: `message` is delivered on the reactor's thread between two calls.
  void Post(Message& message) { mailbox_.Push(&message); }
  // Ends the thread. What it still served is simply left: its owner closes the listeners.
  void Stop();

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
  friend class OnControl;

  void Run(std::atomic<int>* started);
  void Complete(const Completion& completion);
  void Serve(ServedListener& served, int32_t poll_result);
  void Answer(ServedListener& served, uint64_t id, Reply reply);
  void Arm(ServedListener& served);
  void End(ServedListener& served);
  void GiveBackIfUnused(ServedListener& served);

  Config config_;
  std::unique_ptr<Ring> ring_;
  Mailbox mailbox_;
  Slots slots_;
  TargetCache targets_;
  Counters counters_;
  bool stopping_ = false;
  bool defers_task_work_ = false;
  std::thread thread_;
};

}  // namespace shunt
