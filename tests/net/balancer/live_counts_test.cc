// SPDX-License-Identifier: Apache-2.0
// LiveCounts and ConnectionCensus with real connections on loopback: what is counted, for whom, and from
// when.

#include "net/balancer/live_counts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <string>
#include <vector>

#include "core/check.h"

namespace shunt::net {
namespace {

using testing::HasSubstr;
using testing::Optional;

constexpr int64_t kMs = 1'000'000;

class CountedPeer {
 public:
  explicit CountedPeer(const char* address = "127.0.0.1:0")
      : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const SockAddr any = *SockAddr::FromText(address);
    SHUNT_CHECK(bind(fd_.get(), any.data(), any.size()) == 0);
    SHUNT_CHECK(listen(fd_.get(), 64) == 0);
    sockaddr_in name{};
    socklen_t size = sizeof(name);
    SHUNT_CHECK(getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&name), &size) == 0);
    port_ = ntohs(name.sin_port);
  }
  SockAddr address() const { return SockAddr(*IpAddress::Parse("127.0.0.1"), port_); }
  // A client's end.
  Fd Connect(sa_family_t family = AF_INET) const {
    Fd client(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const SockAddr to(address().ip(), port_, family);
    SHUNT_CHECK(connect(client.get(), to.data(), to.size()) == 0);
    return client;
  }
  Fd Accept() const { return Fd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC)); }

 private:
  Fd fd_;
  uint16_t port_ = 0;
};

class LiveCountsTest : public testing::Test {
 protected:
  LiveCountsTest() { counts_.Grow(4); }
  void Watch(const std::vector<const CountedPeer*>& listeners, bool by_rtt = false) {
    std::vector<Balancer::Counted> backends;
    for (const CountedPeer* listener : listeners)
      backends.push_back({listener->address(), static_cast<uint32_t>(backends.size()), by_rtt});
    live_.Watch(backends);
  }
  // When it is due.
  void Look() {
    now_ = std::max(now_, live_.NextDue());
    live_.Advance(now_);
  }

  BackendCountBook counts_{2};
  LiveCounts live_{counts_};
  int64_t now_ = 1'000'000 * kMs;
};

TEST_F(LiveCountsTest, CountConnectionsByTheirPeers) {
  const CountedPeer a, b;
  std::vector<Fd> held;
  for (int i = 0; i < 3; ++i) held.push_back(a.Connect());
  held.push_back(a.Connect(AF_INET6));
  held.push_back(b.Connect());
  EXPECT_EQ(live_.NextDue(), LiveCounts::kNever);
  Watch({&a, &b});
  Look();
  EXPECT_EQ(counts_.Open(0), 4u) << "in either family; the servers' ends have other peers";
  EXPECT_EQ(counts_.Open(1), 1u);
  held.erase(held.begin());
  EXPECT_EQ(counts_.Open(0), 4u) << "it has not looked since";
  Look();
  EXPECT_EQ(counts_.Open(0), 3u);
}

// The kernel is told which ports to look for; where they are too many, it is not.
TEST(ConnectionCensus, SeesThoseWhosePeerHasOneOfThePorts) {
  std::vector<CountedPeer> peers(ConnectionCensus::kMostPorts + 1);
  const CountedPeer other;
  std::vector<Fd> held = [&] {
    std::vector<Fd> all;
    for (const CountedPeer& peer : peers) all.push_back(peer.Connect());
    all.push_back(peers[0].Connect(AF_INET6));
    all.push_back(other.Connect());
    return all;
  }();
  auto census = ConnectionCensus::Open();
  ASSERT_TRUE(census.has_value());
  for (const size_t count : {size_t{1}, size_t{2}, ConnectionCensus::kMostPorts}) {
    std::vector<uint16_t> ports, seen;
    for (size_t i = 0; i < count; ++i) ports.push_back(peers[i].address().port());
    std::vector<uint16_t> expected = ports;
    expected.push_back(ports[0]);  // of IPv6
    ASSERT_TRUE(census->Visit(false, ports, [&](const OpenConnection& one) { seen.push_back(one.port); }));
    EXPECT_THAT(seen, testing::UnorderedElementsAreArray(expected)) << count;
  }
  std::vector<uint16_t> all, seen;
  for (const CountedPeer& peer : peers) all.push_back(peer.address().port());
  ASSERT_TRUE(census->Visit(false, all, [&](const OpenConnection& one) { seen.push_back(one.port); }));
  EXPECT_THAT(seen, testing::IsSupersetOf(all));
  EXPECT_THAT(seen, testing::Contains(other.address().port()));
}

