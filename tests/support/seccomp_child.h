// SPDX-License-Identifier: Apache-2.0
// SeccompChild: a child process under a filter that traps chosen system calls, and the listener in the
// parent's hands.
//
// For tests that need a real notification and a real ADDFD without an engine. The child runs a function of
// the test; fork() copies everything, so it may use whatever the test has prepared (pipes, sockets), but not
// GoogleTest's assertions: it reports by its exit status. Needs no privilege (no_new_privs).

#pragma once

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <functional>
#include <initializer_list>
#include <optional>
#include <vector>

#include "core/fd.h"

namespace shunt::testing_support {

class SeccompChild {
 public:
  // Starts `body` in a child in which each of `trapped` notifies. ok() is false if the kernel refused
  // something; errno says what. `flags`: of the filter, beside NEW_LISTENER.
  SeccompChild(std::initializer_list<int> trapped, const std::function<int()>& body,
               unsigned long flags = 0) {
    int report[2], go[2];
    if (pipe(report) != 0 || pipe(go) != 0) return;
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      close(report[0]);
      close(go[1]);
      const int listener = InstallFilter(trapped, flags);
      const int answer = listener >= 0 ? listener : -errno;
      char byte;
      if (write(report[1], &answer, sizeof(answer)) != sizeof(answer) || read(go[0], &byte, 1) != 1)
        _exit(126);
      close(report[1]);
      close(go[0]);
      close(listener);  // ours is the parent's copy
      _exit(body());
    }
    close(report[1]);
    close(go[0]);
    int answer = -1;
    if (pid_ > 0 && read(report[0], &answer, sizeof(answer)) == sizeof(answer) && answer >= 0) {
      pidfd_.reset(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
      listener_.reset(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd_.get(), answer, 0)));
    } else if (answer < 0) {
      errno = -answer;
    }
    if (listener_.valid() && write(go[1], "g", 1) != 1) listener_.reset();
    close(report[0]);
    close(go[1]);
  }

  // Kills the child if it has not been waited for.
  ~SeccompChild() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  SeccompChild(const SeccompChild&) = delete;
  SeccompChild& operator=(const SeccompChild&) = delete;

  bool ok() const { return listener_.valid(); }
  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_.get(); }
  int listener() const { return listener_.get(); }
  void CloseListener() { listener_.reset(); }

  // The next notification; nothing after `timeout_ms`, or if the child has ended.
  std::optional<seccomp_notif> Receive(int timeout_ms = 10000) const {
    pollfd readable{listener(), POLLIN, 0};
    if (poll(&readable, 1, timeout_ms) != 1 || (readable.revents & POLLIN) == 0) return std::nullopt;
    seccomp_notif notification{};
    if (ioctl(listener(), SECCOMP_IOCTL_NOTIF_RECV, &notification) != 0) return std::nullopt;
    return notification;
  }

  // Puts a copy of `fd` into the child as `number`, in the place of what is there. False: errno says why.
  bool Install(const seccomp_notif& notification, int fd, int number, unsigned newfd_flags = 0) const {
    seccomp_notif_addfd addfd{};
    addfd.id = notification.id;
    addfd.flags = SECCOMP_ADDFD_FLAG_SETFD;
    addfd.srcfd = static_cast<unsigned>(fd);
    addfd.newfd = static_cast<unsigned>(number);
    addfd.newfd_flags = newfd_flags;
    return ioctl(listener(), SECCOMP_IOCTL_NOTIF_ADDFD, &addfd) >= 0;
  }

  // Answers with `value`, or with a positive `error`.
  bool Answer(const seccomp_notif& notification, long value, int error = 0) const {
    seccomp_notif_resp response{};
    response.id = notification.id;
    response.val = error != 0 ? 0 : value;
    response.error = -error;
    return ioctl(listener(), SECCOMP_IOCTL_NOTIF_SEND, &response) == 0;
  }
  bool Continue(const seccomp_notif& notification) const {
    seccomp_notif_resp response{};
    response.id = notification.id;
    response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    return ioctl(listener(), SECCOMP_IOCTL_NOTIF_SEND, &response) == 0;
  }

  // The child's exit status; 128 and more: the signal that ended it. -1: it did not end in time (and is
  // killed).
  int Wait(int timeout_ms = 10000) {
    pollfd ended{pidfd(), POLLIN, 0};
    const bool in_time = poll(&ended, 1, timeout_ms) == 1;
    if (!in_time) kill(pid_, SIGKILL);
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    if (!in_time) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  static int InstallFilter(const std::vector<int>& trapped, unsigned long flags) {
    std::vector<sock_filter> program;
    program.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)));
    for (const int number : trapped) {
      program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(number), 0, 1));
      program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF));
    }
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
    return static_cast<int>(
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER | flags, &filter));
  }

  pid_t pid_ = -1;
  Fd pidfd_;
  Fd listener_;
};

}  // namespace shunt::testing_support
