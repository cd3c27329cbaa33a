// SPDX-License-Identifier: Apache-2.0
// IpAddress: the edges of every predicate, and text.

#include "net/ip_address.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <unordered_set>

namespace shunt::net {
namespace {

IpAddress Ip(const char* text) {
  absl::StatusOr<IpAddress> ip = IpAddress::Parse(text);
  EXPECT_TRUE(ip.ok()) << text;
  return ip.value_or(IpAddress());
}

TEST(IpAddress, BothSpellingsOfAnIpv4AddressAreOneValue) {
  EXPECT_EQ(Ip("192.0.2.1"), Ip("::ffff:192.0.2.1"));
  EXPECT_EQ(Ip("192.0.2.1"), Ip("::ffff:c000:201"));
  EXPECT_EQ(Ip("192.0.2.1").Hash(), Ip("::ffff:c000:201").Hash());
  EXPECT_TRUE(Ip("::ffff:0.0.0.0").IsV4());
}

TEST(IpAddress, NeighboursOfTheMappedRangeAreIpv6) {
  EXPECT_TRUE(Ip("::fffe:ffff:ffff").IsV6());
  EXPECT_TRUE(Ip("::1:0:0:0").IsV6());
  EXPECT_TRUE(Ip("::192.0.2.1").IsV6());  // "IPv4-compatible", long dead: the kernel treats it as IPv6
  EXPECT_TRUE(Ip("1::ffff:192.0.2.1").IsV6());
}

TEST(IpAddress, KernelStructuresSurviveTheRoundTrip) {
  in_addr v4;
  ASSERT_EQ(inet_pton(AF_INET, "198.51.100.7", &v4), 1);
  EXPECT_EQ(IpAddress::FromV4(v4).ToV4().s_addr, v4.s_addr);
  EXPECT_EQ(IpAddress::FromV4(v4).V4Bits(), 0xc6336407u);

  in6_addr v6;
  ASSERT_EQ(inet_pton(AF_INET6, "2001:db8:1:2:3:4:5:6", &v6), 1);
  const in6_addr again = IpAddress::FromV6(v6).ToV6();
  EXPECT_EQ(std::memcmp(&again, &v6, sizeof v6), 0);

  in6_addr mapped;
  ASSERT_EQ(inet_pton(AF_INET6, "::ffff:198.51.100.7", &mapped), 1);
  const in6_addr from_v4 = IpAddress::FromV4(v4).ToV6();
  EXPECT_EQ(std::memcmp(&from_v4, &mapped, sizeof mapped), 0);
}

struct Range {
  const char* before;
  const char* first;
  const char* last;
  const char* after;
};

void ExpectExactly(const Range& range, bool (IpAddress::*predicate)() const) {
  EXPECT_FALSE((Ip(range.before).*predicate)()) << range.before;
  EXPECT_TRUE((Ip(range.first).*predicate)()) << range.first;
  EXPECT_TRUE((Ip(range.last).*predicate)()) << range.last;
  EXPECT_FALSE((Ip(range.after).*predicate)()) << range.after;
}

TEST(IpAddress, LoopbackIs127Slash8AndOneInEverySpelling) {
  ExpectExactly({"126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0"}, &IpAddress::IsLoopback);
  ExpectExactly({"::ffff:126.255.255.255", "::ffff:127.0.0.0", "::ffff:127.255.255.255", "::ffff:128.0.0.0"},
                &IpAddress::IsLoopback);
  ExpectExactly({"::", "::1", "::1", "::2"}, &IpAddress::IsLoopback);
  EXPECT_FALSE(Ip("::127.0.0.1").IsLoopback());
  EXPECT_FALSE(Ip("1::1").IsLoopback());
}

TEST(IpAddress, UnspecifiedIsZeroInEverySpellingAndNothingElse) {
  EXPECT_TRUE(Ip("0.0.0.0").IsUnspecified());
  EXPECT_TRUE(Ip("::").IsUnspecified());
  EXPECT_TRUE(Ip("::ffff:0.0.0.0").IsUnspecified());
  EXPECT_TRUE(IpAddress().IsUnspecified());
  EXPECT_FALSE(Ip("0.0.0.1").IsUnspecified());
  EXPECT_FALSE(Ip("::1").IsUnspecified());
  EXPECT_FALSE(Ip("1::").IsUnspecified());
  EXPECT_FALSE(Ip("1::ffff:0.0.0.0").IsUnspecified());
}

TEST(IpAddress, MulticastHasExactEdges) {
  ExpectExactly({"223.255.255.255", "224.0.0.0", "239.255.255.255", "240.0.0.0"}, &IpAddress::IsMulticast);
  EXPECT_FALSE(Ip("feff:ffff::").IsMulticast());
  EXPECT_TRUE(Ip("ff00::").IsMulticast());
  EXPECT_TRUE(Ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").IsMulticast());
}

TEST(IpAddress, LinkLocalHasExactEdges) {
  ExpectExactly({"169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0"},
                &IpAddress::IsLinkLocal);
  ExpectExactly({"fe7f:ffff:ffff:ffff::", "fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fec0::"},
                &IpAddress::IsLinkLocal);
}

TEST(IpAddress, OnlyAllOnesIsBroadcast) {
  EXPECT_TRUE(Ip("255.255.255.255").IsBroadcast());
  EXPECT_FALSE(Ip("255.255.255.254").IsBroadcast());
  EXPECT_FALSE(Ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").IsBroadcast());
}

TEST(IpAddress, TextIsShownAsPeopleWriteIt) {
  EXPECT_EQ(Ip("192.0.2.1").ToString(), "192.0.2.1");
  EXPECT_EQ(Ip("::ffff:192.0.2.1").ToString(), "192.0.2.1");
  EXPECT_EQ(Ip("2001:DB8:0:0::1").ToString(), "2001:db8::1");
  EXPECT_EQ(IpAddress().ToString(), "::");
}

TEST(IpAddress, TextThatIsNoAddressIsRefusedByName) {
  for (const char* text : {"", " ", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4 ", " 1.2.3.4",
                           "1.2.3.-4", "0x7f.0.0.1", "localhost", ":::", "1::2::3", "fe80::1%eth0", "[::1]",
                           "::1/64", "12345::", "1.2.3.4:80"}) {
    const absl::StatusOr<IpAddress> ip = IpAddress::Parse(text);
    ASSERT_FALSE(ip.ok()) << text;
    EXPECT_NE(ip.status().message().find(text), absl::string_view::npos) << ip.status();
  }
}

TEST(IpAddress, NothingHidesBehindANulByte) {
  EXPECT_FALSE(IpAddress::Parse(absl::string_view("127.0.0.1\0x", 11)).ok());
}

TEST(IpAddress, HashesOfNeighboursDiffer) {
  std::set<size_t> low_bits;
  std::unordered_set<IpAddress> addresses;
  for (uint64_t i = 0; i < 256; ++i) {
    const IpAddress ip(0, 0xffff0a000000u + i);
    low_bits.insert(ip.Hash() % 256);
    addresses.insert(ip);
  }
  EXPECT_EQ(addresses.size(), 256u);
  EXPECT_GT(low_bits.size(), 128u);  // a random function fills about 162 of 256 places
}

}  // namespace
}  // namespace shunt::net
