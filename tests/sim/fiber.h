// SPDX-License-Identifier: Apache-2.0
// Fiber: what a thread of the engine is in a simulated run. All fibers share one real thread; one runs until
// it pauses, and then the scheduler (tests/sim/world.h) decides which is next.
//
// The engine pauses where it would sleep, and may be paused at every system call: those are all the places
// where anything outside can come between two of its steps.

#pragma once

#include <ucontext.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

namespace shunt::sim {

struct FdTable;

class Fiber {
 public:
  Fiber(std::string name, int tid, std::shared_ptr<FdTable> table, std::function<void()> body);
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // nullptr: the scheduler itself is running.
  static Fiber* Current();
  // From the running fiber: lets others run until `until` holds and the scheduler comes back.
  static void Pause(std::function<bool()> until);

  // From the scheduler: runs it until it pauses or has ended. Only if ready().
  void Resume();
  bool ready() const { return !finished_ && (!until_ || until_()); }
  bool finished() const { return finished_; }

  std::string name;
  const int tid;
  std::shared_ptr<FdTable> table;  // the descriptor table that its system calls work on

 private:
  static void Entry();

  static constexpr size_t kStackBytes = 512 * 1024;
  std::unique_ptr<char[]> stack_;
  ucontext_t context_{};
  ucontext_t scheduler_{};
  std::function<void()> body_;
  std::function<bool()> until_;
  bool finished_ = false;
  void* fake_stack_ = nullptr;  // AddressSanitizer's, of this fiber and of the scheduler
  void* scheduler_fake_stack_ = nullptr;
  const void* scheduler_bottom_ = nullptr;
  size_t scheduler_bytes_ = 0;
};

}  // namespace shunt::sim
