// SPDX-License-Identifier: Apache-2.0
// UDP sockets that were connected to a service, when their backend goes: they are at another one, and nobody
// else's socket is.
//
// The backends are in the container's network, so it holds them itself: sockets that are bound and not
// connected.

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <string>

#include "tests/kernel/service_stage.h"
#include "tests/support/guest_container.h"
#include "tests/support/shared.h"

namespace shunt {
namespace {

constexpr char kFirstBackend[] = "127.0.0.1:7001";
constexpr char kSecondBackend[] = "127.0.0.1:7002";
constexpr char kElsewhereAddress[] = "127.0.0.1:7003";

net::ServiceSpec DatagramService(std::vector<net::SockAddr> backends) {
  net::ServiceSpec service = ServiceOf(std::move(backends));
  service.addresses[0].transport = net::Transport::kUdp;
  service.network = net::ServiceNetwork::kContainer;
  return service;
}

net::ServiceSpec BothBackends() {
  return DatagramService({Address(kFirstBackend), Address(kSecondBackend)});
}

Fd BoundTo(const char* address) {
  Fd fd(socket(AF_INET, SOCK_DGRAM, 0));
  const net::SockAddr at = Address(address);
  return bind(fd.get(), at.data(), at.size()) == 0 ? std::move(fd) : Fd();
}

Fd ConnectedTo(const char* address) {
  Fd fd(socket(AF_INET, SOCK_DGRAM, 0));
  return Connect(fd.get(), address) == 0 ? std::move(fd) : Fd();
}

std::string PeerNameOf(const Fd& fd) {
  sockaddr_in name{};
  socklen_t size = sizeof(name);
  if (getpeername(fd.get(), reinterpret_cast<sockaddr*>(&name), &size) != 0) return strerror(errno);
  return net::SockAddr::Parse({reinterpret_cast<const std::byte*>(&name), size})->ToString();
}

sockaddr_in OwnNameOf(const Fd& fd) {
  sockaddr_in name{};
  socklen_t size = sizeof(name);
  getsockname(fd.get(), reinterpret_cast<sockaddr*>(&name), &size);
  return name;
}

uint64_t Count(const Accelerator& accelerator, Counter counter) {
  return accelerator.Counters()[static_cast<size_t>(counter)].value;
}

// What is done to the first backend once the program has said that it is at it, and that the program may go
// on when `moved` of its sockets are elsewhere.
class Departure {
 public:
  Departure(std::function<void(Accelerator&)> act, uint64_t moved) : act_(std::move(act)), moved_(moved) {}

  // In the container: it is at the first backend. Returns when the sockets have moved.
  void Await() const {
    *stage_ = kWanted;
    while (*stage_ != kOver) usleep(1000);
  }
  // For GuestOptions::operate.
  void Operate(Accelerator& accelerator) const {
    if (*stage_ == kWanted) {
      act_(accelerator);
      *stage_ = kBegun;
    } else if (*stage_ == kBegun && Count(accelerator, Counter::flows_moved) >= moved_) {
      *stage_ = kOver;  // counted when all of the container was looked through
    }
  }
  std::function<void(Accelerator&)> operate() const {
    return [this](Accelerator& accelerator) { Operate(accelerator); };
  }
  bool begun() const { return *stage_ == kBegun; }

