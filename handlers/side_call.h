// SPDX-License-Identifier: Apache-2.0
// OnSide: a task waits for its reactor's side thread.
//
//   FindJob job(...);
//   if (!co_await OnSide(bench, job)) ...;  // false: too many jobs under way, nothing was done

#pragma once

#include <coroutine>

#include "handlers/container.h"
#include "net/side_thread.h"

namespace shunt {

// What SocketBench::OnWake resumes. Lives in the task's frame.
class OnSide final : public net::SideJob {
 public:
  OnSide(SocketBench& bench, net::SideJob& job) : bench_(bench), job_(job) {}

  void Run(net::SideTable& table) override { job_.Run(table); }
  void Resume() { waiter_.resume(); }

  bool await_ready() const noexcept { return false; }
  // False resumes at once.
  bool await_suspend(std::coroutine_handle<> waiter) {
    waiter_ = waiter;
    submitted_ = bench_.side->Submit(this);
    return submitted_;
  }
  bool await_resume() const noexcept { return submitted_; }

 private:
  SocketBench& bench_;
  net::SideJob& job_;
  std::coroutine_handle<> waiter_;
  bool submitted_ = false;
};

}  // namespace shunt
