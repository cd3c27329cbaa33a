// SPDX-License-Identifier: Apache-2.0
// Walks through what a container holds, for connections to be closed and UDP flows to be aimed elsewhere: one
// for all of them, and none that goes on for as long as the container likes, or keeps others waiting.

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/clock.h"
#include "handlers/service_errands.h"
#include "net/balancer/pick_table.h"
#include "net/held_descriptors.h"
#include "net/peer_connections.h"
#include "tests/kernel/service_stage.h"
#include "tests/support/fresh_namespace.h"
#include "tests/support/shared.h"

namespace shunt {
namespace {

constexpr char kWalkedPeers[3][16] = {"127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"};
constexpr char kWalkedFlow[] = "127.0.0.1:7201", kWalkedAim[] = "127.0.0.1:7202";

// Looks again and again, for a minute at most. Nobody spins here: the errands' thread gives way to those who
// do.
template <typename Condition>
bool ComesAbout(Condition done) {
  for (int looks = 0; looks < 60'000 && !done(); ++looks) usleep(1000);
  return done();
}

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
    EXPECT_TRUE(ComesAbout([&] { return *looked_ - before >= 2; }));
  }

  const Shared<std::atomic<uint64_t>> cookie_;
  const Shared<std::atomic<uint32_t>> open_, looked_;
  const Shared<std::atomic<uint16_t>> flow_port_;
  const pid_t child_;
};

std::optional<net::SockAddr> NewWalkedAim(const net::DueAiming&, const net::AimedFlows::Flow&,
                                          const net::SockAddr&, uint64_t) {
  return Address(kWalkedAim);
}

// What ServiceErrands works with.
struct ErrandsDesk {
  Counters counters;
  std::unique_ptr<ServiceErrands> errands = *ServiceErrands::Start(NewWalkedAim, counters);

