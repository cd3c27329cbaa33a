// SPDX-License-Identifier: Apache-2.0
// Copies of a socket made before its connect (dup, fork, SCM_RIGHTS) and after it: all of them are the same
// socket.
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "tests/parity/guest.h"

namespace parity {

PARITY_CASE(sharing, dup_before_use_both, kOrdinary) {
  const int fd = Tcp();
  const int copy = dup(fd);
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("original", fd);
  Talk("copy", copy);
  Step("same", Connect(copy, PeerAt("echo")));
}

PARITY_CASE(sharing, dup_before_connect_copy, kOrdinary) {
  const int fd = Tcp();
  const int copy = dup(fd);
  Step("connect", Connect(copy, PeerAt("echo")));
  Talk("original", fd);
  close(copy);
  Talk("original", fd);
}

PARITY_CASE(sharing, dup_before_then_closed, kPlain) {
  const int fd = Tcp();
  const int copy = dup(fd);
  close(fd);
  Step("connect", Connect(copy, PeerAt("echo")));
  Talk("talk", copy);
}

PARITY_CASE(sharing, dup_nonblocking, kOrdinary) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  const int copy = dup(fd);
  Step("connect", Connect(fd, PeerAt("echo")));
  Fact("events", "%#x", WaitFor(copy, POLLOUT));
  Fact("so_error", "%s", ErrnoName(TakeError(copy)));
  Talk("talk", copy);
  Fact("flags", "%#x", fcntl(copy, F_GETFL) & ~O_LARGEFILE);
}

PARITY_CASE(sharing, dup_flags_are_per_descriptor, kOrdinary) {
  const int fd = Tcp();
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 30);
  Step("connect", Connect(copy, PeerAt("hold")));
  Step("fd_flags", fcntl(fd, F_GETFD));
  Step("copy_flags", fcntl(copy, F_GETFD));
}

PARITY_CASE(sharing, dup_after, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("echo")));
  const int copy = dup(fd);
  close(fd);
  Talk("copy", copy);
}

PARITY_CASE(sharing, dup2_after, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("echo")));
  Step("dup2", dup2(fd, 40));
  Talk("copy", 40);
  Step("dup3", dup3(fd, 41, O_CLOEXEC));
  Step("fd_flags", fcntl(41, F_GETFD));
}

PARITY_CASE(sharing, dup_refused_then_ok, kOrdinary) {
  const int fd = Tcp();
  const int copy = dup(fd);
  Step("refused", Connect(fd, PeerAt("closed")));
  Step("connect", Connect(copy, PeerAt("echo")));
  Talk("talk", fd);
}

PARITY_CASE(sharing, fork_before_child_connects, kOrdinary) {
  const int fd = Tcp();
  const pid_t pid = Child([&] {
    Step("child_connect", Connect(fd, PeerAt("echo")));
    Talk("child_talk", fd);
    return 0;
  });
  Fact("child", "%d", WaitChild(pid));
  Talk("parent_talk", fd);
}

PARITY_CASE(sharing, fork_before_parent_connects, kOrdinary) {
  const int fd = Tcp();
  int ready[2];
  Step("pipe", pipe(ready));
  const pid_t pid = Child([&] {
    char byte = 0;
    if (read(ready[0], &byte, 1) != 1) return 1;
    Talk("child_talk", fd);
    return 0;
  });
  Step("connect", Connect(fd, PeerAt("echo")));
  // From here until the child is gone only the child prints.
  if (write(ready[1], "x", 1) != 1) Step("go", -1);
  Fact("child", "%d", WaitChild(pid));
  Talk("parent_talk", fd);
}

PARITY_CASE(sharing, fork_before_both_own, kPlain) {
  const int fd = Tcp();
  const pid_t pid = Child([&] {
    close(fd);
    const int own = Tcp();
    Step("child_connect", Connect(own, PeerAt("echo")));
    Talk("child_talk", own);
    return 0;
  });
  Fact("child", "%d", WaitChild(pid));
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("talk", fd);
}

PARITY_CASE(sharing, fork_after, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("echo")));
  const pid_t pid = Child([&] {
    Talk("child_talk", fd);
    return 0;
  });
  Fact("child", "%d", WaitChild(pid));
  Talk("talk", fd);
}

