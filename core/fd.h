// SPDX-License-Identifier: Apache-2.0
// Fd owns one file descriptor and closes it when it goes away.
//
// A plain `int` parameter or member called `..._fd` borrows; an Fd owns. There is no way to close an Fd that
// somebody else still counts on, and none to close an index instead of a descriptor.

#pragma once

#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

namespace shunt {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

  // Gives the descriptor up without closing it.
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }

  // Closes what is held and takes `fd` instead. close(2) is never retried: on Linux the number is free even
  // after EINTR.
  void reset(int fd = -1) {
    const int old = std::exchange(fd_, fd);
    if (old >= 0) ::close(old);
  }

 private:
  int fd_ = -1;
};

// True if both descriptors, of this process, are of one open file. Asks the kernel.
inline bool SameOpenFile(int one, int other) {
  const pid_t self = getpid();
  return syscall(SYS_kcmp, self, self, KCMP_FILE, one, other) == 0;
}

}  // namespace shunt