  uint64_t moved() const { return counters.Read(Counter::flows_moved); }
  uint64_t stuck() const { return counters.Read(Counter::flows_stuck); }
};

// A flow of the service kWalkedService that is to leave.
constexpr char kWalkedService[] = "orders";
std::unique_ptr<net::AimedFlows> FlowThatLeaves(uint64_t cookie) {
  auto flows = std::make_unique<net::AimedFlows>();
  flows->Note({.cookie = cookie,
               .service = net::HashOfName(kWalkedService),
               .backend = net::BackendIdentity(Address(kWalkedFlow)),
               .key = 0});
  return flows;
}
net::DueAiming AllLeave() {
  return {.name = kWalkedService, .stay = {net::BackendIdentity(Address(kWalkedAim))}};
}
net::DueClosing CloseAt(const char* peer) {
  return {.service = kWalkedService, .address = Address(peer)};
}

TEST(ContainerWalk, OneIsEnoughForAllThatIsToBeDone) {
  const HoldsConnections container;
  ASSERT_NE(container.cookie(), 0u);
  EXPECT_EQ(container.Open(), 0b111u);
  const auto flows = FlowThatLeaves(container.cookie());
  ErrandsDesk desk;
  desk.errands->Give({CloseAt(kWalkedPeers[0]), CloseAt(kWalkedPeers[2])}, {AllLeave()},
                     {{.key = 1, .task = container.pid(), .flows = flows.get()}});
  desk.errands->Finish();
  EXPECT_EQ(container.Open(), 0b010u);
  EXPECT_EQ(container.FlowPort(), Address(kWalkedAim).port());
  EXPECT_EQ(desk.moved(), 1u);
  EXPECT_EQ(desk.stuck(), 0u);
}

TEST(ContainerWalk, CanBeGoneOnWithLater) {
  const HoldsConnections container;
  ASSERT_NE(container.cookie(), 0u);
  const net::Namespace network = *net::NetworkOf(container.pid());
  size_t all = 0;
  const auto at_once =
      net::SocketWalk(network).GoOn(MonotonicNow() + 60'000'000'000, [&](const Fd&) { ++all; });
  ASSERT_TRUE(at_once.has_value() && *at_once);
  EXPECT_GE(all, 3u * 3 + 1);  // of each peer the listener and two of the connection; and the flow
  net::SocketWalk walk(network);
  size_t seen = 0, pieces = 0;
  for (bool whole = false; !whole; ++pieces) {
    const auto went = walk.GoOn(/*until=*/0, [&](const Fd&) { ++seen; });  // a descriptor or process each
    ASSERT_TRUE(went.has_value());
    whole = *went;
  }
  EXPECT_EQ(seen, all);
  EXPECT_GT(pieces, seen);
}

// Has far more descriptors than anybody needs: `processes` times 15,000.
class HoldsFarTooMuch {
 public:
  explicit HoldsFarTooMuch(int processes) : child_(ForkInto(CLONE_NEWUSER | CLONE_NEWNET)) {
    if (child_ != 0) {
      while (*ready_ < processes && waitpid(child_, nullptr, WNOHANG) == 0) usleep(1000);
      return;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    rlimit most{};
    getrlimit(RLIMIT_NOFILE, &most);
    most.rlim_cur = most.rlim_max;
    setrlimit(RLIMIT_NOFILE, &most);
    const int one = socket(AF_INET, SOCK_STREAM, 0);
    for (int i = 0; i < 15'000; ++i) {
      if (dup(one) < 0) _exit(1);
    }
    for (++*ready_; *ready_ < processes; ++*ready_) {
      if (fork() != 0) continue;
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (;;) pause();
    }
    for (;;) pause();
  }
  HoldsFarTooMuch(const HoldsFarTooMuch&) = delete;
  HoldsFarTooMuch& operator=(const HoldsFarTooMuch&) = delete;
  ~HoldsFarTooMuch() {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }
  pid_t pid() const { return child_; }

 private:
  const Shared<std::atomic<int>> ready_;
  const pid_t child_;
};

constexpr uint64_t kNobodysCookie = 999'999'999'999;

TEST(ContainerWalk, OfOneThatHasFarTooMuchKeepsNobodyElseWaiting) {
  const HoldsFarTooMuch hog(2);
  const HoldsConnections container;
  ASSERT_NE(container.cookie(), 0u);
  const auto hogs = FlowThatLeaves(kNobodysCookie);  // forgotten when all of it was looked through
  const auto flows = FlowThatLeaves(container.cookie());
  ErrandsDesk desk;
  desk.errands->Give({CloseAt(kWalkedPeers[0])}, {AllLeave()},
                     {{.key = 1, .task = hog.pid(), .flows = hogs.get()},
                      {.key = 2, .task = container.pid(), .flows = flows.get()}});
  ASSERT_TRUE(ComesAbout([&] { return desk.moved() != 0; }));
  EXPECT_TRUE(hogs->Find(kNobodysCookie));
  EXPECT_EQ(desk.stuck(), 0u);
  EXPECT_EQ(container.Open(), 0b110u);
  // And again, while the hog is still being looked through.
  desk.errands->Give({CloseAt(kWalkedPeers[1])}, {},
                     {{.key = 1, .task = hog.pid(), .flows = hogs.get()},
                      {.key = 2, .task = container.pid(), .flows = flows.get()}});
  ASSERT_TRUE(ComesAbout([&] { return container.Open() == 0b100u; }));
  EXPECT_TRUE(hogs->Find(kNobodysCookie));
  EXPECT_TRUE(ComesAbout([&] { return !hogs->Find(kNobodysCookie); }));
  EXPECT_EQ(desk.stuck(), 0u);
}

TEST(ContainerWalk, IsGivenUpWhenItTakesTooLong) {
  const HoldsFarTooMuch hog(60);
  const auto hogs = FlowThatLeaves(kNobodysCookie);
  ErrandsDesk desk;
  desk.errands->Give({}, {AllLeave()}, {{.key = 1, .task = hog.pid(), .flows = hogs.get()}});
  EXPECT_TRUE(ComesAbout([&] { return desk.stuck() == 1; }));
  EXPECT_TRUE(hogs->Find(kNobodysCookie));  // what was not found is not forgotten
}

TEST(ContainerWalk, EndsWithItsContainer) {
  const HoldsFarTooMuch hog(60);  // that it is over before we say so would take a second
  auto hogs = FlowThatLeaves(kNobodysCookie);
  ErrandsDesk desk;
  desk.errands->Give({}, {AllLeave()}, {{.key = 1, .task = hog.pid(), .flows = hogs.get()}});
  desk.errands->Forget(1);
  EXPECT_TRUE(hogs->Find(kNobodysCookie));
  hogs.reset();
  desk.errands->Finish();
  EXPECT_EQ(desk.moved() + desk.stuck(), 0u);
}

}  // namespace
}  // namespace shunt
