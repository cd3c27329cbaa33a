// SPDX-License-Identifier: Apache-2.0
// A container that publishes a port may reach its own listener on the host's loopback. It must not reach a
// stranger there who has the port instead, not even by exchanging the descriptor between our look and the
// kernel's.

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "tests/support/guest_container.h"
#include "tests/support/tcp_probe.h"

namespace shunt {
namespace {

using testing_support::Accept;
using testing_support::Address;
using testing_support::Disconnect;
using testing_support::Drops;
using testing_support::Listener;
using testing_support::TcpSocket;

constexpr uint16_t kHostPort = 8080;
constexpr int kTries = 300'000;

enum Result { kDropped = 0, kNoTwin = 1, kNeverWon = 2, kConnected = 3 };

// Calls connect(2) on a descriptor that is an AF_UNIX socket when we look, which we leave to the kernel, and
// with luck an unconnected twin when the kernel does.
int Attack() {
  const Fd twin = TcpSocket();
  const net::SockAddr refused = Address("203.0.113.1", 9, AF_INET);
  connect(twin.get(), refused.data(), refused.size());
  uint64_t netns = 0, own_netns = 0;
  const Fd other(socket(AF_UNIX, SOCK_STREAM, 0));
  socklen_t size = sizeof(netns);
  getsockopt(twin.get(), SOL_SOCKET, SO_NETNS_COOKIE, &netns, &size);
  getsockopt(other.get(), SOL_SOCKET, SO_NETNS_COOKIE, &own_netns, &size);
  if (netns == own_netns) return kNoTwin;
  const Fd target(dup(other.get()));
  std::atomic<bool> stop = false;
  std::thread exchange([&] {
    while (!stop) {
      dup2(twin.get(), target.get());
      dup2(other.get(), target.get());
    }
  });
  const net::SockAddr stranger = Address("127.0.0.1", kHostPort, AF_INET);
  int result = kNeverWon;
  Disconnect(twin.get());
  const uint32_t before = Drops(twin.get());
  for (int i = 0; i < kTries && result == kNeverWon; ++i) {
    connect(target.get(), stranger.data(), stranger.size());
    if (Drops(twin.get()) != before) result = kDropped;
    if (testing_support::TcpState(twin.get()) == TCP_ESTABLISHED) result = kConnected;
  }
  stop = true;
  exchange.join();
  return result;
}

TEST(OwnPort, AStrangerWhoHasThePortIsNotReachedByExchangingDescriptors) {
  const Fd stranger = Listener("127.0.0.1", kHostPort);
  ASSERT_TRUE(stranger.valid());
  GuestContainer container({.publish = {*net::ParsePublish("8080:80")}});
  const int result = container.Run(Attack);
  ASSERT_NE(result, kNoTwin) << container.locks();
  EXPECT_NE(result, kConnected);
  EXPECT_FALSE(Accept(stranger.get()).valid());
  if (result == kNeverWon)
    GTEST_SKIP() << "the race was not won in " << kTries << " tries, so nothing was shown";
  EXPECT_EQ(result, kDropped) << container.error();
}

}  // namespace
}  // namespace shunt
