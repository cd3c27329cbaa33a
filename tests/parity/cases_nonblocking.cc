// SPDX-License-Identifier: Apache-2.0
// Nonblocking connects: the start, the end as poll, select and SO_ERROR tell it, and everything called in
// between.
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/select.h>

#include "tests/parity/guest.h"

namespace parity {

PARITY_CASE(nonblocking, ok, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  ConnectAndWait(fd, PeerAt("echo"));
  Where(fd);
  Talk("talk", fd);
}

PARITY_CASE(nonblocking, ok_host, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  ConnectAndWait(fd, HostAt("echo"));
  Talk("talk", fd);
}

PARITY_CASE(nonblocking, by_fcntl, kPlain) {
  const int fd = Tcp();
  Step("fcntl", fcntl(fd, F_SETFL, O_NONBLOCK));
  ConnectAndWait(fd, PeerAt("echo"));
  Fact("flags", "%#x", fcntl(fd, F_GETFL) & ~O_LARGEFILE);
  Talk("talk", fd);
}

PARITY_CASE(nonblocking, by_fionbio, kPlain) {
  const int fd = Tcp();
  int on = 1;
  Step("ioctl", ioctl(fd, FIONBIO, &on));
  ConnectAndWait(fd, PeerAt("echo"));
  Fact("flags", "%#x", fcntl(fd, F_GETFL) & ~O_LARGEFILE);
  char byte = 0;
  Step("recv", recv(fd, &byte, 1, 0));
  Talk("talk", fd);
}

PARITY_CASE(nonblocking, refused, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  ConnectAndWait(fd, PeerAt("closed"));
  Fact("again", "%s", ErrnoName(TakeError(fd)));
  Where(fd);
}

PARITY_CASE(nonblocking, refused_told_by_connect, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  Step("connect", Connect(fd, PeerAt("closed")));
  WaitFor(fd, POLLOUT);
  Step("connect", Connect(fd, PeerAt("closed")));
  Step("connect", Connect(fd, PeerAt("closed")));
}

PARITY_CASE(nonblocking, refused_then_ok, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  ConnectAndWait(fd, PeerAt("closed"));
  ConnectAndWait(fd, PeerAt("echo"));
  Talk("talk", fd);
}

PARITY_CASE(nonblocking, refused_told_by_send, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  Step("connect", Connect(fd, PeerAt("closed")));
  WaitFor(fd, POLLOUT);
  Step("send", send(fd, "x", 1, MSG_NOSIGNAL));
  Step("send", send(fd, "x", 1, MSG_NOSIGNAL));
}

PARITY_CASE(nonblocking, second_connect_completes, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  Step("connect", Connect(fd, PeerAt("echo")));
  WaitFor(fd, POLLOUT);
  Step("connect", Connect(fd, PeerAt("echo")));
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("talk", fd);
}

PARITY_CASE(nonblocking, then_blocking_second, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  Step("connect", Connect(fd, PeerAt("echo")));
  Step("fcntl", fcntl(fd, F_SETFL, 0));
  WaitFor(fd, POLLOUT);
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("talk", fd);
}

PARITY_CASE(nonblocking, to_the_void, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  Step("connect", Connect(fd, VoidAt(80)));
  Step("again", Connect(fd, VoidAt(80)));
  Step("other", Connect(fd, PeerAt("echo")));
  Fact("state", "%s", StateOf(fd));
  pollfd one = {fd, POLLIN | POLLOUT, 0};
  Step("poll", poll(&one, 1, 0));
  char byte = 0;
  Step("recv", recv(fd, &byte, 1, 0));
  Step("send", send(fd, "x", 1, MSG_NOSIGNAL));
  Fact("so_error", "%s", ErrnoName(TakeError(fd)));
  Where(fd);
  Step("bind", Bind(fd, V4("0.0.0.0", 0)));
  Step("listen", listen(fd, 1));
}

PARITY_CASE(nonblocking, void_then_shutdown, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  Step("connect", Connect(fd, VoidAt(80)));
  Step("shutdown", shutdown(fd, SHUT_RDWR));
  Fact("state", "%s", StateOf(fd));
  Fact("so_error", "%s", ErrnoName(TakeError(fd)));
  ConnectAndWait(fd, PeerAt("echo"));
  Talk("talk", fd);
}

PARITY_CASE(nonblocking, void_then_shutdown_one_way, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  Step("connect", Connect(fd, VoidAt(80)));
  Step("write", shutdown(fd, SHUT_WR));
  Step("read", shutdown(fd, SHUT_RD));
  Fact("state", "%s", StateOf(fd));
}

PARITY_CASE(nonblocking, void_then_disconnect, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  Step("connect", Connect(fd, VoidAt(80)));
  Step("disconnect", Connect(fd, Unspecified()));
  Fact("state", "%s", StateOf(fd));
  ConnectAndWait(fd, PeerAt("echo"));
  Talk("talk", fd);
}

PARITY_CASE(nonblocking, void_then_loopback, kPlain) {
  const int listener = Listener(V4("127.0.0.1", 0));
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  Step("connect", Connect(fd, VoidAt(80)));
  Step("loopback", Connect(fd, LocalOf(listener)));
  Step("disconnect", Connect(fd, Unspecified()));
  ConnectAndWait(fd, LocalOf(listener));
  Made("accept", accept(listener, nullptr, nullptr));
}

PARITY_CASE(nonblocking, select_writable, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  Step("connect", Connect(fd, PeerAt("hold")));
  fd_set readable, writable;
  FD_ZERO(&readable);
  FD_ZERO(&writable);
  FD_SET(fd, &readable);
  FD_SET(fd, &writable);
  timeval limit = {5, 0};
  Step("select", select(fd + 1, &readable, &writable, nullptr, &limit));
  Fact("sets", "%d %d", FD_ISSET(fd, &readable), FD_ISSET(fd, &writable));
}

PARITY_CASE(nonblocking, select_refused, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  Step("connect", Connect(fd, PeerAt("closed")));
  WaitFor(fd, POLLOUT);
  fd_set readable, writable, special;
  FD_ZERO(&readable);
  FD_ZERO(&writable);
  FD_ZERO(&special);
  FD_SET(fd, &readable);
  FD_SET(fd, &writable);
  FD_SET(fd, &special);
  timeval limit = {5, 0};
  Step("select", select(fd + 1, &readable, &writable, &special, &limit));
  Fact("sets", "%d %d %d", FD_ISSET(fd, &readable), FD_ISSET(fd, &writable), FD_ISSET(fd, &special));
}

PARITY_CASE(nonblocking, poll_before_connect, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  pollfd one = {fd, POLLIN | POLLOUT | POLLRDHUP, 0};
  Step("poll", poll(&one, 1, 0));
  Fact("events", "%#x", one.revents);
  ConnectAndWait(fd, PeerAt("hold"));
  Step("poll", poll(&one, 1, 0));
  Fact("events", "%#x", one.revents);
}

PARITY_CASE(nonblocking, ppoll, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  Step("connect", Connect(fd, PeerAt("hold")));
  pollfd one = {fd, POLLOUT, 0};
  timespec limit = {5, 0};
  sigset_t none;
  sigemptyset(&none);
  Step("ppoll", ppoll(&one, 1, &limit, &none));
  Fact("events", "%#x", one.revents);
}

PARITY_CASE(nonblocking, many_at_once, kPlain) {
  pollfd all[40];
  for (pollfd& one : all) {
    one = {Tcp(AF_INET, SOCK_NONBLOCK), POLLOUT, 0};
    if (Connect(one.fd, PeerAt("hold")) == -1 && errno != EINPROGRESS) Step("connect", -1);
  }
  int good = 0;
  for (pollfd& one : all) good += WaitFor(one.fd, POLLOUT) == POLLOUT && TakeError(one.fd) == 0;
  Fact("good", "%d", good);
}

PARITY_CASE(nonblocking, closed_at_once, kPlain) {
  int in_progress = 0;
  for (int i = 0; i < 30; ++i) {
    const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
    in_progress += Connect(fd, PeerAt("hold")) == -1 && errno == EINPROGRESS;
    close(fd);
  }
  Fact("in_progress", "%d", in_progress);
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("talk", fd);
}

PARITY_CASE(nonblocking, bound_source_port, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  Step("bind", Bind(fd, V4("0.0.0.0", 0)));
  const int port = PortOf(LocalOf(fd));
  ConnectAndWait(fd, PeerAt("echo"));
  Fact("kept", "%s", PortOf(LocalOf(fd)) == port ? "yes" : "no");
}

PARITY_CASE(nonblocking, then_made_blocking, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  ConnectAndWait(fd, PeerAt("late"));
  Step("fcntl", fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK));
  const int64_t start = NowMs();
  char byte = 0;
  Step("recv", recv(fd, &byte, 1, 0));
  Waited("waited", start, 200);
}

PARITY_CASE(nonblocking, sndtimeo_is_not_used, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  timeval limit = {0, 300000};
  Step("set", setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit));
  Step("connect", Connect(fd, VoidAt(80)));
  Step("connect", Connect(fd, VoidAt(80)));
}

PARITY_CASE(nonblocking, unreachable, kSlow) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  const int64_t start = NowMs();
  ConnectAndWait(fd, V4(World("nobody"), 80));
  Waited("waited", start, 3000, 1500);
  ConnectAndWait(fd, PeerAt("echo"));
}

}  // namespace parity
