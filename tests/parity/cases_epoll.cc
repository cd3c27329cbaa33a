// SPDX-License-Identifier: Apache-2.0
// Sockets registered in epoll before their connect keep the registration: mode, data, and what MOD and DEL do
// to it.
#include <sys/epoll.h>

#include "tests/parity/guest.h"

namespace parity {
namespace {

constexpr uint64_t kData = 0x123456789abcdef0;

int Add(int epoll, int fd, uint32_t events, uint64_t data = kData) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = data;
  return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

int Modify(int epoll, int fd, uint32_t events, uint64_t data = kData) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = data;
  return epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event);
}

int Remove(int epoll, int fd) {
  epoll_event event{};
  return epoll_ctl(epoll, EPOLL_CTL_DEL, fd, &event);
}

// One epoll_wait: `name=COUNT:EVENTS/DATA`.
void Wait(const char* name, int epoll, int timeout_ms = 3000) {
  epoll_event event{};
  const int ready = epoll_wait(epoll, &event, 1, timeout_ms);
  if (ready != 1) {
    Step(name, ready);
  } else {
    Fact(name, "%#x/%s", event.events, event.data.u64 == kData ? "mine" : "other");
  }
}

// The state of a just made, unconnected socket is EPOLLOUT|EPOLLHUP: taken away first where a case wants only
// what follows.
struct Registered {
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  int fd = Tcp(AF_INET, SOCK_NONBLOCK);
};

}  // namespace

PARITY_CASE(epoll, level_before_connect, kPlain) {
  Registered r;
  Step("add", Add(r.epoll, r.fd, EPOLLIN | EPOLLOUT));
  ConnectAndWait(r.fd, PeerAt("echo"));
  Wait("wait", r.epoll);
  Wait("wait", r.epoll);
  Talk("talk", r.fd);
}

PARITY_CASE(epoll, edge_before_connect, kPlain) {
  Registered r;
  Step("add", Add(r.epoll, r.fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET));
  ConnectAndWait(r.fd, PeerAt("hold"));
  Wait("wait", r.epoll);
  Wait("once", r.epoll, 0);
}

PARITY_CASE(epoll, edge_sees_data, kPlain) {
  Registered r;
  Step("add", Add(r.epoll, r.fd, EPOLLIN | EPOLLET));
  ConnectAndWait(r.fd, PeerAt("late"));
  Wait("wait", r.epoll, 0);
  Fact("events", "%#x", WaitFor(r.fd, POLLIN));
  Wait("wait", r.epoll);
  Wait("once", r.epoll, 0);
}

PARITY_CASE(epoll, oneshot_before_connect, kPlain) {
  Registered r;
  Step("add", Add(r.epoll, r.fd, EPOLLOUT | EPOLLONESHOT));
  ConnectAndWait(r.fd, PeerAt("hold"));
  Wait("wait", r.epoll);
  Wait("once", r.epoll, 0);
  Step("mod", Modify(r.epoll, r.fd, EPOLLOUT | EPOLLONESHOT));
  Wait("wait", r.epoll);
}

PARITY_CASE(epoll, oneshot_spent_before_connect, kPlain) {
  Registered r;
  Step("add", Add(r.epoll, r.fd, EPOLLOUT | EPOLLONESHOT));
  Wait("wait", r.epoll);
  ConnectAndWait(r.fd, PeerAt("hold"));
  Wait("spent", r.epoll, 0);
  Step("mod", Modify(r.epoll, r.fd, EPOLLOUT));
  Wait("wait", r.epoll);
}

PARITY_CASE(epoll, exclusive_before_connect, kPlain) {
  Registered r;
  Step("add", Add(r.epoll, r.fd, EPOLLIN | EPOLLOUT | EPOLLEXCLUSIVE));
  ConnectAndWait(r.fd, PeerAt("hold"));
  Wait("wait", r.epoll);
  Step("mod", Modify(r.epoll, r.fd, EPOLLIN));
  Step("del", Remove(r.epoll, r.fd));
}

PARITY_CASE(epoll, exclusive_edge, kPlain) {
  Registered r;
  Step("add", Add(r.epoll, r.fd, EPOLLIN | EPOLLOUT | EPOLLEXCLUSIVE | EPOLLET));
  ConnectAndWait(r.fd, PeerAt("hold"));
  Wait("wait", r.epoll);
  Wait("once", r.epoll, 0);
}

PARITY_CASE(epoll, data_is_kept, kPlain) {
  Registered r;
  Step("add", Add(r.epoll, r.fd, EPOLLOUT, 0xffffffffffffffff));
  ConnectAndWait(r.fd, PeerAt("hold"));
  epoll_event event{};
  Step("wait", epoll_wait(r.epoll, &event, 1, 3000));
  Fact("data", "%#llx", static_cast<unsigned long long>(event.data.u64));
}

