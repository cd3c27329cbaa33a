// SPDX-License-Identifier: Apache-2.0
// Threads, locks, futexes, and the system calls that have no function of their own. A thread is a fiber;
// where a thread would sleep, the fiber pauses.

#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/kcmp.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <thread>

#include "tests/sim/kernel.h"
#include "tests/sim/world.h"

namespace shunt::sim {
namespace {

int Refuse(int error) {
  errno = error;
  return -1;
}

int Give(FileRef file) {
  if (const int error = World::Get().Fault({EMFILE, ENFILE, ENOMEM}); error != 0) return Refuse(error);
  return Fiber::Current()->table->Add(std::move(file), true);
}

long Futex(const int* address, int operation, int value) {
  if ((operation & FUTEX_CMD_MASK) == FUTEX_WAKE) return 0;  // who waits looks by itself
  if (*address != value) return Refuse(EAGAIN);
  Fiber::Pause([address, value] { return *static_cast<const volatile int*>(address) != value; });
  return 0;
}

long OpenPidFd(pid_t tid) {
  auto pidfd = std::make_shared<PidFd>();
  if (tid != kEnginePid) {
    pidfd->task = Kernel::Get().FindTask(tid);
    if (pidfd->task == nullptr) return Refuse(ESRCH);
  }
  return Give(std::move(pidfd));
}

long GetFd(int pidfd_number, int number) {
  World& world = World::Get();
  const auto pidfd = Fiber::Current()->table->GetAs<PidFd>(pidfd_number);
  if (pidfd == nullptr) {
    if (pidfd_number < 0) return Refuse(EBADF);
    world.Wrong("descriptor %d is no pidfd", pidfd_number);
  }
  FileRef file;
  if (pidfd->task == nullptr) {
    file = Kernel::Get().engine_table->Get(number);
    if (file == nullptr)
      return number < 0 ? Refuse(EBADF)
                        : (world.Wrong("the side thread takes a descriptor that is closed"), 0);
  } else {
    if (!pidfd->task->alive) return Refuse(ESRCH);
    if (pidfd->task->hidden) return Refuse(EPERM);
    file = pidfd->task->process->table->Get(number);
  }
  if (file == nullptr) return Refuse(EBADF);
  return Give(std::move(file));
}

// The one who asks names its file by a thread: by its process's leader, or by itself.
long CompareEpoll(pid_t self, pid_t tid, int file_number, const kcmp_epoll_slot& slot) {
  const FdTable& table = self == kEnginePid ? *Kernel::Get().engine_table : *Fiber::Current()->table;
  if (self != kEnginePid && self != Fiber::Current()->tid)
    World::Get().Wrong("kcmp on behalf of thread %d", self);
  const FileRef file = table.Get(file_number);
  if (file == nullptr) return Refuse(EBADF);
  const std::shared_ptr<Task> task = Kernel::Get().FindTask(tid);
  if (task == nullptr) return Refuse(ESRCH);
  const FileRef target = task->process->table->Get(static_cast<int>(slot.efd));
  if (target == nullptr) return Refuse(EBADF);
  const auto epoll = std::dynamic_pointer_cast<Epoll>(target);
  if (epoll == nullptr) return Refuse(EINVAL);
  uint32_t offset = slot.toff;
  for (const Epoll::Watch& watch : epoll->watches) {
    const FileRef watched = watch.file.lock();
    if (watched == nullptr || watch.number != static_cast<int>(slot.tfd)) continue;
    if (offset-- == 0) return watched == file ? 0 : 1;
  }
  return Refuse(ENOENT);
}

// What unshare(CLONE_FILES) has copied, without what is not wanted.
long CloseRange(unsigned first, unsigned last) {
  FdTable& table = *Fiber::Current()->table;
  std::erase_if(table.open, [first, last](const auto& entry) {
    return static_cast<unsigned>(entry.first) >= first && static_cast<unsigned>(entry.first) <= last;
  });
  return 0;
}

// A thread of the engine that runs, by the handle that std::thread keeps. They count up from 1.
std::map<uint64_t, Fiber*>& Threads() {
  static std::map<uint64_t, Fiber*> threads;
  return threads;
}
uint64_t& HandleOf(std::thread& thread) {
  return reinterpret_cast<uint64_t&>(thread);  // its only member, of type pthread_t
}

std::map<const pthread_mutex_t*, bool>& Locked() {
  static std::map<const pthread_mutex_t*, bool> locked;
  return locked;
}

}  // namespace

void ForgetThreads() {
  Threads().clear();
  Locked().clear();
}

}  // namespace shunt::sim

