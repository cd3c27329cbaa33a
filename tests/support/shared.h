// SPDX-License-Identifier: Apache-2.0
// Shared: a value that a test and the processes that it forks afterwards both see and change.
//
//   const Shared<std::atomic<bool>> waits;
//   if (fork() == 0) { while (!*waits) sched_yield(); ... }
//   *waits = true;

#pragma once

#include <sys/mman.h>

#include <new>

#include "core/check.h"

namespace shunt {

template <typename T>
class Shared {
 public:
  Shared() : memory_(mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {
    SHUNT_CHECK(memory_ != MAP_FAILED);
    value_ = new (memory_) T();
  }
  ~Shared() { munmap(memory_, sizeof(T)); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;

  T& operator*() const { return *value_; }
  T* operator->() const { return value_; }

 private:
  void* memory_;
  T* value_;
};

}  // namespace shunt
