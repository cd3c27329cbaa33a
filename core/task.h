// SPDX-License-Identifier: Apache-2.0
// Task: a handler that has to wait. A coroutine whose frame lives in one of its reactor's slots.
//
//   Task Waiting(Call call) {                              // the call by value, as the first parameter
//     const int result = co_await PollFd(call, fd, POLLOUT, &timeout);
//     co_return Reply::Return(0);
//   }
//   Reply Handler(Call& call) { return Start(Waiting(call), /*if_no_slot=*/Reply::Continue()); }
//
// It runs at once until its first co_await. What it returns is sent through the same exit as every other
// reply.

#pragma once

#include <linux/time_types.h>

#include <coroutine>
#include <cstdint>

#include "core/call.h"
#include "core/mailbox.h"

namespace shunt {

namespace task_internal {
void* TakeSlot(Call& call, size_t bytes);
void GiveSlot(void* slot);
void Finish(Call& call, Reply reply);
}  // namespace task_internal

class Task {
 public:
  struct promise_type {
    template <typename... Args>
    explicit promise_type(Call& its_call, Args&&... /*others*/) : call(its_call) {}

    template <typename... Args>
    static void* operator new(size_t bytes, Call& call, Args&&... /*others*/) noexcept {
      return task_internal::TakeSlot(call, bytes);
    }
    static void operator delete(void* frame, size_t /*bytes*/) { task_internal::GiveSlot(frame); }

    static Task get_return_object_on_allocation_failure() { return Task(false); }
    Task get_return_object() { return Task(true); }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_value(Reply reply) { task_internal::Finish(call, reply); }
    void unhandled_exception() { SHUNT_CHECK(false); }

    Call& call;  // the coroutine's own copy
  };

  bool started() const { return started_; }

 private:
  explicit Task(bool started) : started_(started) {}
  bool started_;
};

// The reply of a handler that leaves the rest to a task.
inline Reply Start(Task task, Reply if_no_slot) {
  return task.started() ? Reply::Later() : if_no_slot;
}

// Something in flight that resumes a task. Lives in the task's frame.
struct Operation {
  std::coroutine_handle<> waiter;
  int32_t result = 0;
  Operation* next = nullptr;  // the operations of one listener, so that they can be cancelled when it ends
  Operation** link = nullptr;
};

// Waits until `fd` has one of `events` (poll(2)'s) or the time is over; -ECANCELED then, and when the
// container has ended.
class PollFd {
 public:
  PollFd(Call& call, int fd, unsigned events, int64_t timeout_ns)
      : call_(call), fd_(fd), events_(events), timeout_ns_(timeout_ns) {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter);
  int32_t await_resume() const noexcept { return operation_.result; }
  // While it waits: ends that soon, with -ECANCELED.
  void Stop();

 private:
  Call& call_;
  int fd_;
  unsigned events_;
  int64_t timeout_ns_;
  __kernel_timespec timeout_{};
  Operation operation_;
};

// Waits; less if the container ends.
class Pause {
 public:
  Pause(Call& call, int64_t nanoseconds) : call_(call), nanoseconds_(nanoseconds) {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter);
  void await_resume() const noexcept {}
  // While it waits: ends that soon.
  void Stop();

 private:
  Call& call_;
  int64_t nanoseconds_;
  __kernel_timespec timeout_{};
  Operation operation_;
};

// Has the control thread do something (forks, long scans, whatever may allocate or block) and resumes when it
// is done. Derive, and write the answer into the derived object, which lives in the task's frame: co_await
// OnControl(call, job).
struct ControlJob {
  virtual ~ControlJob() = default;
  virtual void Run() = 0;  // on the control thread

  Message there, back;
  Reactor* reactor = nullptr;
  std::coroutine_handle<> waiter;
};

class OnControl {
 public:
  OnControl(Call& call, ControlJob& job) : call_(call), job_(job) {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter);
  void await_resume() const noexcept {}

 private:
  Call& call_;
  ControlJob& job_;
};

}  // namespace shunt