using namespace shunt::sim;  // NOLINT: this file is about nothing else

extern "C" {

long __wrap_syscall(long number, long a, long b, long c, long d, long e) {
  World& world = World::Get();
  if (number == SYS_futex)
    return Futex(reinterpret_cast<const int*>(a), static_cast<int>(b), static_cast<int>(c));
  // Not where the engine initialises a static variable: a run's engines share those, and one may be killed.
  if (number != SYS_seccomp) world.Enter("syscall", number);
  switch (number) {
    case SYS_seccomp:
      *reinterpret_cast<seccomp_notif_sizes*>(c) = {80, 24, 64};
      return 0;
    case SYS_pidfd_open:
      return OpenPidFd(static_cast<pid_t>(a));
    case SYS_pidfd_getfd:
      if (const int error = world.Fault({EPERM, EMFILE}); error != 0) return Refuse(error);
      return GetFd(static_cast<int>(a), static_cast<int>(b));
    case SYS_kcmp:
      if (const int error = world.Fault({EPERM, ENOMEM}); error != 0) return Refuse(error);
      if (c != KCMP_EPOLL_TFD) world.Wrong("kcmp type %ld", c);
      return CompareEpoll(static_cast<pid_t>(a), static_cast<pid_t>(b), static_cast<int>(d),
                          *reinterpret_cast<const kcmp_epoll_slot*>(e));
    case SYS_bpf:
      if (!Kernel::Get().may_load_programs) return Refuse(EPERM);
      return Give(std::make_shared<LockProgramFile>());
    case SYS_capget:
      if (reinterpret_cast<const __user_cap_header_struct*>(a)->pid != 0 && world.Fault({ESRCH}) != 0)
        return Refuse(ESRCH);
      std::memset(reinterpret_cast<void*>(b), world.chance.OneIn(2) ? 0xff : 0, 24);
      return 0;
    case SYS_capset:
    case SYS_io_uring_register:  // the simulated ring can do no more than what it is restricted to
      return 0;
    case SYS_close_range:
      return CloseRange(static_cast<unsigned>(a), static_cast<unsigned>(b));
    default:
      world.Wrong("system call %ld is not simulated", number);
  }
}

int __wrap_unshare(int /*flags: CLONE_FILES*/) {
  Fiber& self = *Fiber::Current();
  auto copy = std::make_shared<FdTable>(self.table->first_free);
  copy->open = self.table->open;
  self.table = std::move(copy);
  self.name = "side";
  return 0;
}

int __wrap_sched_yield() {
  // The search for leaks at the end of a sanitized program yields as well, outside of any fiber.
  if (Fiber::Current() != nullptr) Fiber::Pause({});
  return 0;
}

int __wrap_pthread_sigmask(int, const sigset_t*, sigset_t*) {
  return 0;
}

// No real time here: waits for targets have no bound (core/patience.h).
int __wrap_timer_create(clockid_t, struct sigevent*, timer_t*) {
  errno = ENOTSUP;
  return -1;
}

int __wrap_pthread_setname_np(pthread_t, const char*) {
  return 0;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t* mutex) {
  bool& locked = Locked()[mutex];
  if (locked) Fiber::Pause([&locked] { return !locked; });
  locked = true;
  return 0;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t* mutex) {
  Locked()[mutex] = false;
  return 0;
}

// std::thread::_M_start_thread, join, detach.
void __wrap__ZNSt6thread15_M_start_threadESt10unique_ptrINS_6_StateESt14default_deleteIS1_EEPFvvE(
    std::thread* self, std::unique_ptr<std::thread::_State> state, void (*)()) {
  static uint64_t last_handle = 0;
  World::Get().Enter("a thread starts");
  std::shared_ptr<std::thread::_State> run = std::move(state);
  const std::string parent = Fiber::Current()->name;
  Fiber& fiber = World::Get().Spawn(parent + ".", Fiber::Current()->table, [run] { run->_M_run(); });
  HandleOf(*self) = ++last_handle;
  Threads()[last_handle] = &fiber;
}

void __wrap__ZNSt6thread4joinEv(std::thread* self) {
  Fiber* const fiber = Threads().at(HandleOf(*self));
  Fiber::Pause([fiber] { return fiber->finished(); });
  Threads().erase(HandleOf(*self));
  HandleOf(*self) = 0;
}

void __wrap__ZNSt6thread6detachEv(std::thread* self) {
  Threads().erase(HandleOf(*self));
  HandleOf(*self) = 0;
}

}  // extern "C"