PARITY_CASE(epoll, modify_after, kPlain) {
  Registered r;
  Step("add", Add(r.epoll, r.fd, 0));
  ConnectAndWait(r.fd, PeerAt("echo"));
  Wait("none", r.epoll, 0);
  Step("mod", Modify(r.epoll, r.fd, EPOLLOUT));
  Wait("wait", r.epoll);
  Talk("talk", r.fd);
}

PARITY_CASE(epoll, delete_after, kPlain) {
  Registered r;
  Step("add", Add(r.epoll, r.fd, EPOLLOUT));
  ConnectAndWait(r.fd, PeerAt("echo"));
  Step("del", Remove(r.epoll, r.fd));
  Wait("none", r.epoll, 0);
  Step("del", Remove(r.epoll, r.fd));
  Step("mod", Modify(r.epoll, r.fd, EPOLLOUT));
  Step("add", Add(r.epoll, r.fd, EPOLLOUT));
  Wait("wait", r.epoll);
}

PARITY_CASE(epoll, add_twice, kPlain) {
  Registered r;
  Step("add", Add(r.epoll, r.fd, EPOLLOUT));
  ConnectAndWait(r.fd, PeerAt("hold"));
  Step("add", Add(r.epoll, r.fd, EPOLLOUT));
}

PARITY_CASE(epoll, close_removes, kPlain) {
  Registered r;
  Step("add", Add(r.epoll, r.fd, EPOLLOUT));
  ConnectAndWait(r.fd, PeerAt("hold"));
  close(r.fd);
  Wait("none", r.epoll, 0);
}

PARITY_CASE(epoll, refused, kPlain) {
  Registered r;
  Step("add", Add(r.epoll, r.fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP));
  Step("connect", Connect(r.fd, PeerAt("closed")));
  WaitFor(r.fd, POLLOUT);
  Wait("wait", r.epoll);
  Fact("so_error", "%s", ErrnoName(TakeError(r.fd)));
  Wait("after", r.epoll, 0);
}

PARITY_CASE(epoll, edge_refused_then_ok, kPlain) {
  Registered r;
  Step("add", Add(r.epoll, r.fd, EPOLLIN | EPOLLOUT | EPOLLET));
  ConnectAndWait(r.fd, PeerAt("closed"));
  Wait("wait", r.epoll);
  ConnectAndWait(r.fd, PeerAt("hold"));
  Wait("wait", r.epoll);
}

PARITY_CASE(epoll, two_epolls, kPlain) {
  Registered r;
  const int second = epoll_create1(0);
  Step("add", Add(r.epoll, r.fd, EPOLLOUT));
  Step("add", Add(second, r.fd, EPOLLIN | EPOLLOUT | EPOLLET));
  ConnectAndWait(r.fd, PeerAt("hold"));
  Wait("first", r.epoll);
  Wait("second", second);
  Wait("once", second, 0);
  Step("del", Remove(r.epoll, r.fd));
  Step("del", Remove(second, r.fd));
}

// epoll_create(2), the older call, which no C library makes any more.
PARITY_CASE(epoll, made_by_the_older_call, kPlain) {
#ifdef SYS_epoll_create
  Step("size_0", syscall(SYS_epoll_create, 0));
  Step("size_negative", syscall(SYS_epoll_create, -1));
  const int epoll = Made("made", static_cast<int>(syscall(SYS_epoll_create, 1)));
  Fact("cloexec", "%d", fcntl(epoll, F_GETFD));
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  Step("add", Add(epoll, fd, EPOLLOUT));
  ConnectAndWait(fd, PeerAt("hold"));
  Wait("wait", epoll);
  Step("del", Remove(epoll, fd));
#else
  Fact("made", "this architecture does not have it");
#endif
}

PARITY_CASE(epoll, nested, kPlain) {
  Registered r;
  const int outer = epoll_create1(0);
  Step("add", Add(r.epoll, r.fd, EPOLLIN));
  Step("add", Add(outer, r.epoll, EPOLLIN));
  ConnectAndWait(r.fd, PeerAt("banner"));
  WaitFor(r.fd, POLLIN);
  Wait("outer", outer);
  Wait("inner", r.epoll);
}

PARITY_CASE(epoll, blocking_socket, kPlain) {
  const int epoll = epoll_create1(0);
  const int fd = Tcp();
  Step("add", Add(epoll, fd, EPOLLIN));
  Step("connect", Connect(fd, PeerAt("banner")));
  Wait("wait", epoll);
  char text[8] = {};
  Step("read", ReadFully(fd, text, 7));
}