 private:
  enum : int { kNothing, kWanted, kBegun, kOver };
  Shared<std::atomic<int>> stage_;
  std::function<void(Accelerator&)> act_;
  uint64_t moved_;
};

std::function<void(Accelerator&)> Tell(net::BackendCommand::Kind kind) {
  return [kind](Accelerator& accelerator) {
    EXPECT_TRUE(accelerator.TellBackend("orders", kFirstBackend, {.kind = kind}).ok());
  };
}
const auto kDisableFirst = Tell(net::BackendCommand::Kind::kDisable);

// In the container: a flow is at the first backend, then at the second, and misses nothing.
int FollowedBy(const Departure& departure) {
  const Fd first = BoundTo(kFirstBackend), second = BoundTo(kSecondBackend),
           flow = ConnectedTo(kServiceAddress);
  if (PeerNameOf(flow) != kFirstBackend) return 200;
  const sockaddr_in own = OwnNameOf(flow);
  char byte = 'a';
  if (send(flow.get(), &byte, 1, 0) != 1 || recv(first.get(), &byte, 1, 0) != 1) return 201;
  departure.Await();
  if (PeerNameOf(flow) != kSecondBackend) return 202;
  if (OwnNameOf(flow).sin_port != own.sin_port || OwnNameOf(flow).sin_addr.s_addr != own.sin_addr.s_addr)
    return 203;
  for (char sent = 0; sent < 100; ++sent) {
    if (send(flow.get(), &sent, 1, 0) != 1) return 204;
    sockaddr_in from{};
    socklen_t size = sizeof(from);
    if (recvfrom(second.get(), &byte, 1, MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&from), &size) != 1 ||
        byte != sent || from.sin_port != own.sin_port) {
      return 205;
    }
    // The answer of the new one arrives.
    if (sendto(second.get(), &byte, 1, 0, reinterpret_cast<sockaddr*>(&from), size) != 1 ||
        recv(flow.get(), &byte, 1, MSG_DONTWAIT) != 1 || byte != sent) {
      return 206;
    }
  }
  return recv(first.get(), &byte, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN ? 0 : 207;
}

TEST(UdpFlows, FollowWhenTheirBackendGoes) {
  const std::pair<const char*, std::function<void(Accelerator&)>> ways[] = {
      {"disabled", kDisableFirst},
      {"drained", Tell(net::BackendCommand::Kind::kDrain)},
      {"removed", [](Accelerator& accelerator) {
         accelerator.Balance({DatagramService({Address(kSecondBackend)})}, "", /*at_once=*/false);
       }}};
  for (const auto& [way, act] : ways) {
    const Departure departure(act, 1);
    GuestContainer container({.operate = departure.operate(), .services = {BothBackends()}});
    EXPECT_EQ(container.Run([&] { return FollowedBy(departure); }), 0) << way << container.error();
    EXPECT_EQ(container.Counted(Counter::flows_moved), 1u) << way;
    EXPECT_EQ(container.Counted(Counter::flows_stuck), 0u) << way;
  }
}

TEST(UdpFlows, FollowWhenABackendComesWhereThereWasNone) {
  int steps = 0;
  const Departure departure(
      [&](Accelerator& accelerator) { accelerator.Balance({DatagramService({})}, "", /*at_once=*/false); },
      1);
  const auto operate = [&](Accelerator& accelerator) {
    departure.Operate(accelerator);
    if (departure.begun() && accelerator.DescribeServices()[0].backends.empty() && ++steps == 20)
      accelerator.Balance({DatagramService({Address(kSecondBackend)})}, "", /*at_once=*/false);
  };
  GuestContainer container({.operate = operate, .services = {BothBackends()}});
  EXPECT_EQ(container.Run([&] { return FollowedBy(departure); }), 0) << container.error();
}

TEST(UdpFlows, ADrainGivesThemTheTimeThatConnectionsHave) {
  net::ServiceSpec service = BothBackends();
  service.close_after = milliseconds(500);
  std::chrono::steady_clock::time_point drained, moved;
  const Departure departure(
      [&](Accelerator& accelerator) {
        drained = std::chrono::steady_clock::now();
        Tell(net::BackendCommand::Kind::kDrain)(accelerator);
      },
      1);
  const auto operate = [&](Accelerator& accelerator) {
    departure.Operate(accelerator);
    if (moved == decltype(moved)() && Count(accelerator, Counter::flows_moved) != 0)
      moved = std::chrono::steady_clock::now();
  };
  GuestContainer container({.operate = operate, .services = {service}});
  EXPECT_EQ(container.Run([&] { return FollowedBy(departure); }), 0) << container.error();
  EXPECT_GE(moved - drained, milliseconds(500));
}

TEST(UdpFlows, FollowInTheEnginesToCome) {
  for (const bool gone_meanwhile : {false, true}) {
    const Shared<std::atomic<bool>> aimed;
    bool killed = false;
    const Departure departure(
        [&](Accelerator& accelerator) {
          if (!gone_meanwhile) kDisableFirst(accelerator);
        },
        1);
    GuestOptions options;
    options.engine_dies = [&] {
      if (killed || !*aimed) return false;
      return killed = true;
    };
    options.operate = [&](Accelerator& accelerator) {
      if (killed) departure.Operate(accelerator);
    };
    options.services = {BothBackends()};
    if (gone_meanwhile) options.next_services = {DatagramService({Address(kSecondBackend)})};
    GuestContainer container(std::move(options));
    EXPECT_EQ(container.Run([&] {
      const Fd first = BoundTo(kFirstBackend), second = BoundTo(kSecondBackend),
               flow = ConnectedTo(kServiceAddress);
      if (PeerNameOf(flow) != kFirstBackend) return 200;
      *aimed = true;
      departure.Await();
      return PeerNameOf(flow) == kSecondBackend ? 0 : 201;
    }),
              0)
        << container.error() << gone_meanwhile;
    EXPECT_TRUE(killed);
  }
}

TEST(UdpFlows, WhatTheProgramHasConnectedItselfStays) {
  const Departure departure(kDisableFirst, 1);
  GuestContainer container({.operate = departure.operate(), .services = {BothBackends()}});
  EXPECT_EQ(container.Run([&] {
    const Fd first = BoundTo(kFirstBackend), second = BoundTo(kSecondBackend),
             third = BoundTo(kElsewhereAddress);
    const Fd direct = ConnectedTo(kFirstBackend), flow = ConnectedTo(kServiceAddress);
    const Fd turned = ConnectedTo(kServiceAddress), again = ConnectedTo(kServiceAddress);
    if (Connect(turned.get(), kElsewhereAddress) != 0 || Connect(again.get(), kFirstBackend) != 0) return 200;
    const Fd disconnected = ConnectedTo(kServiceAddress);
    const sockaddr nowhere{.sa_family = AF_UNSPEC};
    if (connect(disconnected.get(), &nowhere, sizeof(nowhere)) != 0) return 201;
    departure.Await();
    if (PeerNameOf(flow) != kSecondBackend) return 202;
    if (PeerNameOf(direct) != kFirstBackend) return 203;
    if (PeerNameOf(turned) != kElsewhereAddress) return 204;
    if (PeerNameOf(again) != kFirstBackend) return 205;
    return PeerNameOf(disconnected) == strerror(ENOTCONN) ? 0 : 206;
  }),
            0)
      << container.error();
  EXPECT_EQ(container.Counted(Counter::flows_moved), 1u);
}

// The attack: sockets of somebody else are put into a container's hands, or its own into somebody else's.
TEST(UdpFlows, NobodyElsesSocketIsTouched) {
  // Of the host's network, where nobody has to be at the other end.
  const Fd of_host(socket(AF_INET, SOCK_DGRAM, 0)), lent(socket(AF_INET, SOCK_DGRAM, 0));
  ASSERT_EQ(Connect(of_host.get(), kFirstBackend), 0);
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair), 0);
  const Fd ours(pair[0]), theirs(pair[1]);
  const Departure departure(kDisableFirst, 1);
  GuestContainer container({.operate = departure.operate(), .services = {BothBackends()}});
  EXPECT_EQ(container.Run([&] {
    const Fd first = BoundTo(kFirstBackend), second = BoundTo(kSecondBackend),
             flow = ConnectedTo(kServiceAddress);
    // The host's, of which this process has a copy, and connects it.
    if (Connect(lent.get()) != 0) return 200;
    // Its own, which only the host has from now on.
    Fd given = ConnectedTo(kServiceAddress);
    char byte = 0;
    iovec data{.iov_base = &byte, .iov_len = 1};
    alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{.msg_iov = &data, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
    cmsghdr* const rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    const int number = given.get();
    std::memcpy(CMSG_DATA(rights), &number, sizeof(number));
    if (sendmsg(theirs.get(), &message, 0) != 1) return 201;
    given.reset();
    departure.Await();
    return PeerNameOf(flow) == kSecondBackend ? 0 : 202;
  }),
            0)
      << container.error();
  EXPECT_EQ(container.Counted(Counter::flows_moved), 1u);
  EXPECT_EQ(PeerNameOf(of_host), kFirstBackend);
  EXPECT_EQ(PeerNameOf(lent), kFirstBackend);
  char byte = 0;
  iovec data{.iov_base = &byte, .iov_len = 1};
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{.msg_iov = &data, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
  ASSERT_EQ(recvmsg(ours.get(), &message, MSG_DONTWAIT), 1);
  int number = -1;
  std::memcpy(&number, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(number));
  const Fd given(number);
  EXPECT_EQ(PeerNameOf(given), kFirstBackend);
}

}  // namespace
}  // namespace shunt
