// SPDX-License-Identifier: Apache-2.0
#include "core/patience.h"

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <utility>

#include "core/clock.h"
#include "core/limits.h"

namespace shunt {
namespace {

constexpr uint32_t kIdleTicks = 4;

thread_local Patience* of_this_thread = nullptr;

// How often the calling thread has gone to sleep by itself. That somebody else got its CPU does not count.
int64_t Sleeps() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nvcsw;
}

}  // namespace

void Patience::Start() {
  struct sigaction action {};
  action.sa_handler = OnTick;  // without SA_RESTART: the wait is to end
  sigaction(SIGRTMIN, &action, nullptr);
  sigset_t tick;
  sigemptyset(&tick);
  sigaddset(&tick, SIGRTMIN);
  pthread_sigmask(SIG_UNBLOCK, &tick, nullptr);
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = SIGRTMIN;
  event._sigev_un._tid = gettid();
  has_timer_ = timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0;
  of_this_thread = this;
}

Patience::~Patience() {
  if (has_timer_) timer_delete(timer_);
}

void Patience::Limit(bool limited) {
  limited_ = limited;
  if (limited || !has_timer_) return;
  SetTimer(0);
  running_.store(false, std::memory_order_relaxed);
}

bool Patience::Limited() {
  return of_this_thread != nullptr && of_this_thread->limited_ && of_this_thread->has_timer_;
}

bool Patience::MaySignal() {
  return Limited() || (of_this_thread != nullptr && of_this_thread->running_.load(std::memory_order_relaxed));
}

Patience::Stalls Patience::TakeStalls() {
  return std::exchange(stalls_, {});
}

void Patience::SetTimer(int64_t interval_ns) {
  const timespec interval{.tv_sec = 0, .tv_nsec = interval_ns};
  const itimerspec when{.it_interval = interval, .it_value = interval};
  timer_settime(timer_, 0, &when, nullptr);
}

// On the thread itself, wherever it is.
void Patience::OnTick(int /*signal*/) {
  Patience* const patience = of_this_thread;
  if (patience == nullptr) return;
  const int saved = errno;
  const uint32_t ticks = patience->ticks_.load(std::memory_order_relaxed) + 1;
  patience->ticks_.store(ticks, std::memory_order_relaxed);
  if (!patience->waiting_.load(std::memory_order_relaxed) && ticks >= kIdleTicks) {
    patience->running_.store(false, std::memory_order_relaxed);
    patience->SetTimer(0);
  }
  errno = saved;
}

Patience::Wait::Wait(Bound bound)
    : patience_(Limited() ||
                        (bound == Bound::kAlways && of_this_thread != nullptr && of_this_thread->has_timer_)
                    ? of_this_thread
                    : nullptr) {
  if (patience_ == nullptr) return;
  patience_->waiting_.store(true, std::memory_order_relaxed);
  patience_->ticks_.store(0, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);  // from here on the handler lets the timer run
  if (patience_->running_.load(std::memory_order_relaxed)) return;
  patience_->running_.store(true, std::memory_order_relaxed);
  patience_->SetTimer(kTick);
}

Patience::Wait::~Wait() {
  if (patience_ != nullptr) patience_->waiting_.store(false, std::memory_order_relaxed);
}

bool Patience::Wait::Over() const {
  if (patience_ == nullptr || patience_->ticks_.load(std::memory_order_relaxed) < kTicks) return false;
  ++patience_->stalls_.count;
  patience_->stalls_.nanoseconds += kTicks * kTick;
  return true;
}

void Patience::Wait::GiveUp() const {
  if (patience_ == nullptr) return;
  ++patience_->stalls_.count;
  patience_->stalls_.nanoseconds += kTick;
}

Patience::Access::Access() : patience_(Limited() ? of_this_thread : nullptr) {
  if (patience_ == nullptr) return;
  begin_ = MonotonicNow();
  if (begin_ < patience_->suspicious_until_) sleeps_ = Sleeps();
}

Patience::Access::~Access() {
  if (patience_ == nullptr) return;
  const int64_t end = MonotonicNow();
  if (end - begin_ < kTick) return;
  const int saved = errno;
  const int64_t took = std::min(end - begin_, limits::kLongestStall);
  // What is not looked at is free, so twice as long as the rest that such a wait would cost.
  patience_->suspicious_until_ = std::max(patience_->suspicious_until_, end + 2 * limits::kStallShare * took);
  if (sleeps_ >= 0 && Sleeps() != sleeps_) {
    ++patience_->stalls_.count;
    patience_->stalls_.nanoseconds += took;
  }
  errno = saved;
}

}  // namespace shunt