PARITY_CASE(epoll, waiting_while_connecting, kPlain) {
  Registered r;
  Step("add", Add(r.epoll, r.fd, EPOLLIN));
  Thread other{[](void* argument) -> void* {
                 SleepMs(100);
                 Connect(*static_cast<int*>(argument), PeerAt("banner"));
                 return nullptr;
               },
               &r.fd};
  other.Start();
  epoll_event event{};
  // Before the connect an unconnected socket reports a hang-up; the wait is for the data behind it.
  int ready = 0;
  const int64_t end = NowMs() + 4000;
  do {
    ready = epoll_wait(r.epoll, &event, 1, 1000);
  } while (ready == 1 && (event.events & EPOLLIN) == 0 && NowMs() < end);
  Step("wait", ready);
  Fact("events", "%#x/%s", event.events, event.data.u64 == kData ? "mine" : "other");
  other.Join();
}

PARITY_CASE(epoll, registered_after, kPlain) {
  Registered r;
  ConnectAndWait(r.fd, PeerAt("hold"));
  Step("add", Add(r.epoll, r.fd, EPOLLIN | EPOLLOUT | EPOLLET));
  Wait("wait", r.epoll);
  Wait("once", r.epoll, 0);
}

PARITY_CASE(epoll, registered_while_in_progress, kPlain) {
  Registered r;
  Step("connect", Connect(r.fd, PeerAt("hold")));
  Step("add", Add(r.epoll, r.fd, EPOLLOUT | EPOLLET));
  Wait("wait", r.epoll);
  Step("connect", Connect(r.fd, PeerAt("hold")));
  Wait("once", r.epoll, 0);
}

PARITY_CASE(epoll, through_a_dup, kOrdinary) {
  Registered r;
  const int copy = dup(r.fd);
  Step("add", Add(r.epoll, copy, EPOLLOUT));
  ConnectAndWait(r.fd, PeerAt("echo"));
  Wait("wait", r.epoll);
  Step("del", Remove(r.epoll, copy));
  Talk("talk", copy);
}

// What an earlier connect has taught about the program's epolls does not hold any more.
PARITY_CASE(epoll, epoll_moved_between_connects, kPlain) {
  Registered r;
  Step("add", Add(r.epoll, r.fd, EPOLLOUT));
  ConnectAndWait(r.fd, PeerAt("hold"));
  Wait("wait", r.epoll);
  const int moved = dup2(r.epoll, 100);
  Step("close", close(r.epoll));
  close(r.fd);
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  Step("add", Add(moved, fd, EPOLLOUT));
  ConnectAndWait(fd, PeerAt("hold"));
  Wait("wait", moved);
  Step("del", Remove(moved, fd));
}

PARITY_CASE(epoll, many_sockets, kPlain) {
  const int epoll = epoll_create1(0);
  int fds[50];
  for (int i = 0; i < 50; ++i) {
    fds[i] = Tcp(AF_INET, SOCK_NONBLOCK);
    if (Add(epoll, fds[i], EPOLLOUT | EPOLLET, static_cast<uint64_t>(i)) != 0) Step("add", -1);
  }
  for (const int fd : fds) Connect(fd, PeerAt("hold"));
  for (const int fd : fds) WaitFor(fd, POLLOUT);
  bool seen[50] = {};
  int distinct = 0;
  epoll_event events[64];
  const int ready = epoll_wait(epoll, events, 64, 3000);
  for (int i = 0; i < ready; ++i) {
    if (events[i].data.u64 < 50 && !seen[events[i].data.u64]) ++distinct;
    seen[events[i].data.u64] = true;
  }
  Fact("distinct", "%d", distinct);
}

PARITY_CASE(epoll, listener_registered_before_listen, kPlain) {
  const int epoll = epoll_create1(0);
  const int fd = Tcp();
  Step("add", Add(epoll, fd, EPOLLIN));
  Step("bind", Bind(fd, V4("127.0.0.1", 0)));
  Step("listen", listen(fd, 8));
  Wait("none", epoll, 0);
  const int client = Tcp();
  Step("connect", Connect(client, LocalOf(fd)));
  Wait("wait", epoll);
  Made("accept", accept(fd, nullptr, nullptr));
}

PARITY_CASE(epoll, inherited_by_fork, kOrdinary) {
  Registered r;
  Step("add", Add(r.epoll, r.fd, EPOLLOUT));
  const pid_t pid = Child([&] {
    ConnectAndWait(r.fd, PeerAt("hold"));
    Wait("child_wait", r.epoll);
    return 0;
  });
  Fact("child", "%d", WaitChild(pid));
  Wait("wait", r.epoll);
}

}  // namespace parity
