// SPDX-License-Identifier: Apache-2.0
// What belongs to the descriptor and the open file: FD_CLOEXEC, O_NONBLOCK, O_ASYNC and owners, over a
// connect.
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "tests/parity/guest.h"

namespace parity {
namespace {

void PrintFlags(int fd) {
  Step("fd_flags", fcntl(fd, F_GETFD));
  Fact("flags", "%#x", fcntl(fd, F_GETFL) & ~O_LARGEFILE);
}

}  // namespace

PARITY_CASE(descriptors, plain, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("hold")));
  PrintFlags(fd);
}

PARITY_CASE(descriptors, cloexec_at_creation, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_CLOEXEC);
  Step("connect", Connect(fd, PeerAt("hold")));
  PrintFlags(fd);
}

PARITY_CASE(descriptors, cloexec_by_fcntl, kPlain) {
  const int fd = Tcp();
  Step("set", fcntl(fd, F_SETFD, FD_CLOEXEC));
  Step("connect", Connect(fd, PeerAt("hold")));
  PrintFlags(fd);
}

PARITY_CASE(descriptors, cloexec_by_ioctl, kPlain) {
  const int fd = Tcp();
  Step("set", ioctl(fd, FIOCLEX));
  Step("connect", Connect(fd, PeerAt("hold")));
  PrintFlags(fd);
}

PARITY_CASE(descriptors, cloexec_cleared, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_CLOEXEC | SOCK_NONBLOCK);
  Step("clear", fcntl(fd, F_SETFD, 0));
  ConnectAndWait(fd, PeerAt("hold"));
  PrintFlags(fd);
}

PARITY_CASE(descriptors, nonblock_survives_refusal, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK | SOCK_CLOEXEC);
  ConnectAndWait(fd, PeerAt("closed"));
  PrintFlags(fd);
}

PARITY_CASE(descriptors, flags_set_after, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("hold")));
  Step("nonblock", fcntl(fd, F_SETFL, O_NONBLOCK));
  Step("cloexec", fcntl(fd, F_SETFD, FD_CLOEXEC));
  PrintFlags(fd);
  char byte = 0;
  Step("recv", recv(fd, &byte, 1, 0));
}

PARITY_CASE(descriptors, owner, kOrdinary) {
  const int fd = Tcp();
  Step("set", fcntl(fd, F_SETOWN, getpid()));
  Step("connect", Connect(fd, PeerAt("hold")));
  Fact("owner", "%s", fcntl(fd, F_GETOWN) == getpid() ? "me" : "other");
}

PARITY_CASE(descriptors, owner_signalled, kOrdinary) {
  Count(SIGIO, SA_RESTART);
  const int fd = Tcp();
  Step("own", fcntl(fd, F_SETOWN, getpid()));
  Step("async", fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK));
  ConnectAndWait(fd, PeerAt("banner"));
  WaitFor(fd, POLLIN);
  Fact("signalled", "%s", Counted() > 0 ? "yes" : "no");
  Fact("flags", "%#x", fcntl(fd, F_GETFL) & ~O_LARGEFILE);
}

PARITY_CASE(descriptors, chosen_signal, kOrdinary) {
  Count(SIGUSR1, SA_RESTART);
  const int fd = Tcp();
  Step("own", fcntl(fd, F_SETOWN, getpid()));
  Step("signal", fcntl(fd, 10 /* F_SETSIG */, SIGUSR1));
  Step("async", fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK));
  ConnectAndWait(fd, PeerAt("hold"));
  Step("get", fcntl(fd, 11 /* F_GETSIG */));
  Fact("signalled", "%s", Counted() > 0 ? "yes" : "no");
}

PARITY_CASE(descriptors, owner_set_after, kPlain) {
  Count(SIGIO, SA_RESTART);
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("late")));
  Step("own", fcntl(fd, F_SETOWN, getpid()));
  Step("async", fcntl(fd, F_SETFL, O_ASYNC));
  Fact("events", "%#x", WaitFor(fd, POLLIN));
  Fact("signalled", "%s", Counted() > 0 ? "yes" : "no");
}

