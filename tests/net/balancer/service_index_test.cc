// SPDX-License-Identifier: Apache-2.0
// ServiceIndex: which service an address belongs to, where networks and ports overlap.

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <tuple>
#include <vector>

#include "net/balancer/mix.h"
#include "net/balancer/service_table.h"
#include "tests/net/balancer/heap_calls.h"

namespace shunt::net {
namespace {

ServiceAddress AddressOf(const char* network, uint16_t first_port, uint16_t last_port,
                         Transport transport = Transport::kTcp) {
  return {*ParseSubnet(network), first_port, last_port, transport};
}

int64_t FindIn(const ServiceIndex& index, const char* ip, uint16_t port,
               Transport transport = Transport::kTcp) {
  return index.Find(transport, *IpAddress::Parse(ip), port);
}

TEST(ServiceIndex, FindsExactlyItsAddresses) {
  ServiceIndex index;
  EXPECT_EQ(FindIn(index, "10.0.0.1", 80), -1);
  ASSERT_TRUE(index.Add(AddressOf("10.0.0.1", 80, 80), 7));
  EXPECT_EQ(FindIn(index, "10.0.0.1", 80), 7);
  EXPECT_EQ(FindIn(index, "10.0.0.1", 81), -1);
  EXPECT_EQ(FindIn(index, "10.0.0.1", 79), -1);
  EXPECT_EQ(FindIn(index, "10.0.0.2", 80), -1);
  EXPECT_EQ(FindIn(index, "10.0.0.1", 80, Transport::kUdp), -1);
}

TEST(ServiceIndex, FindsBothEndsOfARange) {
  ServiceIndex index;
  ASSERT_TRUE(index.Add(AddressOf("10.0.0.1", 8000, 8010), 1));
  ASSERT_TRUE(index.Add(AddressOf("10.0.0.2", 0, 65535), 2));
  EXPECT_EQ(FindIn(index, "10.0.0.1", 7999), -1);
  EXPECT_EQ(FindIn(index, "10.0.0.1", 8000), 1);
  EXPECT_EQ(FindIn(index, "10.0.0.1", 8010), 1);
  EXPECT_EQ(FindIn(index, "10.0.0.1", 8011), -1);
  EXPECT_EQ(FindIn(index, "10.0.0.2", 0), 2);
  EXPECT_EQ(FindIn(index, "10.0.0.2", 65535), 2);
}

TEST(ServiceIndex, PrefersTheNarrowestNetworkThenTheNarrowestRange) {
  ServiceIndex index;
  ASSERT_TRUE(index.Add(AddressOf("0.0.0.0/0", 1, 65535), 1));
  ASSERT_TRUE(index.Add(AddressOf("10.0.0.0/8", 80, 443), 2));
  ASSERT_TRUE(index.Add(AddressOf("10.0.0.0/8", 80, 80), 3));
  ASSERT_TRUE(index.Add(AddressOf("10.0.0.1", 1, 1000), 4));
  ASSERT_TRUE(index.Add(AddressOf("10.0.0.0/8", 80, 90), 5));
  EXPECT_EQ(FindIn(index, "10.0.0.1", 80), 4) << "the network counts before the range";
  EXPECT_EQ(FindIn(index, "10.0.0.2", 80), 3);
  EXPECT_EQ(FindIn(index, "10.0.0.2", 85), 5);
  EXPECT_EQ(FindIn(index, "10.0.0.2", 443), 2);
  EXPECT_EQ(FindIn(index, "10.0.0.2", 444), 1) << "not a port of the narrow network";
  EXPECT_EQ(FindIn(index, "10.0.0.1", 2000), 1);
  EXPECT_EQ(FindIn(index, "11.0.0.1", 80), 1);
}

TEST(ServiceIndex, TakesTheRangeThatBeginsFirstOfTwoThatAreEquallyWide) {
  for (const bool swapped : {false, true}) {
    ServiceIndex index;
    ASSERT_TRUE(index.Add(swapped ? AddressOf("10.0.0.1", 85, 95) : AddressOf("10.0.0.1", 80, 90), swapped));
    ASSERT_TRUE(index.Add(swapped ? AddressOf("10.0.0.1", 80, 90) : AddressOf("10.0.0.1", 85, 95), !swapped));
    EXPECT_EQ(FindIn(index, "10.0.0.1", 87), 0);
    EXPECT_EQ(FindIn(index, "10.0.0.1", 91), 1);
  }
}

TEST(ServiceIndex, TellsWhenAnAddressIsAnothersAlready) {
  ServiceIndex index;
  ASSERT_TRUE(index.Add(AddressOf("10.0.0.0/24", 80, 90), 1));
  EXPECT_TRUE(index.Add(AddressOf("10.0.0.0/24", 80, 90), 1)) << "its own";
  EXPECT_FALSE(index.Add(AddressOf("10.0.0.0/24", 80, 90), 2));
  EXPECT_FALSE(index.Add(AddressOf("::ffff:10.0.0.0/120", 80, 90), 2)) << "in the other spelling";
  EXPECT_TRUE(index.Add(AddressOf("10.0.0.0/24", 80, 90, Transport::kUdp), 3));
  EXPECT_TRUE(index.Add(AddressOf("10.0.0.0/24", 80, 91), 4));
  EXPECT_TRUE(index.Add(AddressOf("10.0.0.0/25", 80, 90), 5));
  EXPECT_EQ(FindIn(index, "10.0.0.200", 80), 1);
  EXPECT_EQ(FindIn(index, "10.0.0.200", 80, Transport::kUdp), 3);
  EXPECT_EQ(FindIn(index, "10.0.0.200", 91), 4);
  EXPECT_EQ(FindIn(index, "10.0.0.100", 80), 5);
}

TEST(ServiceIndex, KeepsTheFamiliesApartAndTheSpellingsTogether) {
  ServiceIndex index;
  ASSERT_TRUE(index.Add(AddressOf("::/0", 80, 80), 6));
  ASSERT_TRUE(index.Add(AddressOf("::/32", 80, 80), 7));
  EXPECT_EQ(FindIn(index, "10.0.0.1", 80), -1) << "an IPv6 network holds no IPv4 address";
  EXPECT_EQ(FindIn(index, "::ffff:10.0.0.1", 80), -1);
  EXPECT_EQ(FindIn(index, "2001:db8::1", 80), 6);
  EXPECT_EQ(FindIn(index, "::1", 80), 7);
  ASSERT_TRUE(index.Add(AddressOf("10.0.0.0/8", 80, 80), 4));
  EXPECT_EQ(FindIn(index, "10.0.0.1", 80), 4);
  EXPECT_EQ(FindIn(index, "::ffff:10.0.0.1", 80), 4);
  ServiceIndex mapped;
  ASSERT_TRUE(mapped.Add(AddressOf("::ffff:10.0.0.0/104", 80, 80), 4));
  EXPECT_EQ(FindIn(mapped, "10.9.9.9", 80), 4);
}

TEST(ServiceIndex, FindsWhatALookAtAllAddressesFinds) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    uint64_t number = 0;
    const auto random = [&](uint64_t count) { return MixNth(seed, number++) % count; };
    // Few bits that differ, so that much of it overlaps.
    const auto ip = [&] {
      const uint64_t low = random(4) << 30 | random(4);
      return random(2) == 0 ? IpAddress(0, uint64_t{0xffff} << 32 | low) : IpAddress(random(2) << 63, low);
    };
    std::vector<ServiceAddress> all;
    ServiceIndex index;
    for (uint32_t i = 0; i < 20; ++i) {
      const IpAddress address = ip();
      const uint16_t first = static_cast<uint16_t>(random(10)),
                     last = static_cast<uint16_t>(first + random(10));
      const ServiceAddress one{Subnet(address, static_cast<int>(random(address.IsV4() ? 33 : 129))), first,
                               last, random(2) == 0 ? Transport::kTcp : Transport::kUdp};
      bool is_there = false;
      for (const ServiceAddress& other : all) is_there |= one == other;
      ASSERT_EQ(index.Add(one, static_cast<uint32_t>(all.size())), !is_there);
      if (!is_there) all.push_back(one);
    }
    for (int i = 0; i < 100; ++i) {
      const IpAddress address = ip();
      const uint16_t port = static_cast<uint16_t>(random(20));
      const Transport transport = random(2) == 0 ? Transport::kTcp : Transport::kUdp;
      int64_t best = -1;
      const auto rank = [&](int64_t which) {
        const ServiceAddress& it = all[static_cast<size_t>(which)];
        return std::tuple(-it.network.prefix_len(), it.last_port - it.first_port, it.first_port);
      };
      for (int64_t which = 0; which < static_cast<int64_t>(all.size()); ++which) {
        const ServiceAddress& it = all[static_cast<size_t>(which)];
        if (it.transport == transport && it.network.Contains(address) && it.first_port <= port &&
            port <= it.last_port && (best < 0 || rank(which) < rank(best)))
          best = which;
      }
      ASSERT_EQ(index.Find(transport, address, port), best) << "seed " << seed;
    }
  }
}

