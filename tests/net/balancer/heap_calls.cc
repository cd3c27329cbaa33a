// SPDX-License-Identifier: Apache-2.0
// HeapCalls: operator new and delete that count. A file of its own, compiled alone: where the compiler sees
// into one of the two, it takes it for a mismatch with the other. The sanitizers' malloc stays below.

#include "tests/net/balancer/heap_calls.h"

#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

thread_local uint64_t t_calls = 0;

void* Allocated(void* memory) {
  ++t_calls;
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void Release(void* memory) {
  ++t_calls;
  std::free(memory);
}

}  // namespace

// The other forms of the library call these.
void* operator new(size_t bytes) {
  return Allocated(std::malloc(bytes));
}
void* operator new(size_t bytes, std::align_val_t alignment) {
  const size_t unit = static_cast<size_t>(alignment);
  return Allocated(std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit));
}
// The library's would do, but the sanitizers have one of their own, whose memory must not come to free().
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  ++t_calls;
  return std::malloc(bytes);
}
void operator delete(void* memory) noexcept {
  Release(memory);
}
void operator delete(void* memory, size_t) noexcept {
  Release(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  Release(memory);
}
void operator delete(void* memory, size_t, std::align_val_t) noexcept {
  Release(memory);
}

namespace shunt {

uint64_t HeapCalls() {
  return t_calls;
}

}  // namespace shunt
