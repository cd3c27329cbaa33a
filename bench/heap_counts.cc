// SPDX-License-Identifier: Apache-2.0
// A malloc that counts, for programs that are as users have them: see heap_counts.h.

#include "bench/heap_counts.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* old, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void* memory);
}

namespace {

using shunt::bench::HeapCounts;

HeapCounts* g_counts = nullptr;
// Static TLS: the general kind would call malloc to get at it.
__attribute__((tls_model("initial-exec"))) thread_local HeapCounts::Slot* t_slot = nullptr;

__attribute__((constructor)) void MapCounts() {
  // A child's thread has its parent's memory, and with it the parent's slot.
  pthread_atfork(nullptr, nullptr, [] { t_slot = nullptr; });
  const char* const path = getenv(shunt::bench::kHeapCountsVariable);
  if (path == nullptr) return;
  const int file = open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) return;
  void* const memory = mmap(nullptr, sizeof(HeapCounts), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory != MAP_FAILED) g_counts = static_cast<HeapCounts*>(memory);
}

void Count() {
  if (g_counts == nullptr) return;
  if (t_slot == nullptr) {
    const uint32_t index = g_counts->used.fetch_add(1);
    if (index >= HeapCounts::kSlots) return;
    t_slot = &g_counts->slots[index];
    t_slot->tid.store(static_cast<int32_t>(syscall(SYS_gettid)));
  }
  t_slot->calls.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

extern "C" {
void* malloc(size_t bytes) {
  Count();
  return __libc_malloc(bytes);
}
void* calloc(size_t count, size_t bytes) {
  Count();
  return __libc_calloc(count, bytes);
}
void* realloc(void* old, size_t bytes) {
  Count();
  return __libc_realloc(old, bytes);
}
void* memalign(size_t alignment, size_t bytes) {
  Count();
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(size_t alignment, size_t bytes) {
  Count();
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void** memory, size_t alignment, size_t bytes) {
  Count();
  *memory = __libc_memalign(alignment, bytes);
  return *memory != nullptr ? 0 : ENOMEM;
}
void free(void* memory) {
  Count();
  __libc_free(memory);
}
}
