// SPDX-License-Identifier: Apache-2.0
// The swap on the real kernel: a container's connects through a real filter, listener and engine.

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "tests/support/guest_container.h"

namespace shunt {
namespace {

// A listener in the arena's host network that answers by itself: connections complete in its backlog.
class HostListener {
 public:
  explicit HostListener(const char* ip) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    address_.sin_family = AF_INET;
    inet_pton(AF_INET, ip, &address_.sin_addr);
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&address_), sizeof(address_)), 0)
        << strerror(errno);
    EXPECT_EQ(listen(fd_.get(), 1024), 0);
    socklen_t size = sizeof(address_);
    getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address_), &size);
  }
  sockaddr_in address() const { return address_; }
  // How many connections have arrived.
  int Arrived() const {
    int count = 0;
    pollfd pending{.fd = fd_.get(), .events = POLLIN};
    while (poll(&pending, 1, 0) == 1) {
      close(accept(fd_.get(), nullptr, nullptr));
      ++count;
    }
    return count;
  }

 private:
  Fd fd_;
  sockaddr_in address_{};
};

int ConnectOnce(const sockaddr_in& to, int type = 0) {
  const Fd fd(socket(AF_INET, SOCK_STREAM | type, 0));
  return connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0 ? 0 : errno;
}

constexpr char kHost[] = "203.0.113.1";

TEST(Connect, ReachesTheHostsNetworkWithoutAnyOrdinaryNetwork) {
  const HostListener listener(kHost);
  GuestContainer container;
  EXPECT_EQ(container.Run([&] { return ConnectOnce(listener.address()); }), 0) << container.error();
  EXPECT_EQ(container.Counted(Counter::accelerated), 1u) << container.locks();
  EXPECT_EQ(listener.Arrived(), 1);
}

TEST(Connect, RefusedIsRefused) {
  sockaddr_in nobody{.sin_family = AF_INET, .sin_port = htons(9)};
  inet_pton(AF_INET, kHost, &nobody.sin_addr);
  GuestContainer container;
  EXPECT_EQ(container.Run([&] { return ConnectOnce(nobody); }), ECONNREFUSED) << container.error();
}

TEST(Connect, LeavesLoopbackToTheContainer) {
  const HostListener listener("127.0.0.1");
  GuestContainer container;
  EXPECT_EQ(container.Run([&] { return ConnectOnce(listener.address()); }), ECONNREFUSED);
  EXPECT_EQ(container.Counted(Counter::accelerated), 0u);
  EXPECT_EQ(listener.Arrived(), 0);
}

TEST(Connect, NonblockingIsInProgressAndThenDone) {
  const HostListener listener(kHost);
  GuestContainer container;
  const int result = container.Run([&] {
    const Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    const sockaddr_in to = listener.address();
    if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0) return 1;
    if (errno != EINPROGRESS) return 2;
    pollfd writable{.fd = fd.get(), .events = POLLOUT};
    if (poll(&writable, 1, 5000) != 1 || (writable.revents & POLLOUT) == 0) return 3;
    int error = -1;
    socklen_t size = sizeof(error);
    getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    return error;
  });
  EXPECT_EQ(result, 0) << container.error();
  EXPECT_EQ(container.Counted(Counter::accelerated), 1u);
}

// Nobody has this address, and the host waits some seconds before it believes it.
int ConnectToNobody(timeval timeout, int handler_flags) {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  action.sa_flags = handler_flags;
  sigaction(SIGALRM, &action, nullptr);
  const itimerval soon{.it_interval = {}, .it_value = {.tv_sec = 0, .tv_usec = 200'000}};
  setitimer(ITIMER_REAL, &soon, nullptr);
  sockaddr_in nobody{.sin_family = AF_INET, .sin_port = htons(9)};
  inet_pton(AF_INET, "203.0.113.99", &nobody.sin_addr);
  const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
  return connect(fd.get(), reinterpret_cast<const sockaddr*>(&nobody), sizeof(nobody)) == 0 ? 0 : errno;
}

TEST(Connect, ASignalInterruptsOneThatWaitsWhateverItsFilterDoesWithSignals) {
  for (const bool wait_killable : {false, true}) {
    for (const timeval timeout : {timeval{.tv_sec = 0, .tv_usec = 0}, timeval{.tv_sec = 30, .tv_usec = 0}}) {
      GuestContainer container({.wait_killable = wait_killable});
      EXPECT_EQ(container.Run([&] { return ConnectToNobody(timeout, 0); }), EINTR)
          << container.error() << " killable " << wait_killable << " timeout " << timeout.tv_sec;
      EXPECT_EQ(container.Counted(Counter::accelerated), 1u);
    }
  }
}

TEST(Connect, AnInterruptedConnectDoesNotInterruptTheNextOne) {
  const HostListener listener(kHost);
  GuestContainer container;
  const int result = container.Run([&] {
    if (ConnectToNobody({.tv_sec = 30, .tv_usec = 0}, 0) != EINTR) return 1;
    return ConnectOnce(listener.address());
  });
  EXPECT_EQ(result, 0) << container.error();
}

TEST(Connect, ATwinThatWasRefusedGoesHomeForLoopback) {
  GuestContainer container;
  const int result = container.Run([&] {
    const Fd listener(socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_in inside{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(inside);
    if (bind(listener.get(), reinterpret_cast<sockaddr*>(&inside), size) != 0 ||
        listen(listener.get(), 8) != 0)
      return 1;
    getsockname(listener.get(), reinterpret_cast<sockaddr*>(&inside), &size);
    sockaddr_in nobody{.sin_family = AF_INET, .sin_port = htons(9)};
    inet_pton(AF_INET, kHost, &nobody.sin_addr);
    const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
    if (connect(fd.get(), reinterpret_cast<sockaddr*>(&nobody), sizeof(nobody)) == 0 || errno != ECONNREFUSED)
      return 2;
    return connect(fd.get(), reinterpret_cast<sockaddr*>(&inside), sizeof(inside)) == 0 ? 0 : errno;
  });
  EXPECT_EQ(result, 0) << container.error();
  EXPECT_EQ(container.Counted(Counter::accelerated), 1u);
  EXPECT_EQ(container.Counted(Counter::returned_home), 1u);
}

}  // namespace
}  // namespace shunt
