// SPDX-License-Identifier: Apache-2.0
// What a locked socket lets through: its published ports, its own peers, and on random policies and peers
// just what the policy says. The attacks on it are in lock_test.cc.

#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "net/lock.h"
#include "tests/hostile/lock_fixture.h"

namespace shunt::net {
namespace {

TEST_F(LockTest, ListensOnItsPublishedPortOnly) {
  const Fd published = Twin(true, AF_INET6);
  ASSERT_TRUE(Bind(published.get(), Address("::", kPublished, AF_INET6)));
  ASSERT_EQ(::listen(published.get(), 8), 0);
  const Fd other = Twin(true, AF_INET6);
  ASSERT_TRUE(Bind(other.get(), Address("::", kPublished + 1, AF_INET6)));
  ASSERT_EQ(::listen(other.get(), 8), 0);
  for (const char* const ip : {kHost, kHost6, "127.0.0.1", "::1", kIgnored, kIgnored6}) {
    const sa_family_t family = Ip(ip).IsV4() ? AF_INET : AF_INET6;
    const Fd client = TcpSocket(family);
    EXPECT_EQ(Connect(client.get(), Address(ip, kPublished, family), published.get()), Outcome::kConnected)
        << ip;
    EXPECT_TRUE(Accept(published.get()).valid()) << ip;
    const Fd stranger = TcpSocket(family);
    EXPECT_EQ(Connect(stranger.get(), Address(ip, kPublished + 1, family), other.get()), Outcome::kDropped)
        << ip;
  }
}

TEST_F(LockTest, AClientOfAnyNetworkCanCloseAndReset) {
  const Fd published = Twin(true);
  ASSERT_TRUE(Bind(published.get(), Address("0.0.0.0", kPublished, AF_INET)));
  ASSERT_EQ(::listen(published.get(), 8), 0);
  Fd client = TcpSocket();
  ASSERT_EQ(Connect(client.get(), Address("127.0.0.1", kPublished, AF_INET), published.get()),
            Outcome::kConnected);
  const Fd child = Accept(published.get());
  ASSERT_TRUE(child.valid());
  const linger reset = {.l_onoff = 1, .l_linger = 0};
  ASSERT_EQ(::setsockopt(client.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
  client.reset();
  EXPECT_TRUE(Eventually([&] { return TcpState(child.get()) == TCP_CLOSE; }));
  EXPECT_EQ(GetInt(child.get(), SOL_SOCKET, SO_ERROR), ECONNRESET);
}

TEST_F(LockTest, APortPublishedOnOneAddressIsDeafOnOthers) {
  LockPolicy policy = ContainersPolicy();
  policy.listen = {{Ip("127.0.0.1"), kPublished}, {Ip(kHost6), kPublished}};
  const SocketLock lock = Load(policy);
  const Fd twin = TcpSocket(AF_INET6);
  ASSERT_TRUE(lock.Attach(twin.get()));
  ASSERT_TRUE(Bind(twin.get(), Address("::", kPublished, AF_INET6)));  // more than it is published on
  ASSERT_EQ(::listen(twin.get(), 8), 0);
  const auto outcome = [&](const char* ip) {
    const sa_family_t family = Ip(ip).IsV4() ? AF_INET : AF_INET6;
    return Connect(TcpSocket(family).get(), Address(ip, kPublished, family), twin.get());
  };
  EXPECT_EQ(outcome("127.0.0.1"), Outcome::kConnected);
  EXPECT_EQ(outcome(kHost6), Outcome::kConnected);
  EXPECT_EQ(outcome(kHost), Outcome::kDropped);
  EXPECT_EQ(outcome("127.0.0.2"), Outcome::kDropped);
  EXPECT_EQ(outcome("::1"), Outcome::kDropped);
}

TEST_F(LockTest, AcceptedConnectionsInheritTheLock) {
  const Fd published = Twin(true);
  ASSERT_TRUE(Bind(published.get(), Address("0.0.0.0", kPublished, AF_INET)));
  ASSERT_EQ(::listen(published.get(), 8), 0);
  const Fd client = TcpSocket();
  ASSERT_EQ(Connect(client.get(), Address(kHost, kPublished, AF_INET), published.get()), Outcome::kConnected);
  const Fd child = Accept(published.get());
  ASSERT_TRUE(child.valid());
  EXPECT_EQ(GetInt(child.get(), SOL_SOCKET, SO_LOCK_FILTER), 1);
  EXPECT_FALSE(SetInt(child.get(), SOL_SOCKET, SO_DETACH_FILTER, 0));
  ASSERT_TRUE(Disconnect(child.get()));
  EXPECT_EQ(Connect(child.get(), Address("127.0.0.1", secret_port_, AF_INET)), Outcome::kDropped);
}

TEST_F(LockTest, TheContainersOwnPublishedPortIsReachedOnLoopback) {
  const Fd published = Twin(true);
  ASSERT_TRUE(Bind(published.get(), Address("0.0.0.0", kPublished, AF_INET)));
  ASSERT_EQ(::listen(published.get(), 8), 0);
  EXPECT_EQ(Connect(Twin(true).get(), Address("127.0.0.1", kPublished, AF_INET)), Outcome::kConnected);
  // On another loopback address it is not the one that was allowed.
  EXPECT_EQ(Connect(Twin(true).get(), Address("127.0.0.2", kPublished, AF_INET)), Outcome::kDropped);
}

TEST_F(LockTest, ASecondConnectOfAClientsPortIsAnsweredOnAnAcceptedSocket) {
  // A client that crashed and connects again from the same port gets a challenge ACK for its SYN, not
  // silence, or it could not get through until the old connection times out. Seen here as a SYN in
  // ESTABLISHED that is not dropped.
  const Fd published = Twin(true);
  ASSERT_TRUE(Bind(published.get(), Address("0.0.0.0", kPublished, AF_INET)));
  ASSERT_EQ(::listen(published.get(), 8), 0);
  Fd client = TcpSocket();
  ASSERT_EQ(Connect(client.get(), Address("127.0.0.1", kPublished, AF_INET), published.get()),
            Outcome::kConnected);
  const Fd child = Accept(published.get());
  const SockAddr from = Address("127.0.0.1", LocalPort(client.get()), AF_INET);
  // Crash: vanish without a packet, by the repair mode that checkpointing uses.
  ASSERT_TRUE(SetInt(client.get(), IPPROTO_TCP, TCP_REPAIR, 1));
  client.reset();
  ASSERT_EQ(TcpState(child.get()), TCP_ESTABLISHED);
  const Fd again = TcpSocket();
  ASSERT_TRUE(Bind(again.get(), from));
  // The challenge makes the new client reset the old connection; its next SYN then finds the listener.
  EXPECT_EQ(Connect(again.get(), Address("127.0.0.1", kPublished, AF_INET)), Outcome::kConnected);
  EXPECT_EQ(TcpState(child.get()), TCP_CLOSE);
}

// Networks and addresses near each other, so that prefixes of every length decide.
IpAddress RandomLocalAddress(std::mt19937& random, sa_family_t family) {
  if (family == AF_INET) {
    in_addr address = {htonl(0x0a000000u | (random() & 0x00030303u))};
    return IpAddress::FromV4(address);
  }
  const uint64_t high = 0xfd01000000000000u | (random() & 0x3u) << 32 | (random() & 0x3u);
  const uint64_t low = uint64_t{random() & 0x3u} << 62 | uint64_t{random() & 0x3u} << 31 | (random() & 0x3u);
  return {high, low};
}

TEST_F(LockTest, AgreesWithThePolicyOnRandomNetworksAndPeers) {
  std::mt19937 random(7);
  const Fd listeners[] = {Listener("::"), Listener("::")};
  ASSERT_TRUE(listeners[0].valid() && listeners[1].valid());
  int allowed = 0, denied = 0, own = 0;
  for (int round = 0; round < 60; ++round) {
    LockPolicy policy;
    for (int i = 0; i < 12; ++i) {
      const sa_family_t family = random() % 2 ? AF_INET : AF_INET6;
      const int longest = family == AF_INET ? 32 : 128;
      const int shortest = family == AF_INET ? 8 : 20;
      const int length =
          i == 0 && round % 20 == 0 ? 0 : longest - static_cast<int>(random() % (longest - shortest));
      if (!policy.deny.Add(Subnet(RandomLocalAddress(random, family), length))) break;
    }
    for (int i = 0; i < 16; ++i) {
      policy.self.push_back({RandomLocalAddress(random, random() % 2 ? AF_INET : AF_INET6),
                             LocalPort(listeners[random() % 2].get())});
    }
    const SocketLock lock = Load(policy);
    for (int i = 0; i < 30; ++i) {
      const sa_family_t family = random() % 2 ? AF_INET : AF_INET6;
      const IpAddress ip =
          i % 3 == 0 ? policy.self[random() % policy.self.size()].ip : RandomLocalAddress(random, family);
      const Fd& listener = listeners[random() % 2];
      const SockAddr to(ip, LocalPort(listener.get()), AF_INET6);
      const bool is_self = std::count(policy.self.begin(), policy.self.end(), Endpoint{ip, to.port()}) > 0;
      const bool is_denied = policy.deny.Contains(ip);
      const Fd twin = TcpSocket(AF_INET6);
      ASSERT_TRUE(lock.Attach(twin.get()));
      EXPECT_EQ(Connect(twin.get(), to), is_denied && !is_self ? Outcome::kDropped : Outcome::kConnected)
          << to.ToString();
      ++(is_denied ? (is_self ? own : denied) : allowed);
      while (Accept(listener.get()).valid()) {
      }
    }
  }
  EXPECT_GT(allowed, 100);
  EXPECT_GT(denied, 100);
  EXPECT_GT(own, 100);
}

TEST_F(LockTest, AgreesWithThePolicyOnRandomPublishedEndpoints) {
  std::mt19937 random(8);
  int open = 0, deaf = 0;
  for (int round = 0; round < 60; ++round) {
    const Fd twin = TcpSocket(AF_INET6);
    ASSERT_TRUE(Bind(twin.get(), Address("::", 0, AF_INET6)));
    const uint16_t port = LocalPort(twin.get());
    LockPolicy policy;
    for (int i = 0; i < 20; ++i) {
      const bool any = random() % 40 == 0;
      const sa_family_t family = random() % 2 ? AF_INET : AF_INET6;
      const IpAddress ip =
          any ? Ip(family == AF_INET ? "0.0.0.0" : "::") : RandomLocalAddress(random, family);
      policy.listen.push_back({ip, static_cast<uint16_t>(port + random() % 2)});
    }
    const SocketLock lock = Load(policy);
    ASSERT_TRUE(lock.Attach(twin.get()));
    ASSERT_EQ(::listen(twin.get(), 64), 0);
    for (int i = 0; i < 20; ++i) {
      IpAddress ip = policy.listen[random() % policy.listen.size()].ip;
      if (i % 2 || ip.IsUnspecified()) ip = RandomLocalAddress(random, random() % 2 ? AF_INET : AF_INET6);
      const IpAddress any = Ip(ip.IsV4() ? "0.0.0.0" : "::");
      const bool published =
          std::any_of(policy.listen.begin(), policy.listen.end(), [&](const Endpoint& endpoint) {
            return endpoint.port == port && (endpoint.ip == ip || endpoint.ip == any);
          });
      const SockAddr to(ip, port, AF_INET6);
      EXPECT_EQ(Connect(TcpSocket(AF_INET6).get(), to, twin.get()),
                published ? Outcome::kConnected : Outcome::kDropped)
          << to.ToString();
      ++(published ? open : deaf);
      while (Accept(twin.get()).valid()) {
      }
    }
  }
  EXPECT_GT(open, 100);
  EXPECT_GT(deaf, 100);
}

TEST_F(LockTest, TheLargestPolicyFitsOnEveryKernelsSockets) {
  LockPolicy policy;
  while (policy.deny.size() < SubnetSet::kCapacity) {
    // Prefixes that end in the last word take the most instructions.
    ASSERT_TRUE(policy.deny.Add(Subnet(IpAddress(0xfd02, uint64_t{policy.deny.size()} << 8), 127)));
  }
  policy.self.resize(LockPolicy::kMaxEndpoints, {Ip("fd01::1"), 1});
  policy.listen = policy.self;
  policy.listen.back() = {Ip("::"), kPublished};
  const absl::StatusOr<Fd> program = LoadLockProgramOurselves(policy);
  ASSERT_TRUE(program.ok()) << program.status();
  bpf_prog_info info = {};
  bpf_attr attr;
  std::memset(&attr, 0, sizeof(attr));
  attr.info.bpf_fd = static_cast<uint32_t>(program->get());
  attr.info.info_len = sizeof(info);
  attr.info.info = reinterpret_cast<uintptr_t>(&info);
  ASSERT_EQ(::syscall(SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &attr, sizeof(attr)), 0);
  // optmem_max was 20480 until 6.7, and the socket's own options share it.
  EXPECT_LT(info.xlated_prog_len, 20480u * 2 / 3);
  const Fd twin = TcpSocket(AF_INET6);
  ASSERT_TRUE(SetInt(twin.get(), SOL_SOCKET, SO_ATTACH_BPF, program->get()));
  ASSERT_TRUE(Bind(twin.get(), Address("::", kPublished, AF_INET6)));
  ASSERT_EQ(::listen(twin.get(), 8), 0);
  const Fd client = TcpSocket(AF_INET6);
  EXPECT_EQ(Connect(client.get(), Address("fd01::77", kPublished, AF_INET6), twin.get()),
            Outcome::kConnected);
  EXPECT_TRUE(Accept(twin.get()).valid());
}

}  // namespace
}  // namespace shunt::net
