// SPDX-License-Identifier: Apache-2.0
// Attacks of a container on the lock of a socket that it owns in the host's network.
//
// Each attack runs twice: on a locked socket, where it must get nowhere, and on one without a lock, where it
// must succeed, so that we know it to be an attack. Runs as root in tests/support/arena: every address
// of 10.0.0.0/8 and fd01::/16 is made local there, so that real packets can come from anywhere.

#include "net/lock.h"

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/wait.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <sstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/hostile/lock_fixture.h"

namespace shunt::net {
namespace {

// Runs `attack` in a child that is root of its own user and network namespaces, as a container is. The result
// is what the attack returns, 0 to 99.
int AsContainerRoot(const std::function<int()>& attack) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setresgid(7331, 7331, 7331) != 0 || ::setresuid(7331, 7331, 7331) != 0 ||
        ::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) {
      ::_exit(100);
    }
    // Unsharing gives every capability in the new namespace; a mapping is only needed to be called root.
    ::_exit(attack());
  }
  int status = 0;
  SHUNT_CHECK(child > 0 && ::waitpid(child, &status, 0) == child && WIFEXITED(status));
  return WEXITSTATUS(status);
}

uint16_t Checksum(const std::string& data) {
  uint32_t sum = 0;
  for (size_t i = 0; i < data.size(); i += 2) {
    sum += static_cast<uint8_t>(data[i]) << 8 | (i + 1 < data.size() ? static_cast<uint8_t>(data[i + 1]) : 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return htons(static_cast<uint16_t>(~sum));
}

// Sends a TCP segment that no socket would send.
void Forge(const SockAddr& from, const SockAddr& to, uint8_t flags) {
  tcphdr tcp = {};
  tcp.source = htons(from.port());
  tcp.dest = htons(to.port());
  tcp.doff = sizeof(tcp) / 4;
  tcp.th_seq = htonl(1);
  tcp.th_ack = htonl(1);
  tcp.th_flags = flags;
  tcp.window = htons(1024);
  iphdr ip = {};
  ip.version = 4;
  ip.ihl = sizeof(ip) / 4;
  ip.ttl = 64;
  ip.protocol = IPPROTO_TCP;
  ip.saddr = from.ip().ToV4().s_addr;
  ip.daddr = to.ip().ToV4().s_addr;
  const auto bytes = [](const auto& value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  const uint16_t tcp_size = htons(sizeof(tcp));
  tcp.th_sum =
      Checksum(bytes(ip.saddr) + bytes(ip.daddr) + std::string("\0\x06", 2) + bytes(tcp_size) + bytes(tcp));
  const std::string packet =
      bytes(ip) + bytes(tcp);  // the kernel fills in the length and the sum of the IP header
  const Fd raw(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
  SHUNT_CHECK(::sendto(raw.get(), packet.data(), packet.size(), 0, to.data(), to.size()) ==
              static_cast<ssize_t>(packet.size()));
}

// A counter of this network namespace, from /proc/net/netstat: a line of names, then a line of values.
uint64_t NetCounter(const std::string& name) {
  std::ifstream file("/proc/net/netstat");
  std::string names_line, values_line;
  while (std::getline(file, names_line) && std::getline(file, values_line)) {
    std::istringstream names(names_line), values(values_line);
    std::string column, value;
    while (names >> column && values >> value) {
      if (column == name) return std::stoull(value);
    }
  }
  ADD_FAILURE() << "no counter " << name;
  return 0;
}

TEST_F(LockTest, AllowedPeersAreReached) {
  EXPECT_EQ(Connect(Twin(true).get(), Address(kHost, allowed_port_, AF_INET)), Outcome::kConnected);
  EXPECT_EQ(Connect(Twin(true, AF_INET6).get(), Address(kHost, allowed_port_, AF_INET6)),
            Outcome::kConnected);
  const Fd allowed6 = Listener(kHost6);
  EXPECT_EQ(Connect(Twin(true, AF_INET6).get(), Address(kHost6, LocalPort(allowed6.get()), AF_INET6)),
            Outcome::kConnected);
}

TEST_F(LockTest, DataFlowsBothWaysThroughALockedConnection) {
  const Fd twin = Twin(true);
  ASSERT_EQ(Connect(twin.get(), Address(kHost, allowed_port_, AF_INET)), Outcome::kConnected);
  const Fd peer = Accept(allowed_.get());
  ASSERT_TRUE(peer.valid());
  std::string data(1 << 20, 'x'), received_there, received_here;
  const auto pump = [&](int from, int to, std::string& received) {
    size_t sent = 0;
    std::array<char, 65536> buffer;
    return Eventually([&] {
      if (sent < data.size()) {
        const ssize_t n = ::send(from, data.data() + sent, data.size() - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) sent += static_cast<size_t>(n);
      }
      const ssize_t n = ::recv(to, buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (n > 0) received.append(buffer.data(), static_cast<size_t>(n));
      return received.size() >= data.size();
    });
  };
  EXPECT_TRUE(pump(twin.get(), peer.get(), received_there));
  EXPECT_TRUE(pump(peer.get(), twin.get(), received_here));
  EXPECT_EQ(received_there, data);
  EXPECT_EQ(received_here, data);
}

TEST_F(LockTest, LoopbackIsNotReachedInAnySpelling) {
  struct Case {
    sa_family_t family;
    const char* ip;
    uint16_t port;
  };
  const Case cases[] = {
      {AF_INET, "127.0.0.1", secret_port_},  {AF_INET, "0.0.0.0", secret_port_},
      {AF_INET6, "127.0.0.1", secret_port_}, {AF_INET6, "0.0.0.0", secret_port_},
      {AF_INET6, "::1", secret6_port_},      {AF_INET6, "::", secret6_port_},
  };
  for (const Case& c : cases) {
    const SockAddr address = Address(c.ip, c.port, c.family);
    EXPECT_EQ(Connect(Twin(true, c.family).get(), address), Outcome::kDropped) << address.ToString();
    EXPECT_EQ(Connect(Twin(false, c.family).get(), address), Outcome::kConnected) << address.ToString();
  }
}

TEST_F(LockTest, IgnoredNetworksAreNotReached) {
  const Fd v4 = Listener(kIgnored);
  const Fd v6 = Listener("::");  // fd01::/16 is local by a route only, which bind does not accept
  ASSERT_TRUE(v4.valid() && v6.valid());
  const SockAddr to4 = Address(kIgnored, LocalPort(v4.get()), AF_INET);
  const SockAddr to6 = Address(kIgnored6, LocalPort(v6.get()), AF_INET6);
  EXPECT_EQ(Connect(Twin(true).get(), to4), Outcome::kDropped);
  EXPECT_EQ(Connect(Twin(false).get(), to4), Outcome::kConnected);
  EXPECT_EQ(Connect(Twin(true, AF_INET6).get(), to6), Outcome::kDropped);
  EXPECT_EQ(Connect(Twin(false, AF_INET6).get(), to6), Outcome::kConnected);
}

TEST_F(LockTest, AConnectedSocketCannotBeReAimed) {
  for (const bool locked : {true, false}) {
    const Fd twin = Twin(locked);
    ASSERT_EQ(Connect(twin.get(), Address(kHost, allowed_port_, AF_INET)), Outcome::kConnected);
    ASSERT_TRUE(Disconnect(twin.get()));
    EXPECT_EQ(Connect(twin.get(), Address("127.0.0.1", secret_port_, AF_INET)),
              locked ? Outcome::kDropped : Outcome::kConnected);
  }
}

TEST_F(LockTest, ARefusedSocketCannotBeReAimed) {
  Fd gone = Listener(kHost);
  const SockAddr closed_port = Address(kHost, LocalPort(gone.get()), AF_INET);
  gone.reset();
  for (const bool locked : {true, false}) {
    const Fd twin = Twin(locked);
    ASSERT_EQ(Connect(twin.get(), closed_port), Outcome::kRefused);
    GetInt(twin.get(), SOL_SOCKET, SO_ERROR);
    Disconnect(twin.get());
    EXPECT_EQ(Connect(twin.get(), Address("127.0.0.1", secret_port_, AF_INET)),
              locked ? Outcome::kDropped : Outcome::kConnected);
  }
}

TEST_F(LockTest, ASocketShutDownWhileConnectingCannotBeReAimed) {
  for (const bool locked : {true, false}) {
    const Fd twin = Twin(locked);
    const SockAddr silent = Address(kSilent, 80, AF_INET);
    ASSERT_EQ(::connect(twin.get(), silent.data(), silent.size()), -1);
    ASSERT_EQ(errno, EINPROGRESS);
    ::shutdown(twin.get(), SHUT_RDWR);
    Disconnect(twin.get());
    EXPECT_EQ(Connect(twin.get(), Address("127.0.0.1", secret_port_, AF_INET)),
              locked ? Outcome::kDropped : Outcome::kConnected);
  }
}

TEST_F(LockTest, ASocketShutDownWhileConnectingListensToNobody) {
  for (const bool locked : {true, false}) {
    const Fd twin = Twin(locked);
    const SockAddr silent = Address(kSilent, 80, AF_INET);
    ASSERT_EQ(::connect(twin.get(), silent.data(), silent.size()), -1);
    ::shutdown(twin.get(), SHUT_RDWR);
    Disconnect(twin.get());
    ASSERT_EQ(::listen(twin.get(), 8), 0) << std::strerror(errno);
    const uint16_t port = LocalPort(twin.get());
    for (const char* const ip : {kHost, "127.0.0.1", kIgnored}) {
      const Fd client = TcpSocket();
      EXPECT_EQ(Connect(client.get(), Address(ip, port, AF_INET), twin.get()),
                locked ? Outcome::kDropped : Outcome::kConnected)
          << ip;
    }
    EXPECT_EQ(Accept(twin.get()).valid(), !locked);
  }
}

TEST_F(LockTest, SynCookiesDoNotOpenADeafListener) {
  // With 2 the kernel answers every SYN by a cookie, and the connection comes about by the bare ACK.
  WriteFile("/proc/sys/net/ipv4/tcp_syncookies", "2");
  for (const bool locked : {true, false}) {
    const Fd twin = Twin(locked);
    ASSERT_EQ(::listen(twin.get(), 8), 0);
    const Fd client = TcpSocket();
    EXPECT_EQ(Connect(client.get(), Address(kHost, LocalPort(twin.get()), AF_INET), twin.get()),
              locked ? Outcome::kDropped : Outcome::kConnected);
  }
  const Fd published = Twin(true);
  ASSERT_TRUE(Bind(published.get(), Address("0.0.0.0", kPublished, AF_INET)));
  ASSERT_EQ(::listen(published.get(), 8), 0);
  const Fd client = TcpSocket();
  EXPECT_EQ(Connect(client.get(), Address(kHost, kPublished, AF_INET), published.get()), Outcome::kConnected);
  EXPECT_TRUE(Eventually([&] { return Accept(published.get()).valid(); }));
  WriteFile("/proc/sys/net/ipv4/tcp_syncookies", "1");
}

TEST_F(LockTest, ABareAckDoesNotReachADeafListener) {
  // It could carry a valid SYN cookie, got elsewhere: a network namespace of the attacker's own makes the
  // same cookies.
  const Fd twin = Twin(true);
  ASSERT_EQ(::listen(twin.get(), 8), 0);
  const uint32_t drops = Drops(twin.get());
  Forge(Address(kHost, 1234, AF_INET), Address(kHost, LocalPort(twin.get()), AF_INET), TH_ACK);
  EXPECT_TRUE(Eventually([&] { return Drops(twin.get()) == drops + 1; }));
}

TEST_F(LockTest, ASynAckOfADeniedNetworkIsDroppedInEveryState) {
  // The state is read without the socket's lock, so no state may be what an answer needs to get through.
  const Fd published = Twin(true);
  ASSERT_TRUE(Bind(published.get(), Address("0.0.0.0", kPublished, AF_INET)));
  ASSERT_EQ(::listen(published.get(), 8), 0);
  const Fd client = TcpSocket();
  const SockAddr to = Address("127.0.0.1", kPublished, AF_INET);
  ASSERT_EQ(Connect(client.get(), to, published.get()), Outcome::kConnected);
  const Fd child = Accept(published.get());
  ASSERT_EQ(TcpState(child.get()), TCP_ESTABLISHED);
  const uint32_t drops = Drops(child.get());
  const uint64_t seen_by_tcp = NetCounter("TCPSYNChallenge");
  Forge(Address("127.0.0.1", LocalPort(client.get()), AF_INET), to, TH_SYN | TH_ACK);
  EXPECT_TRUE(Eventually([&] { return Drops(child.get()) == drops + 1; }));
  EXPECT_EQ(NetCounter("TCPSYNChallenge"), seen_by_tcp);
}

TEST_F(LockTest, ASimultaneousOpenDoesNotPass) {
  // A socket that connects to itself opens simultaneously: it gets its own SYN while it waits for an answer.
  for (const bool locked : {true, false}) {
    const Fd twin = Twin(locked);
    ASSERT_TRUE(Bind(twin.get(), Address("127.0.0.1", 0, AF_INET)));
    EXPECT_EQ(Connect(twin.get(), Address("127.0.0.1", LocalPort(twin.get()), AF_INET)),
              locked ? Outcome::kDropped : Outcome::kConnected);
  }
}

TEST_F(LockTest, AConnectOfTheHostDoesNotMeetAConnectingTwin) {
  // The twin aims at a loopback port where nobody is; the refusal is dropped, so it goes on waiting there.
  // Then somebody on the host connects from just that port.
  const Fd victim = TcpSocket();
  ASSERT_TRUE(Bind(victim.get(), Address("127.0.0.1", 0, AF_INET)));
  const Fd twin = Twin(true);
  ASSERT_TRUE(Bind(twin.get(), Address("127.0.0.1", 0, AF_INET)));
  ASSERT_EQ(Connect(twin.get(), Address("127.0.0.1", LocalPort(victim.get()), AF_INET)), Outcome::kDropped);
  EXPECT_EQ(Connect(victim.get(), Address("127.0.0.1", LocalPort(twin.get()), AF_INET), twin.get()),
            Outcome::kDropped);
  EXPECT_EQ(TcpState(twin.get()), TCP_SYN_SENT);
}

TEST_F(LockTest, AForbiddenNetworksOpenPortsCannotBeTold) {
  Fd gone = Listener("127.0.0.1");
  const SockAddr closed_port = Address("127.0.0.1", LocalPort(gone.get()), AF_INET);
  gone.reset();
  EXPECT_EQ(Connect(Twin(true).get(), closed_port), Outcome::kDropped);
  EXPECT_EQ(Connect(Twin(false).get(), closed_port), Outcome::kRefused);
  // A source port that is published does not help.
  const Fd bound = Twin(true);
  ASSERT_TRUE(Bind(bound.get(), Address("0.0.0.0", kPublished, AF_INET)));
  EXPECT_EQ(Connect(bound.get(), closed_port), Outcome::kDropped);
}

TEST_F(LockTest, RetransmissionsAreDroppedToo) {
  const Fd twin = Twin(true);
  ASSERT_EQ(Connect(twin.get(), Address("127.0.0.1", secret_port_, AF_INET)), Outcome::kDropped);
  // Both ends repeat themselves after a second.
  EXPECT_TRUE(Eventually([&] { return Drops(twin.get()) >= 3; }));
  EXPECT_EQ(TcpState(twin.get()), TCP_SYN_SENT);
  EXPECT_FALSE(Accept(secret_.get()).valid());
}

TEST_F(LockTest, AFastOpenDoesNotComplete) {
  for (const bool locked : {true, false}) {
    const Fd twin = Twin(locked);
    const SockAddr to = Address("127.0.0.1", secret_port_, AF_INET);
    const uint32_t drops = Drops(twin.get());
    ::sendto(twin.get(), "x", 1, MSG_FASTOPEN | MSG_NOSIGNAL, to.data(), to.size());
    EXPECT_TRUE(
        Eventually([&] { return TcpState(twin.get()) == TCP_ESTABLISHED || Drops(twin.get()) != drops; }));
    EXPECT_EQ(TcpState(twin.get()), locked ? TCP_SYN_SENT : TCP_ESTABLISHED);
    EXPECT_EQ(Accept(secret_.get()).valid(), !locked);
  }
}

TEST_F(LockTest, DataInASynLeavesInSpiteOfTheLock) {
  // Not an attack that is stopped, but the known limit: the lock sees what arrives only. With a Fast Open
  // cookie, or where the host asks for none as here, a listener that wants it gets the data of a SYN before
  // any handshake. This is why MSG_FASTOPEN and TCP_FASTOPEN_CONNECT are refused by register value on a
  // container's socket.
  WriteFile("/proc/sys/net/ipv4/tcp_fastopen", absl::StrCat(0x1 | 0x2 | 0x4 | 0x200));
  ASSERT_TRUE(SetInt(secret_.get(), IPPROTO_TCP, TCP_FASTOPEN, 8));
  const Fd twin = Twin(true);
  const SockAddr to = Address("127.0.0.1", secret_port_, AF_INET);
  ::sendto(twin.get(), "x", 1, MSG_FASTOPEN | MSG_NOSIGNAL, to.data(), to.size());
  Fd child;
  ASSERT_TRUE(Eventually([&] {
    child = Accept(secret_.get());
    return child.valid();
  }));
  char byte = 0;
  EXPECT_EQ(::recv(child.get(), &byte, 1, 0), 1);
  EXPECT_EQ(TcpState(twin.get()), TCP_SYN_SENT);  // and never learns of it
  WriteFile("/proc/sys/net/ipv4/tcp_fastopen", "1");
}

TEST_F(LockTest, NobodyTakesTheLockOff) {
  const Fd twin = Twin(true);
  const SocketLock other = Load({});  // denies nothing
  ASSERT_TRUE(other.Attach(TcpSocket().get()));
  sock_filter accept_all[] = {{BPF_RET | BPF_K, 0, 0, 0xffffffff}};
  const sock_fprog classic = {.len = 1, .filter = accept_all};
  const auto attack = [&] {
    int failures = 0;
    const auto refused = [&](bool succeeded) {
      if (succeeded || errno != EPERM) ++failures;
    };
    refused(SetInt(twin.get(), SOL_SOCKET, SO_LOCK_FILTER, 0));
    refused(SetInt(twin.get(), SOL_SOCKET, SO_DETACH_FILTER, 0));
    refused(SetInt(twin.get(), SOL_SOCKET, SO_DETACH_BPF, 0));
    refused(::setsockopt(twin.get(), SOL_SOCKET, SO_ATTACH_FILTER, &classic, sizeof(classic)) == 0);
    refused(other.Attach(twin.get()).has_value());
    return failures;
  };
  EXPECT_EQ(AsContainerRoot(attack), 0);
  EXPECT_EQ(attack(), 0) << "by the machine's root";
  EXPECT_EQ(Connect(twin.get(), Address("127.0.0.1", secret_port_, AF_INET)), Outcome::kDropped);
}

TEST_F(LockTest, AContainersRootReachesNothingByALockedSocket) {
  // Under capabilities that count for nothing in the host's network, by calls of every kind.
  for (const bool locked : {true, false}) {
    const Fd twin = Twin(locked);
    const int result = AsContainerRoot([&] {
      SetInt(twin.get(), SOL_SOCKET, SO_MARK, 1);
      SetInt(twin.get(), IPPROTO_TCP, TCP_REPAIR, 1);
      SetInt(twin.get(), IPPROTO_IP, IP_TRANSPARENT, 1);
      return Connect(twin.get(), Address("127.0.0.1", secret_port_, AF_INET)) == Outcome::kConnected ? 1 : 0;
    });
    EXPECT_EQ(result, locked ? 0 : 1);
  }
}

// Two threads pull one socket to and fro, until the secret listener gets a connection. Returns how many it
// got.
int RaceForTheSecret(int twin_fd, int secret_fd, const SockAddr& allowed, const SockAddr& secret, int tries) {
  std::atomic<bool> stop = false;
  std::thread confuser([&] {
    while (!stop) {
      Disconnect(twin_fd);
      ::connect(twin_fd, allowed.data(), allowed.size());
    }
  });
  int reached = 0;
  for (int i = 0; i < tries && reached == 0; ++i) {
    Disconnect(twin_fd);
    ::connect(twin_fd, secret.data(), secret.size());
    while (Accept(secret_fd).valid()) ++reached;
  }
  stop = true;
  confuser.join();
  while (Accept(secret_fd).valid()) ++reached;
  return reached;
}

TEST_F(LockTest, RacingConnectsGetNowhere) {
  const SockAddr allowed = Address(kHost, allowed_port_, AF_INET);
  const SockAddr secret = Address("127.0.0.1", secret_port_, AF_INET);
  // Whoever loses interest in accepting makes the peer's queue full, which slows the race; so drain it.
  std::atomic<bool> stop = false;
  std::thread acceptor([&] {
    while (!stop) Accept(allowed_.get());
  });
  EXPECT_EQ(RaceForTheSecret(Twin(true).get(), secret_.get(), allowed, secret, 20000), 0);
  EXPECT_GT(RaceForTheSecret(Twin(false).get(), secret_.get(), allowed, secret, 20000), 0);
  stop = true;
  acceptor.join();
}

}  // namespace
}  // namespace shunt::net

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (std::getenv("ARENA_HOST") == nullptr) {
    std::puts(
        "skipped: run as tests/support/arena -- lock_test, since it changes the network that it runs in");
    return 77;
  }
  const absl::Status loads = shunt::net::LoadLockProgramOurselves({}).status();
  if (absl::IsPermissionDenied(loads)) {
    std::puts("skipped: root may not load eBPF here");
    return 77;
  }
  if (std::system("ip route add local 10.0.0.0/8 dev lo && ip -6 route add local fd01::/16 dev lo") != 0)
    return 1;
  return RUN_ALL_TESTS();
}