TEST_F(LiveCountsTest, CountAConnectionUntilItsProgramHasClosedIt) {
  const CountedPeer a;
  Fd client = a.Connect();
  a.Accept();  // and closed
  pollfd ended{.fd = client.get(), .events = POLLRDHUP, .revents = 0};
  ASSERT_EQ(poll(&ended, 1, 10'000), 1);
  Watch({&a});
  Look();
  EXPECT_EQ(counts_.Open(0), 1u) << "CLOSE_WAIT";
  client.reset();
  Look();
  EXPECT_EQ(counts_.Open(0), 0u);
}

TEST_F(LiveCountsTest, WhatReactorsHaveBegunSinceIsAdded) {
  const CountedPeer a;
  const Fd held = a.Connect();
  Watch({&a});
  counts_.At(0, 0).Opened();  // that one
  Look();
  ASSERT_EQ(counts_.Open(0), 1u);
  counts_.At(1, 0).Opened();
  counts_.At(0, 0).Begin();
  EXPECT_EQ(counts_.Open(0), 3u);
  counts_.At(0, 0).End();
  EXPECT_EQ(counts_.Open(0), 2u);
  Look();
  EXPECT_EQ(counts_.Open(0), 1u) << "the kernel knows better";
}

TEST_F(LiveCountsTest, PlacesAreThereAfterTheFirstLookAndCountAllConnections) {
  const CountedPeer a, b;
  std::vector<Fd> held;
  for (int i = 0; i < 3; ++i) held.push_back(a.Connect());
  const auto watch = [&](bool limited) {
    live_.Watch(
        {{.address = a.address(), .slot = 0, .limited = limited}, {.address = b.address(), .slot = 1}});
  };
  watch(true);
  EXPECT_FALSE(counts_.PlacesOf(0).Hold(100));
  Look();
  EXPECT_EQ(counts_.PlacesOf(0).taken(), 3u);
  ASSERT_TRUE(counts_.PlacesOf(0).Hold(4));
  held.push_back(a.Connect());
  counts_.PlacesOf(0).Begin();
  held.erase(held.begin());
  EXPECT_FALSE(counts_.PlacesOf(0).Hold(4));
  Look();
  EXPECT_EQ(counts_.PlacesOf(0).taken(), 3u) << "one more, one less";
  watch(false);
  watch(true);
  EXPECT_FALSE(counts_.PlacesOf(0).Hold(100)) << "nobody has looked since there is a limit";
  EXPECT_LT(live_.NextDue(), now_ + LiveCounts::kInterval);
}

TEST_F(LiveCountsTest, LookMoreOftenWhileSomebodyWaits) {
  const CountedPeer a;
  Watch({&a});
  Look();
  live_.Hurry(true);
  const int64_t due = live_.NextDue();
  EXPECT_LT(due, now_ + LiveCounts::kInterval / 2);
  EXPECT_FALSE(live_.Advance(due - 1));
  EXPECT_TRUE(live_.Advance(due));
  EXPECT_LT(live_.NextDue(), due + LiveCounts::kInterval / 2) << "again";
  live_.Hurry(false);
  EXPECT_GE(live_.NextDue(), due + LiveCounts::kInterval);
}

TEST_F(LiveCountsTest, LookAtLeastSoFarApart) {
  const CountedPeer a;
  Watch({&a});
  Look();
  EXPECT_GE(live_.NextDue(), now_ + LiveCounts::kInterval);
  const Fd held = a.Connect();
  live_.Advance(now_ + LiveCounts::kInterval / 2);
  EXPECT_EQ(counts_.Open(0), 0u);
  const CountedPeer b;
  Watch({&a, &b});
  EXPECT_LT(live_.NextDue(), now_ + LiveCounts::kInterval) << "of a new backend nothing is known";
  Watch({});
  EXPECT_EQ(live_.NextDue(), LiveCounts::kNever);
}

TEST_F(LiveCountsTest, KnowHowFarAwayABackendIs) {
  const CountedPeer a, b, c;
  const Fd held = a.Connect();
  Watch({&a, &b, &c}, /*by_rtt=*/true);
  Look();
  EXPECT_GT(counts_.Rtt(0), 0u) << "of the connection that is there";
  EXPECT_LT(counts_.Rtt(0), 1'000'000u);
  EXPECT_EQ(counts_.Rtt(1), 0u) << "there is none";
  // Our connects tell more: ten of 3 ms.
  for (int i = 0; i < 10; ++i) {
    BackendCounts::Add(counts_.At(0, 1).connected);
    BackendCounts::Add(counts_.At(0, 1).connect_ns, 3 * kMs);
  }
  Look();
  EXPECT_EQ(counts_.Rtt(1), 3000u);
  // An average: after ten seconds 1 - 1/e of the way.
  for (int i = 0; i < 10; ++i) {
    BackendCounts::Add(counts_.At(0, 1).connected);
    BackendCounts::Add(counts_.At(0, 1).connect_ns, 5 * kMs);
  }
  now_ += 10'000 * kMs;
  Look();
  EXPECT_NEAR(counts_.Rtt(1), 3000 + 2000 * 0.632, 20);
}

TEST_F(LiveCountsTest, SayOnceWhyThereAreNoneAndGoByWhatHasBegunLately) {
  const CountedPeer a;
  const Fd held = a.Connect();
  Watch({&a});
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &none);
  Look();
  const std::optional<std::string> failure = live_.TakeFailure();
  Look();
  const std::optional<std::string> again = live_.TakeFailure();
  setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_THAT(failure, Optional(HasSubstr("the kernel does not tell which connections there are")));
  EXPECT_FALSE(again);
  EXPECT_EQ(counts_.Open(0), 0u);
  counts_.At(0, 0).Opened();
  EXPECT_EQ(counts_.Open(0), 1u);
  Look();
  EXPECT_EQ(counts_.Open(0), 1u) << "counted again";
}

}  // namespace
}  // namespace shunt::net
