// SPDX-License-Identifier: Apache-2.0
// Sockets, as connect and bind lean on them: whose network one lives in, and what a failed connect leaves.
// Only the loopback is used.

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include <cerrno>

#include "core/fd.h"
#include "tests/facts/notifier.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71  // Linux 5.14
#endif

namespace shunt::facts {
namespace {

Fd TcpSocket(int flags = 0) {
  return Fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
}

sockaddr_in LoopbackAddress(int port_of_fd = -1) {
  sockaddr_in address{
      .sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
  socklen_t size = sizeof(address);
  if (port_of_fd >= 0) getsockname(port_of_fd, reinterpret_cast<sockaddr*>(&address), &size);
  return address;
}

int Bind(int fd) {
  const sockaddr_in address = LoopbackAddress();
  return Errno(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)));
}

int Connect(int fd, const sockaddr_in& address) {
  return Errno(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)));
}

uint64_t NetnsCookie(int fd) {
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  return getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

TEST(SocketFacts, TheCookieOfItsNetworkTellsWhereASocketWasMade) {
  const Fd first = TcpSocket(), second = TcpSocket();
  if (NetnsCookie(first.get()) == 0) GTEST_SKIP() << "this kernel has no SO_NETNS_COOKIE (Linux 5.14)";
  EXPECT_EQ(NetnsCookie(first.get()), NetnsCookie(second.get()));
  const Shared<uint64_t> elsewhere;
  Child child([&] {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) return 77;
    *elsewhere = NetnsCookie(TcpSocket().get());
    return NetnsCookie(first.get()) == *elsewhere ? 1 : 0;  // an old socket stays where it was made
  });
  const int result = child.Wait();
  if (result == 77) GTEST_SKIP() << "no network namespace is to be had here";
  EXPECT_EQ(result, 0);
  EXPECT_NE(*elsewhere, 0u);
  EXPECT_NE(*elsewhere, NetnsCookie(first.get()));
}

TEST(SocketFacts, ANonblockingConnectIsInProgressEvenWhereItCouldBeDone) {
  const Fd listener = TcpSocket(), client = TcpSocket(SOCK_NONBLOCK);
  ASSERT_EQ(Bind(listener.get()), 0);
  ASSERT_EQ(listen(listener.get(), 1), 0);
  EXPECT_EQ(Connect(client.get(), LoopbackAddress(listener.get())), -EINPROGRESS);
  EXPECT_EQ(Poll(client.get(), 0) & (POLLERR | POLLHUP), 0);
}

TEST(SocketFacts, ABlockingSocketConnectsAgainAfterItWasRefused) {
  const Fd port = TcpSocket(), client = TcpSocket();
  ASSERT_EQ(Bind(port.get()), 0);
  ASSERT_EQ(Connect(client.get(), LoopbackAddress(port.get())), -ECONNREFUSED) << "bound, but nobody listens";
  ASSERT_EQ(listen(port.get(), 1), 0);
  EXPECT_EQ(Connect(client.get(), LoopbackAddress(port.get())), 0);
}

TEST(SocketFacts, ANonblockingSocketNeedsOneThrowAwayConnectAfterItWasRefused) {
  const Fd port = TcpSocket(), client = TcpSocket(SOCK_NONBLOCK);
  ASSERT_EQ(Bind(port.get()), 0);
  ASSERT_EQ(Connect(client.get(), LoopbackAddress(port.get())), -EINPROGRESS);
  pollfd refused{.fd = client.get(), .events = POLLOUT, .revents = 0};
  ASSERT_EQ(poll(&refused, 1, 10'000), 1);
  int error = 0;
  socklen_t size = sizeof(error);
  ASSERT_EQ(getsockopt(client.get(), SOL_SOCKET, SO_ERROR, &error, &size), 0);
  EXPECT_EQ(error, ECONNREFUSED);
  ASSERT_EQ(listen(port.get(), 1), 0);
  EXPECT_EQ(Connect(client.get(), LoopbackAddress(port.get())), -ECONNABORTED);
  EXPECT_EQ(Connect(client.get(), LoopbackAddress(port.get())), -EINPROGRESS);
}

}  // namespace
}  // namespace shunt::facts
