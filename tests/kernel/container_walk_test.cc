// SPDX-License-Identifier: Apache-2.0
// Walks through what a container holds, for connections to be closed and UDP flows to be aimed elsewhere: one
// for all of them, and none that goes on for as long as the container likes.

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/clock.h"
#include "net/balancer/pick_table.h"
#include "net/flow_aiming.h"
#include "net/peer_connections.h"
#include "tests/kernel/service_stage.h"
#include "tests/support/fresh_namespace.h"
#include "tests/support/shared.h"

namespace shunt {
namespace {

constexpr char kWalkedPeers[3][16] = {"127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"};
constexpr char kWalkedFlow[] = "127.0.0.1:7201", kWalkedAim[] = "127.0.0.1:7202";
constexpr int64_t kInTime = 60'000'000'000;  // ns; a walk takes less than a thousandth of that

// Holds a connection to each of the peers, and a UDP socket that is connected to kWalkedFlow.
class HoldsConnections {
 public:
  HoldsConnections() : child_(ForkInto(CLONE_NEWUSER | CLONE_NEWNET)) {
    if (child_ != 0) {
      while (*cookie_ == 0 && waitpid(child_, nullptr, WNOHANG) == 0) usleep(1000);
      return;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    BringLoopbackUp();
    std::vector<Fd> held, ends;
    for (const char* peer : kWalkedPeers) {
      const net::SockAddr at = Address(peer);
      held.emplace_back(socket(AF_INET, SOCK_STREAM, 0));
      if (bind(held.back().get(), at.data(), at.size()) != 0 || listen(held.back().get(), 1) != 0) _exit(1);
      held.emplace_back(socket(AF_INET, SOCK_STREAM, 0));
      ends.emplace_back(dup(held.back().get()));
      if (Connect(held.back().get(), peer) != 0) _exit(2);
    }
    const Fd flow(socket(AF_INET, SOCK_DGRAM, 0));
    uint64_t cookie = 0;
    socklen_t size = sizeof(cookie);
    if (Connect(flow.get(), kWalkedFlow) != 0 ||
        getsockopt(flow.get(), SOL_SOCKET, SO_COOKIE, &cookie, &size) != 0) {
      _exit(3);
    }
    *cookie_ = cookie;
    for (;;) {
      uint32_t open = 0;
      for (size_t i = 0; i < ends.size(); ++i) {
        char byte;
        if (recv(ends[i].get(), &byte, 1, MSG_DONTWAIT) != 0) open |= 1u << i;
      }
      *open_ = open;
      const Result<net::SockAddr> peer = net::PeerAddressOf(flow.get());
      *flow_port_ = peer ? peer->port() : 0;
      ++*looked_;
      usleep(1000);
    }
  }
  HoldsConnections(const HoldsConnections&) = delete;
  HoldsConnections& operator=(const HoldsConnections&) = delete;
  ~HoldsConnections() {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }

  pid_t pid() const { return child_; }
  uint64_t cookie() const { return *cookie_; }
  // A bit for each that is open now.
  uint32_t Open() const {
    AwaitLook();
    return *open_;
  }
  uint16_t FlowPort() const {
    AwaitLook();
    return *flow_port_;
  }

 private:
  // One that has begun after this.
  void AwaitLook() const {
    const uint32_t before = *looked_;
    while (*looked_ - before < 2) usleep(1000);
  }

  const Shared<std::atomic<uint64_t>> cookie_;
  const Shared<std::atomic<uint32_t>> open_, looked_;
  const Shared<std::atomic<uint16_t>> flow_port_;
  const pid_t child_;
};

TEST(ContainerWalk, OneIsEnoughForAllPeers) {
  const HoldsConnections container;
  ASSERT_NE(container.cookie(), 0u);
  EXPECT_EQ(container.Open(), 0b111u);
  const auto closed = net::ShutDownConnections(
      container.pid(), MonotonicNow() + kInTime,
      {net::BackendIdentity(Address(kWalkedPeers[0])), net::BackendIdentity(Address(kWalkedPeers[2]))});
  ASSERT_TRUE(closed.has_value());
  EXPECT_EQ(*closed, 4u);  // each has two descriptors
  EXPECT_EQ(container.Open(), 0b010u);
}

TEST(ContainerWalk, WhatWasNotFoundInTimeIsNotForgotten) {
  const HoldsConnections container;
  ASSERT_NE(container.cookie(), 0u);
  const auto flows = std::make_unique<net::AimedFlows>();
  flows->Note({.cookie = container.cookie(),
               .service = 5,
               .backend = net::BackendIdentity(Address(kWalkedFlow)),
               .key = 0});
  const auto aim = [&](int64_t until) {
    return net::AimAnew(
        container.pid(), until, /*netns=*/0, *flows, 5,
        [](const net::AimedFlows::Flow& flow) {
          return flow.backend == net::BackendIdentity(Address(kWalkedFlow));
        },
        [](const net::AimedFlows::Flow&, const net::SockAddr&) { return Address(kWalkedAim); });
  };
  const auto late = aim(MonotonicNow());
  ASSERT_TRUE(late.has_value());
  EXPECT_EQ(late->moved, 0u);
  EXPECT_EQ(late->failed, 1u);
  EXPECT_EQ(container.FlowPort(), Address(kWalkedFlow).port());
  const auto in_time = aim(MonotonicNow() + kInTime);
  ASSERT_TRUE(in_time.has_value());
  EXPECT_EQ(in_time->moved, 1u);
  EXPECT_EQ(in_time->failed, 0u);
  EXPECT_EQ(container.FlowPort(), Address(kWalkedAim).port());
}

}  // namespace
}  // namespace shunt