PARITY_CASE(sharing, vfork_then_connect, kOrdinary) {
  static int fd;
  static int result;
  static int error;
  static Address address;
  alignas(16) static char stack[65536];
  fd = Tcp();
  address = PeerAt("echo");
  // As vfork: the child shares our memory and we sleep until it is gone, but its descriptor table is its own.
  const pid_t pid = clone(
      [](void*) {
        result = Connect(fd, address);
        error = errno;
        return 0;
      },
      stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, nullptr);
  Fact("child", "%d", WaitChild(pid));
  errno = error;
  Step("child_connect", result);
  Talk("talk", fd);
}

PARITY_CASE(sharing, scm_before, kOrdinary) {
  int channel[2];
  Step("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, channel));
  const int fd = Tcp();
  Step("send", SendFd(channel[0], fd));
  const int copy = ReceiveFd(channel[1]);
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("copy", copy);
}

PARITY_CASE(sharing, scm_in_flight, kOrdinary) {
  int channel[2];
  Step("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, channel));
  const int fd = Tcp();
  Step("send", SendFd(channel[0], fd));
  Step("connect", Connect(fd, PeerAt("echo")));
  const int copy = ReceiveFd(channel[1]);
  Talk("copy", copy);
  close(copy);
  Talk("original", fd);
}

PARITY_CASE(sharing, scm_after, kPlain) {
  int channel[2];
  Step("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, channel));
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("echo")));
  Step("send", SendFd(channel[0], fd));
  close(fd);
  Talk("copy", ReceiveFd(channel[1]));
}

PARITY_CASE(sharing, scm_moved_then_connected, kPlain) {
  int channel[2];
  Step("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, channel));
  const int fd = Tcp();
  Step("send", SendFd(channel[0], fd));
  close(fd);
  const int moved = ReceiveFd(channel[1]);
  Step("connect", Connect(moved, PeerAt("echo")));
  Talk("talk", moved);
}

PARITY_CASE(sharing, scm_between_processes, kPlain) {
  int channel[2];
  Step("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, channel));
  const pid_t pid = Child([&] {
    close(channel[0]);
    const int fd = Tcp();
    if (Connect(fd, PeerAt("echo")) != 0) return 1;
    return SendFd(channel[1], fd) == 0 ? 0 : 2;
  });
  close(channel[1]);
  const int fd = ReceiveFd(channel[0]);
  Fact("child", "%d", WaitChild(pid));
  Talk("talk", fd);
}

PARITY_CASE(sharing, open_proc_fd_is_enxio, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("hold")));
  const char path[] = {
      '/', 'p', 'r', 'o', 'c', '/', 's', 'e', 'l', 'f', '/', 'f', 'd', '/', static_cast<char>('0' + fd), 0};
  const int opened = open(path, O_RDWR);
  Fact("open", "%s", opened >= 0 ? "ok" : errno == ENXIO ? "ENXIO" : ErrnoName(errno));
}

PARITY_CASE(sharing, pidfd_getfd_copy, kOrdinary) {
  // Whoever started the guest may forbid ptrace-like access: of a child it is always allowed.
  const int fd = Tcp();
  int ready[2];
  Step("pipe", pipe(ready));
  const pid_t pid = Child([&] {
    char byte = 0;
    return read(ready[0], &byte, 1) == 1 ? 0 : 1;
  });
  const int handle = static_cast<int>(syscall(434 /* pidfd_open */, pid, 0));
  const int copy = static_cast<int>(syscall(438 /* pidfd_getfd */, handle, fd, 0));
  Made("copy", copy);
  Step("connect", Connect(fd, PeerAt("echo")));
  if (copy >= 0) Talk("copy", copy);
  Step("go", write(ready[1], "x", 1));
  Fact("child", "%d", WaitChild(pid));
}

PARITY_CASE(sharing, grandchild_inherits, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("echo")));
  const pid_t pid = Child([&] {
    const pid_t grandchild = Child([&] {
      Talk("grandchild_talk", fd);
      return 0;
    });
    return WaitChild(grandchild);
  });
  Fact("child", "%d", WaitChild(pid));
}

}  // namespace parity
