// SPDX-License-Identifier: Apache-2.0
// The raw calls of the notifier, for tests that want to see just what the kernel says: nothing is retried,
// and failures are negative errnos.

#pragma once

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <functional>
#include <type_traits>

#include "core/fd.h"

// Newer than Debian 12's headers.
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)  // Linux 5.19
#endif
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)  // Linux 6.6
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#endif
#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL  // Linux 6.9
#endif

namespace shunt::facts {

inline int Errno(long result) {
  return result < 0 ? -errno : static_cast<int>(result);
}

inline int Receive(int listener, seccomp_notif& into) {
  return Errno(ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &into));
}

inline int Send(int listener, uint64_t id, int64_t value, int error = 0, uint32_t flags = 0) {
  seccomp_notif_resp response{.id = id, .val = value, .error = error, .flags = flags};
  return Errno(ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response));
}

inline int IdValid(int listener, uint64_t id) {
  return Errno(ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &id));
}

inline int AddFd(int listener, seccomp_notif_addfd request) {
  return Errno(ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &request));
}

// What poll(2) tells of the listener within `timeout_ms`.
inline short Poll(int listener, int timeout_ms = 10'000) {
  pollfd asked{.fd = listener, .events = POLLIN, .revents = 0};
  return poll(&asked, 1, timeout_ms) == 1 ? asked.revents : short{0};
}

// Puts this process under one more filter, which answers `action` for call `number` and allows everything
// else. The listener if `flags` ask for one, else 0; or a negative errno.
inline int AddFilter(int number, uint32_t action, unsigned long flags = 0) {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(number), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, action),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{sizeof(program) / sizeof(program[0]), program};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  return Errno(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter));
}

// The state of a thread as /proc tells it: R, S (may be interrupted), D (only killed), Z ... '?': gone.
inline char StateOf(pid_t tid) {
  char path[32], text[256];
  std::snprintf(path, sizeof(path), "/proc/%d/stat", tid);
  const Fd file(open(path, O_RDONLY | O_CLOEXEC));
  for (ssize_t i = read(file.get(), text, sizeof(text)) - 1; i > 1; --i) {
    if (text[i - 2] == ')') return text[i];  // its name, in brackets, stands before
  }
  return '?';
}

// Waits until `so()` holds; false if it does not within ten seconds or so.
inline bool Comes(const std::function<bool()>& so) {
  for (int tries = 0; tries < 10'000; ++tries) {
    if (so()) return true;
    const timespec millisecond{0, 1'000'000};
    nanosleep(&millisecond, nullptr);
  }
  return false;
}

// A process of the test's own, killed with it.
class Child {
 public:
  explicit Child(const std::function<int()>& body) : pid_(fork()) {
    if (pid_ != 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    _exit(body());
  }
  ~Child() {
    if (pid_ > 0) Kill();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }
  // Its exit status; 128 and more: the signal that ended it.
  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  void Kill() {
    kill(pid_, SIGKILL);
    Wait();
  }

 private:
  pid_t pid_;
};

// A Struct in memory that children share with the test, zeroed, with its pages present.
template <typename Struct>
class Shared {
 public:
  Shared()
      : at_(static_cast<Struct*>(mmap(nullptr, sizeof(Struct), PROT_READ | PROT_WRITE,
                                      MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0))) {}
  ~Shared() { munmap(static_cast<void*>(const_cast<std::remove_volatile_t<Struct>*>(at_)), sizeof(Struct)); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  Struct* operator->() const { return at_; }
  Struct& operator*() const { return *at_; }

 private:
  Struct* const at_;
};

}  // namespace shunt::facts