PARITY_CASE(descriptors, fstat_is_a_socket, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("hold")));
  struct stat info {};
  Step("fstat", fstat(fd, &info));
  Fact("socket", "%d", S_ISSOCK(info.st_mode));
  Fact("permissions", "%o", info.st_mode & 0777);
}

PARITY_CASE(descriptors, pending_bytes_ioctl, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("banner")));
  WaitFor(fd, POLLIN);
  int bytes = 0;
  Step("fionread", ioctl(fd, FIONREAD, &bytes));
  Fact("bytes", "%d", bytes);
  Step("siocoutq", ioctl(fd, 0x5411, &bytes));
  Fact("unsent", "%d", bytes);
  Step("siocatmark", ioctl(fd, 0x8905, &bytes));
}

PARITY_CASE(descriptors, exec_keeps_and_closes, kPlain) {
  const int kept = Tcp();
  const int closed = Tcp(AF_INET, SOCK_CLOEXEC);
  Step("kept", Connect(kept, PeerAt("echo")));
  Step("closed", Connect(closed, PeerAt("echo")));
  const int numbers = kept * 1000 + closed;
  const pid_t pid = Child([&] {
    char text[16] = {};
    int at = 15;
    for (int left = numbers; left > 0; left /= 10) text[--at] = static_cast<char>('0' + left % 10);
    ExecSelf("kept-and-closed", text + at);
    return 0;
  });
  Fact("child", "%d", WaitChild(pid));
  Talk("talk", kept);
}

PARITY_CASE(descriptors, exec_then_connect, kPlain) {
  const int fd = Tcp();
  int ends[2];
  Step("pipe", pipe(ends));
  const pid_t pid = Child([&]() -> int {
    // The parent's copy would make this a shared socket: wait until it is closed, which the pipe's end of
    // file tells.
    char byte = 0;
    close(ends[1]);
    if (read(ends[0], &byte, 1) != 0) return 1;
    const char text[2] = {static_cast<char>('0' + fd), 0};
    ExecSelf("connect", text);
  });
  close(fd);
  close(ends[1]);
  Fact("child", "%d", WaitChild(pid));
}

PARITY_CASE(descriptors, exec_closes_number_then_reused, kPlain) {
  const pid_t pid = Child([] {
    const int fd = Tcp(AF_INET, SOCK_CLOEXEC);
    Connect(fd, PeerAt("hold"));
    ExecSelf("fresh-socket", "0");
    return 0;
  });
  Fact("child", "%d", WaitChild(pid));
}

PARITY_CASE(descriptors, close_range_then_reused, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("hold")));
  Step("close_range", syscall(SYS_close_range, static_cast<unsigned>(fd), static_cast<unsigned>(fd), 0U));
  const int next = Tcp();
  Fact("number", "%s", next == fd ? "reused" : "other");
  Step("connect", Connect(next, PeerAt("echo")));
  Talk("talk", next);
}

PARITY_CASE(descriptors, replaced_by_dup2, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("hold")));
  const int fresh = Tcp();
  Step("dup2", dup2(fresh, fd) == fd ? 0 : -1);
  close(fresh);
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("talk", fd);
}

PARITY_CASE(descriptors, path_descriptor, kPlain) {
  const int fd = open("/", O_PATH);
  Step("connect", Connect(fd, PeerAt("echo")));
  Step("bind", Bind(fd, V4("0.0.0.0", 0)));
}

// What the exec'ed guests of this file do.
int Entry(const char* name, const char* argument) {
  int number = 0;
  for (const char* at = argument; *at >= '0' && *at <= '9'; ++at) number = number * 10 + (*at - '0');
  const char first = name[0];
  if (first == 'k') {  // kept-and-closed
    Talk("kept_talk", number / 1000);
    Step("closed", fcntl(number % 1000, F_GETFD));
    return 0;
  }
  if (first == 'c') {  // connect
    Step("connect", Connect(number, PeerAt("echo")));
    Talk("talk", number);
    return 0;
  }
  if (first == 'f') {  // fresh-socket
    const int fd = Tcp();
    Step("connect", Connect(fd, PeerAt("echo")));
    Talk("talk", fd);
    return 0;
  }
  return 97;
}

}  // namespace parity
