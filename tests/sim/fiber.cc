// SPDX-License-Identifier: Apache-2.0
// Fibers on ucontext, with the announcements that AddressSanitizer wants.

#include "tests/sim/fiber.h"

#include <utility>

// GCC has a macro for it, clang 14 a feature.
#if defined(__has_feature)
#define SHUNT_SIM_ASAN __has_feature(address_sanitizer)
#elif defined(__SANITIZE_ADDRESS__)
#define SHUNT_SIM_ASAN 1
#else
#define SHUNT_SIM_ASAN 0
#endif

#if SHUNT_SIM_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

namespace shunt::sim {
namespace {

Fiber* running = nullptr;

void StartSwitch([[maybe_unused]] void** save, [[maybe_unused]] const void* bottom,
                 [[maybe_unused]] size_t bytes) {
#if SHUNT_SIM_ASAN
  __sanitizer_start_switch_fiber(save, bottom, bytes);
#endif
}

void FinishSwitch([[maybe_unused]] void* saved, [[maybe_unused]] const void** bottom,
                  [[maybe_unused]] size_t* bytes) {
#if SHUNT_SIM_ASAN
  __sanitizer_finish_switch_fiber(saved, bottom, bytes);
#endif
}

}  // namespace

Fiber::Fiber(std::string its_name, int its_tid, std::shared_ptr<FdTable> its_table,
             std::function<void()> body)
    : name(std::move(its_name)),
      tid(its_tid),
      table(std::move(its_table)),
      stack_(std::make_unique_for_overwrite<char[]>(kStackBytes)),
      body_(std::move(body)) {
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_.get();
  context_.uc_stack.ss_size = kStackBytes;
  context_.uc_link = nullptr;
  makecontext(&context_, &Fiber::Entry, 0);
}

Fiber* Fiber::Current() {
  return running;
}

void Fiber::Entry() {
  Fiber& self = *running;
  FinishSwitch(nullptr, &self.scheduler_bottom_, &self.scheduler_bytes_);
  self.body_();
  self.body_ = nullptr;
  self.finished_ = true;
  // It never comes back, so its fake stack is given up.
  StartSwitch(nullptr, self.scheduler_bottom_, self.scheduler_bytes_);
  setcontext(&self.scheduler_);
}

void Fiber::Pause(std::function<bool()> until) {
  Fiber& self = *running;
  self.until_ = std::move(until);
  StartSwitch(&self.fake_stack_, self.scheduler_bottom_, self.scheduler_bytes_);
  swapcontext(&self.context_, &self.scheduler_);
  FinishSwitch(self.fake_stack_, &self.scheduler_bottom_, &self.scheduler_bytes_);
  self.until_ = nullptr;
}

void Fiber::Resume() {
  running = this;
  StartSwitch(&scheduler_fake_stack_, stack_.get(), kStackBytes);
  swapcontext(&scheduler_, &context_);
  FinishSwitch(scheduler_fake_stack_, nullptr, nullptr);
  running = nullptr;
}

}  // namespace shunt::sim
