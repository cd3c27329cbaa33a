// SPDX-License-Identifier: Apache-2.0
// OnSide: a task waits for its reactor's side thread.
//
//   FindJob job(...);
//   if (!co_await OnSide(call, job)) ...;  // false: too many jobs under way, nothing was done
//
// A container has one job at a time with a side thread; what else it wants waits in its lane. So a job waits
// for one of each other container at most, however many calls those make at once.

#pragma once

#include <coroutine>

#include "handlers/container.h"
#include "net/side_thread.h"

namespace shunt {

// What SocketBench::OnWake resumes. Lives in the task's frame.
class OnSide final : public net::SideJob {
 public:
  OnSide(const Call& call, net::SideJob& job)
      : side_(*BenchOf(call).side), lane_(ContainerOf(call).lanes[call.place]), job_(job) {}

  void Run(net::SideTable& table) override { job_.Run(table); }
  // The job is finished: it is the next one's turn in the lane, and the task's to go on.
  void Finish();

  bool await_ready() const noexcept { return false; }
  // False resumes at once.
  bool await_suspend(std::coroutine_handle<> waiter);
  bool await_resume() const noexcept { return accepted_; }

 private:
  net::SideThread& side_;
  SideLane& lane_;
  net::SideJob& job_;
  std::coroutine_handle<> waiter_;
  OnSide* behind_ = nullptr;  // the next one that waits in the lane
  bool accepted_ = false;
};

}  // namespace shunt