TEST(ServiceTable, IsReadWithoutTouchingTheHeap) {
  auto index = std::make_shared<ServiceIndex>();
  const auto network = [](const char* text) { return *ParseSubnet(text); };
  ASSERT_TRUE(index->Add({network("10.0.0.0/8"), 1, 65535, Transport::kTcp}, 0));
  ASSERT_TRUE(index->Add({network("10.1.2.3"), 80, 80, Transport::kTcp}, 1));
  ASSERT_TRUE(index->Add({network("fd00::/8"), 80, 90, Transport::kTcp}, 1));
  std::vector<std::shared_ptr<const Service>> services{std::make_shared<Service>(),
                                                       std::make_shared<Service>()};
  const ServiceTable table(index, services);
  const SockAddr v4 = *SockAddr::FromText("10.1.2.3:80"),
                 mapped = *SockAddr::FromText("[::ffff:10.1.2.3]:81"),
                 v6 = *SockAddr::FromText("[fd00::1]:85"), none = *SockAddr::FromText("[fe00::1]:85");
  const uint64_t before = HeapCalls();
  const Service* const found[] = {table.Find(Transport::kTcp, v4), table.Find(Transport::kTcp, mapped),
                                  table.Find(Transport::kTcp, v6), table.Find(Transport::kTcp, none),
                                  table.Find(Transport::kUdp, v4)};
  EXPECT_EQ(HeapCalls(), before);
  EXPECT_EQ(found[0], services[1].get());
  EXPECT_EQ(found[1], services[0].get());
  EXPECT_EQ(found[2], services[1].get());
  EXPECT_EQ(found[3], nullptr);
  EXPECT_EQ(found[4], nullptr);
  EXPECT_EQ(table.At(1), services[1].get());
  EXPECT_EQ(table.At(2), nullptr);
}

}  // namespace
}  // namespace shunt::net
