// SPDX-License-Identifier: Apache-2.0
// Memory that outlives an engine (memfd_create, mmap), and the clock.
//
// Nothing of this fails: without it a container is not served at all, which is decided before there is a
// call.

#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/kernel.h"
#include "tests/sim/world.h"

using namespace shunt::sim;  // NOLINT: this file is about nothing else

extern "C" {

void* __real_mmap(void* at, size_t size, int protection, int flags, int fd, off_t offset);

int __wrap_memfd_create(const char* name, unsigned /*flags*/) {
  World::Get().Enter(name);
  return Fiber::Current()->table->Add(std::make_shared<MemoryFile>(), true);
}

int __wrap_ftruncate(int fd, off_t size) {
  const auto memory = Fiber::Current()->table->GetAs<MemoryFile>(fd);
  if (memory == nullptr) World::Get().Wrong("descriptor %d is no memory", fd);
  memory->Resize(static_cast<size_t>(size));
  return 0;
}

void* __wrap_mmap(void* at, size_t size, int protection, int flags, int fd, off_t offset) {
  if (Fiber::Current() == nullptr) return __real_mmap(at, size, protection, flags, fd, offset);
  const auto memory = Fiber::Current()->table->GetAs<MemoryFile>(fd);
  if (memory == nullptr || memory->size != size) World::Get().Wrong("descriptor %d is mapped", fd);
  Kernel::Get().mappings.emplace(memory->bytes.get(), memory);
  return memory->bytes.get();
}

int __wrap_munmap(void* at, size_t /*size*/) {
  auto& mappings = Kernel::Get().mappings;
  const auto found = mappings.find(at);
  if (found == mappings.end()) World::Get().Wrong("what is not mapped is unmapped");
  mappings.erase(found);
  return 0;
}

int __wrap_clock_gettime(clockid_t /*clock*/, timespec* now) {
  const uint64_t nanoseconds = Kernel::Get().now;
  *now = {.tv_sec = static_cast<time_t>(nanoseconds / 1'000'000'000),
          .tv_nsec = static_cast<long>(nanoseconds % 1'000'000'000)};
  return 0;
}

}  // extern "C"
