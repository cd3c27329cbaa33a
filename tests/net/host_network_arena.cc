// SPDX-License-Identifier: Apache-2.0
// rtnetlink and HostNetwork against the running kernel, in an arena (tests/support/arena), whose network may
// be changed.
//
// Suite AnyUser only asks and runs unprivileged, too. Suite Root changes the arena's network and puts it
// back.

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "net/host_network.h"
#include "net/rtnetlink.h"
#include "net/sock_addr.h"

namespace shunt::net {
namespace {

IpAddress Ip(const char* text) {
  return IpAddress::Parse(text).value();
}

SubnetSet Set(std::initializer_list<const char*> subnets) {
  SubnetSet set;
  for (const char* subnet : subnets) EXPECT_TRUE(set.Add(ParseSubnet(subnet).value()));
  return set;
}

// Runs a command in the network namespace of the calling thread.
void Shell(const std::string& command) {
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
}

Fd RouteSocket() {
  Result<Fd> fd = OpenRouteSocket();
  EXPECT_TRUE(fd);
  return fd ? std::move(*fd) : Fd();
}

HostNetwork Snapshot() {
  const Fd fd = RouteSocket();
  absl::StatusOr<HostNetwork> network = HostNetwork::Read(fd.get());
  EXPECT_TRUE(network.ok()) << network.status();
  return *std::move(network);
}

int Index(const char* device) {
  return static_cast<int>(if_nametoindex(device));
}

bool Readable(int fd) {
  pollfd entry = {fd, POLLIN, 0};
  return poll(&entry, 1, 0) == 1;
}

Fd Listen(const SockAddr& address) {
  Fd fd(socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(bind(fd.get(), address.data(), address.size()), 0)
      << address.ToString() << ": " << strerror(errno);
  EXPECT_EQ(listen(fd.get(), 8), 0);
  return fd;
}

// 0, or the errno of a connect that gets two seconds.
int ConnectThrough(const std::string& device, const SockAddr& address) {
  const Fd fd(socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval patience = {2, 0};
  EXPECT_EQ(setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience), 0);
  EXPECT_EQ(setsockopt(fd.get(), SOL_SOCKET, SO_BINDTODEVICE, device.c_str(),
                       static_cast<socklen_t>(device.size())),
            0);
  return connect(fd.get(), address.data(), address.size()) == 0 ? 0 : errno;
}

// Runs `work` in a thread of its own, which may go to another network namespace.
void Aside(const std::function<void()>& work) {
  std::thread(work).join();
}

void EnterNetns(const char* path) {
  const Fd netns(open(path, O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(setns(netns.get(), CLONE_NEWNET), 0) << path << ": " << strerror(errno);
}

class Arena : public testing::Test {
 protected:
  void SetUp() override {
    if (std::getenv("ARENA_FAR") == nullptr) GTEST_SKIP() << "needs the network of tests/support/arena";
  }
};

class AnyUser : public Arena {};

class Root : public Arena {
 protected:
  void SetUp() override {
    Arena::SetUp();
    if (!IsSkipped() && geteuid() != 0) GTEST_SKIP() << "needs root, to change the arena's network";
  }
  // Undoes what a test has done, last first, also when it failed.
  void TearDown() override {
    for (; !undo_.empty(); undo_.pop_back()) EXPECT_EQ(std::system(undo_.back().c_str()), 0) << undo_.back();
  }
  void RunAndUndo(const std::string& command, const std::string& undo) {
    Shell(command);
    undo_.push_back(undo);
  }
  void AddSecondDevice() {
    RunAndUndo("ip link add second0 type veth peer name second1", "ip link del second0");
    Shell("ip addr add 198.51.100.1/24 dev second0 && ip -6 addr add fd00:51::1/64 dev second0 nodad");
    // No link-local addresses, which the kernel makes and confirms in its own time: nothing changes by
    // itself.
    Shell("ip link set second0 addrgenmode none && ip link set second1 addrgenmode none");
    Shell("ip link set second1 up && ip link set second0 up");
  }

 private:
  std::vector<std::string> undo_;
};

// The forger has to guess the number of the question. They count up from 1 in each process, so this suite
// runs first.
class First : public Root {};

TEST_F(First, AnswersThatAContainersRootForgesAreNotBelieved) {
  Fd asked;
  Aside([&] {
    ASSERT_EQ(unshare(CLONE_NEWNET), 0);
    Shell("ip link set lo up");
    asked = RouteSocket();
    sockaddr_nl address = {};
    address.nl_family = AF_NETLINK;
    ASSERT_EQ(bind(asked.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    socklen_t length = sizeof address;
    ASSERT_EQ(getsockname(asked.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
    const Fd forger = RouteSocket();
    struct {
      nlmsghdr header;
      rtmsg route;
    } forged = {};
    for (uint32_t sequence = 1; sequence <= 200; ++sequence) {
      forged.header = {sizeof forged, RTM_NEWROUTE, 0, sequence, 0};
      forged.route.rtm_type = RTN_BLACKHOLE;
      ASSERT_EQ(
          sendto(forger.get(), &forged, sizeof forged, 0, reinterpret_cast<sockaddr*>(&address), length),
          static_cast<ssize_t>(sizeof forged))
          << strerror(errno);
    }
  });
  const Result<RouteAnswer> answer = LookUpRoute(asked.get(), Ip("127.0.0.1"));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->type, RTN_LOCAL);
}

TEST_F(AnyUser, SeesTheHostsAddressesWithTheirDevices) {
  const Fd fd = RouteSocket();
  const absl::StatusOr<std::vector<InterfaceAddress>> addresses = DumpAddresses(fd.get());
  ASSERT_TRUE(addresses.ok()) << addresses.status();
  std::vector<std::string> seen;
  for (const InterfaceAddress& a : *addresses) {
    if (a.ip.IsLinkLocal()) continue;
    EXPECT_EQ(a.ifindex, Index(a.name.c_str()));
    seen.push_back(absl::StrCat(a.name, " ", a.ip.ToString(), " in ", a.network.ToString(),
                                a.is_loopback_device ? " loopback" : ""));
  }
  EXPECT_THAT(seen, testing::UnorderedElementsAre(
                        "lo 127.0.0.1 in 127.0.0.0/8 loopback", "lo ::1 in ::1/128 loopback",
                        "host0 203.0.113.1 in 203.0.113.0/24", "host0 fd00:113::1 in fd00:113::/64"));
}

TEST_F(AnyUser, LooksUpRoutesAsTheKernelTakesThem) {
  const Fd fd = RouteSocket();
  const Result<RouteAnswer> far = LookUpRoute(fd.get(), Ip("192.0.2.1"));
  ASSERT_TRUE(far);
  EXPECT_EQ(far->ifindex, Index("host0"));
  EXPECT_EQ(far->type, RTN_UNICAST);
  EXPECT_EQ(far->source, Ip("203.0.113.1"));
  EXPECT_EQ(far->gateway, Ip("203.0.113.2"));

  const Result<RouteAnswer> near = LookUpRoute(fd.get(), Ip("203.0.113.2"));
  ASSERT_TRUE(near);
  EXPECT_EQ(near->ifindex, Index("host0"));
  EXPECT_TRUE(near->gateway.IsUnspecified());

  const Result<RouteAnswer> far6 = LookUpRoute(fd.get(), Ip("2001:db8::1"));
  ASSERT_TRUE(far6);
  EXPECT_EQ(far6->ifindex, Index("host0"));
  EXPECT_EQ(far6->type, RTN_UNICAST);
  EXPECT_EQ(far6->source, Ip("fd00:113::1"));
  EXPECT_EQ(far6->gateway, Ip("fd00:113::2"));

  const Result<RouteAnswer> own = LookUpRoute(fd.get(), Ip("203.0.113.1"));
  ASSERT_TRUE(own);
  EXPECT_EQ(own->ifindex, Index("lo"));
  EXPECT_EQ(own->type, RTN_LOCAL);
}

TEST_F(AnyUser, TheDeviceForAPeerIsTheOneToBindTo) {
  const HostNetwork network = Snapshot();
  RouteCache cache(RouteSocket());
  // Twice, so that the second answer is the remembered one.
  for (int round = 0; round < 2; ++round) {
    for (const char* peer : {"203.0.113.2", "192.0.2.1", "203.0.113.1", "::ffff:203.0.113.1", "fd00:113::1",
                             "fd00:113::2", "2001:db8::1"}) {
      EXPECT_EQ(cache.DeviceFor(network, Ip(peer)), Index("host0")) << peer;
    }
    for (const char* peer : {"127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "224.0.0.1",
                             "255.255.255.255", "203.0.113.255", "ff02::1", "fe80::1", "0.0.0.0"}) {
      EXPECT_EQ(cache.DeviceFor(network, Ip(peer)), 0) << peer;
    }
  }
}

TEST_F(AnyUser, ASocketBoundToTheDeviceForAnOwnAddressReachesIt) {
  const HostNetwork network = Snapshot();
  RouteCache cache(RouteSocket());
  for (const char* own : {"203.0.113.1:7001", "[fd00:113::1]:7001"}) {
    const SockAddr address = SockAddr::FromText(own).value();
    const Fd listener = Listen(address);
    const Result<int> device = cache.DeviceFor(network, address.ip());
    ASSERT_TRUE(device);
    ASSERT_NE(network.Find(*device), nullptr);
    EXPECT_EQ(ConnectThrough(network.Find(*device)->name, address), 0) << own;
  }
}

TEST_F(AnyUser, TheCacheKeepsPeersApart) {
  const HostNetwork network = Snapshot();
  RouteCache cache(RouteSocket());
  // Many more peers than places: each answer must be its own.
  for (uint64_t i = 0; i < 2000; ++i) {
    const bool loopback = i % 3 == 0;
    const IpAddress peer(0, (loopback ? 0xffff7f000000u : 0xffffc0000200u) + i % 251);
    ASSERT_EQ(cache.DeviceFor(network, peer), loopback ? 0 : Index("host0")) << peer.ToString();
  }
}

TEST_F(AnyUser, WhatIsBehindADeviceIsSaidWithCaution) {
  const HostNetwork network = Snapshot();
  const int host0 = Index("host0");
  EXPECT_FALSE(network.Behind(host0, SubnetSet()));
  EXPECT_FALSE(network.Behind(host0, Set({"127.0.0.0/8", "127.0.0.1", "::1"})));
  EXPECT_TRUE(network.Behind(host0, Set({"127.0.0.0/8", "10.0.0.0/8"})));
  EXPECT_TRUE(network.Behind(host0, Set({"126.0.0.0/7"})));
  EXPECT_TRUE(network.Behind(host0, Set({"::/127"})));
  EXPECT_TRUE(network.Behind(host0, Set({"2001:db8::/32"})));  // by the default route
  EXPECT_TRUE(network.Behind(Index("lo"), Set({"127.0.0.0/8"})));
  EXPECT_TRUE(network.Behind(4711, Set({"127.0.0.0/8"})));  // no such device
}

TEST_F(AnyUser, OpensAMonitorThatIsQuietWhileNothingChanges) {
  Result<Fd> monitor = OpenRouteMonitor();
  ASSERT_TRUE(monitor);
  DrainChanges(monitor->get());
  EXPECT_FALSE(DrainChanges(monitor->get()));
  EXPECT_FALSE(Readable(monitor->get()));
  EXPECT_NE(fcntl(monitor->get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(fcntl(monitor->get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST_F(Root, HearsOfEveryKindOfChange) {
  AddSecondDevice();
  Result<Fd> monitor = OpenRouteMonitor();
  ASSERT_TRUE(monitor);
  for (const char* change : {
           "ip addr add 198.51.100.2/32 dev second0",
           "ip -6 addr add fd00:51::2/128 dev second0 nodad",
           "ip route add 192.0.2.0/24 dev second0",
           "ip -6 route add fd00:52::/64 dev second0",
           "ip nexthop add id 7 via 198.51.100.9 dev second0",
           "ip nexthop replace id 7 via 198.51.100.10 dev second0",
           "ip nexthop del id 7",
           "ip route del 192.0.2.0/24",
           "ip link set second0 alias renamed",
           "ip rule add to 192.0.2.0/24 lookup 100",
           "ip rule del to 192.0.2.0/24 lookup 100",
           "ip -6 rule add to fd00:52::/64 lookup 100",
           "ip -6 rule del to fd00:52::/64 lookup 100",
       }) {
    DrainChanges(monitor->get());
    EXPECT_FALSE(Readable(monitor->get()));
    Shell(change);
    // The kernel announces a change before the call that made it returns. Waiting would mistake another for
    // it.
    EXPECT_TRUE(Readable(monitor->get())) << change;
    EXPECT_TRUE(DrainChanges(monitor->get())) << change;
  }
}

TEST_F(Root, MessagesThatTheKernelHadToDropCountAsAChange) {
  AddSecondDevice();
  Result<Fd> monitor = OpenRouteMonitor();
  ASSERT_TRUE(monitor);
  const int small = 1;  // the kernel makes its minimum of it
  ASSERT_EQ(setsockopt(monitor->get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
  Shell("for i in $(seq 3 60); do echo addr add 198.51.100.$i/32 dev second0; done | ip -batch -");
  // Leave only the error: it comes before whatever is queued.
  std::byte unused;
  errno = 0;
  ASSERT_EQ(recv(monitor->get(), &unused, 1, MSG_PEEK), -1);
  ASSERT_EQ(errno, ENOBUFS);
  while (recv(monitor->get(), &unused, 1, 0) >= 0 || errno != EAGAIN) continue;
  Shell("for i in $(seq 61 120); do echo addr add 198.51.100.$i/32 dev second0; done | ip -batch -");
  EXPECT_TRUE(DrainChanges(monitor->get()));
}

TEST_F(Root, ASocketFromAnotherNamespaceTellsOfThatOne) {
  Fd inner;
  Aside([&] {
    ASSERT_EQ(unshare(CLONE_NEWNET), 0) << strerror(errno);
    Shell("ip link set lo up && ip link add tap0 type veth peer name tap1");
    Shell(
        "ip addr add 10.0.2.100/24 dev tap0 && ip -6 addr add fd00::100/64 dev tap0 nodad && ip link set "
        "tap0 up");
    Shell("ip addr add 192.168.9.1 peer 192.168.9.2/32 dev tap1");
    inner = RouteSocket();
  });
  const absl::StatusOr<std::vector<InterfaceAddress>> addresses = DumpAddresses(inner.get());
  ASSERT_TRUE(addresses.ok()) << addresses.status();
  std::vector<std::string> seen;
  for (const InterfaceAddress& a : *addresses) seen.push_back(a.name + " " + a.ip.ToString());
  EXPECT_THAT(
      seen, testing::IsSupersetOf({"lo 127.0.0.1", "tap0 10.0.2.100", "tap0 fd00::100", "tap1 192.168.9.1"}));
  EXPECT_THAT(seen, testing::Not(testing::Contains(testing::HasSubstr("203.0.113"))));

  const absl::StatusOr<SubnetSet> networks = ContainerNetworks(inner.get());
  ASSERT_TRUE(networks.ok()) << networks.status();
  for (const char* ip : {"127.0.0.1", "127.255.0.1", "::1", "10.0.2.2", "::ffff:10.0.2.2", "fd00::2",
                         "192.168.9.1", "192.168.9.2"}) {
    EXPECT_TRUE(networks->Contains(Ip(ip))) << ip;
  }
  for (const char* ip : {"10.0.3.1", "203.0.113.1", "192.168.9.3", "fd01::1", "::2"}) {
    EXPECT_FALSE(networks->Contains(Ip(ip))) << ip;
  }
}

TEST_F(Root, LoopbackNetworksBelongToAContainerEvenWhileItsLoIsDown) {
  Fd inner;
  Aside([&] {
    ASSERT_EQ(unshare(CLONE_NEWNET), 0);
    inner = RouteSocket();
  });
  const absl::StatusOr<SubnetSet> networks = ContainerNetworks(inner.get());
  ASSERT_TRUE(networks.ok()) << networks.status();
  EXPECT_TRUE(networks->Contains(Ip("127.0.0.1")));
  EXPECT_TRUE(networks->Contains(Ip("::1")));
}

TEST_F(Root, AContainerWithMoreNetworksThanFitIsRefusedNotCutShort) {
  Fd inner;
  Aside([&] {
    ASSERT_EQ(unshare(CLONE_NEWNET), 0);
    Shell("for i in $(seq 100); do echo addr add 10.$i.0.1/24 dev lo; done | ip -batch -");
    inner = RouteSocket();
  });
  EXPECT_EQ(ContainerNetworks(inner.get()).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(Root, AListThatIsTooLongIsRefusedAndTheSocketStaysUsable) {
  Fd inner;
  Aside([&] {
    ASSERT_EQ(unshare(CLONE_NEWNET), 0);
    Shell(
        "for i in $(seq 0 16500); do echo addr add 10.1.$((i / 250)).$((i % 250 + 1))/32 dev lo; done | ip "
        "-batch -");
    inner = RouteSocket();
  });
  EXPECT_EQ(DumpAddresses(inner.get()).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(DumpInterfaces(inner.get()).ok());
}

TEST_F(Root, AddressesThatAlsoLiveOnLoHaveNoDevice) {
  RunAndUndo("ip addr add 198.51.100.77/32 dev lo", "ip addr del 198.51.100.77/32 dev lo");
  RunAndUndo("ip -6 addr add fd00:77::1/128 dev lo", "ip -6 addr del fd00:77::1/128 dev lo");
  RunAndUndo("ip addr add 198.51.100.77/32 dev host0", "ip addr del 198.51.100.77/32 dev host0");
  const HostNetwork network = Snapshot();
  RouteCache cache(RouteSocket());
  EXPECT_EQ(network.OwnerOf(Ip("198.51.100.77")), 0);
  EXPECT_EQ(cache.DeviceFor(network, Ip("198.51.100.77")), 0);
  EXPECT_EQ(cache.DeviceFor(network, Ip("fd00:77::1")), 0);
  EXPECT_EQ(network.OwnerOf(Ip("198.51.100.78")), std::nullopt);
}

TEST_F(Root, RoutesThatAreNoOrdinaryOnesHaveNoDevice) {
  RunAndUndo("ip route add local 192.0.2.0/25 dev host0", "ip route del local 192.0.2.0/25 dev host0");
  RunAndUndo("ip route add unreachable 192.0.2.128/25", "ip route del unreachable 192.0.2.128/25");
  RunAndUndo("ip -6 route add unreachable fd00:52::/64", "ip -6 route del unreachable fd00:52::/64");
  RunAndUndo("ip route add 198.18.0.0/24 dev lo", "ip route del 198.18.0.0/24 dev lo");
  const HostNetwork network = Snapshot();
  RouteCache cache(RouteSocket());
  EXPECT_EQ(cache.DeviceFor(network, Ip("192.0.2.1")), 0);
  const Result<int> unreachable = cache.DeviceFor(network, Ip("192.0.2.129"));
  ASSERT_FALSE(unreachable);
  EXPECT_EQ(unreachable.error().code, EHOSTUNREACH);
  EXPECT_EQ(cache.DeviceFor(network, Ip("fd00:52::1")).value_or(0), 0);
  EXPECT_EQ(cache.DeviceFor(network, Ip("198.18.0.1")), 0);
}

TEST_F(Root, ANewSnapshotMakesTheCacheForget) {
  AddSecondDevice();
  RouteCache cache(RouteSocket());
  const HostNetwork before = Snapshot();
  ASSERT_EQ(cache.DeviceFor(before, Ip("192.0.2.1")), Index("host0"));
  RunAndUndo("ip route add 192.0.2.0/24 dev second0", "ip route del 192.0.2.0/24 dev second0");
  EXPECT_EQ(cache.DeviceFor(before, Ip("192.0.2.1")), Index("host0"));
  const HostNetwork after = Snapshot();
  EXPECT_NE(after.generation(), before.generation());
  EXPECT_EQ(cache.DeviceFor(after, Ip("192.0.2.1")), Index("second0"));
}

TEST_F(Root, WithoutARouteThereIsTheErrnoOfConnect) {
  RunAndUndo("ip route del default", "ip route add default via 203.0.113.2");
  RunAndUndo("ip -6 route del default", "ip -6 route add default via fd00:113::2");
  const HostNetwork network = Snapshot();
  RouteCache cache(RouteSocket());
  for (const char* peer : {"192.0.2.1", "2001:db8::1"}) {
    const Result<int> device = cache.DeviceFor(network, Ip(peer));
    ASSERT_FALSE(device) << peer;
    EXPECT_EQ(device.error().code, ENETUNREACH) << peer;
  }
}

TEST_F(Root, Ipv6IsBehindADeviceOnlyWhereARouteLeads) {
  AddSecondDevice();
  const int second0 = Index("second0");
  EXPECT_TRUE(Snapshot().Behind(second0, Set({"fd00:51::/64"})));
  EXPECT_TRUE(Snapshot().Behind(second0, Set({"fd00:51::7"})));
  EXPECT_TRUE(Snapshot().Behind(second0, Set({"fd00::/8"})));
  EXPECT_FALSE(Snapshot().Behind(second0, Set({"2001:db8::/32"})));
  EXPECT_FALSE(Snapshot().Behind(second0, Set({"fd00:113::1"})));
  // Whichever table the route is in, and as one of several next hops, too.
  RunAndUndo("ip -6 route add 2001:db8::/32 dev second0 table 100",
             "ip -6 route del 2001:db8::/32 table 100");
  EXPECT_TRUE(Snapshot().Behind(second0, Set({"2001:db8::/32"})));
  RunAndUndo("ip -6 route add fd00:53::/64 nexthop via fd00:113::2 nexthop via fd00:51::2",
             "ip -6 route del fd00:53::/64");
  EXPECT_TRUE(Snapshot().Behind(second0, Set({"fd00:53::1"})));
  EXPECT_TRUE(Snapshot().Behind(Index("host0"), Set({"fd00:53::1"})));
  EXPECT_FALSE(Snapshot().Behind(Index("second1"), Set({"fd00:53::1"})));
}

TEST_F(Root, ASocketBoundToADeviceReachesIpv4NeighboursWithoutARouteButNotIpv6) {
  // The far peer has addresses to which the host has no route.
  Fd far4, far6;
  const SockAddr hidden4 = SockAddr::FromText("10.66.0.2:7002").value();
  const SockAddr hidden6 = SockAddr::FromText("[fd00:66::2]:7002").value();
  Aside([&] {
    EnterNetns(std::getenv("ARENA_FAR"));
    Shell("ip addr add 10.66.0.2/32 dev lo && ip -6 addr add fd00:66::2/128 dev lo");
    far4 = Listen(hidden4);
    far6 = Listen(hidden6);
  });
  RunAndUndo("ip route del default", "ip route add default via 203.0.113.2");
  RunAndUndo("ip -6 route del default", "ip -6 route add default via fd00:113::2");
  EXPECT_EQ(ConnectThrough("host0", hidden4), 0);
  EXPECT_EQ(ConnectThrough("host0", hidden6), ENETUNREACH);
  // So this is what Behind() has to say.
  const HostNetwork network = Snapshot();
  EXPECT_TRUE(network.Behind(Index("host0"), Set({"10.66.0.0/16"})));
  EXPECT_FALSE(network.Behind(Index("host0"), Set({"fd00:66::/64"})));
}

}  // namespace
}  // namespace shunt::net
