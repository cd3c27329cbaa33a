// SPDX-License-Identifier: Apache-2.0
// Subnet and SubnetSet: edges of every prefix length, the border between IPv4 and IPv6, notation.

#include "net/subnet_set.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace shunt::net {
namespace {

IpAddress Ip(const char* text) {
  return IpAddress::Parse(text).value();
}

Subnet Net(const std::string& text) {
  const absl::StatusOr<Subnet> subnet = ParseSubnet(text);
  EXPECT_TRUE(subnet.ok()) << subnet.status();
  return subnet.value_or(Subnet());
}

TEST(Subnet, EveryIpv4PrefixEndsExactlyWhereItShould) {
  const uint32_t base = 0xaaaaaaaa;
  for (int length = 0; length <= 32; ++length) {
    const Subnet subnet(IpAddress(0, 0xffff00000000u | base), length);
    EXPECT_EQ(subnet.prefix_len(), length);
    EXPECT_TRUE(subnet.IsV4());
    for (int bit = 0; bit < 32; ++bit) {
      const IpAddress flipped(0, 0xffff00000000u | (base ^ (uint32_t{1} << (31 - bit))));
      EXPECT_EQ(subnet.Contains(flipped), bit >= length) << length << " " << bit;
    }
  }
}

TEST(Subnet, EveryIpv6PrefixEndsExactlyWhereItShould) {
  const uint64_t base = 0xaaaaaaaaaaaaaaaa;
  for (int length = 0; length <= 128; ++length) {
    const Subnet subnet(IpAddress(base, base), length);
    EXPECT_EQ(subnet.prefix_len(), length);
    EXPECT_FALSE(subnet.IsV4());
    for (int bit = 0; bit < 128; ++bit) {
      const uint64_t mask = uint64_t{1} << (63 - bit % 64);
      const IpAddress flipped(bit < 64 ? base ^ mask : base, bit < 64 ? base : base ^ mask);
      EXPECT_EQ(subnet.Contains(flipped), bit >= length) << length << " " << bit;
    }
  }
}

TEST(Subnet, AnIpv4NetworkContainsTheMappedSpelling) {
  EXPECT_TRUE(Net("10.0.0.0/8").Contains(Ip("::ffff:10.1.2.3")));
  EXPECT_FALSE(Net("10.0.0.0/8").Contains(Ip("::10.1.2.3")));
}

TEST(Subnet, AMappedNetworkIsThatIpv4Network) {
  EXPECT_EQ(Net("::ffff:10.0.0.0/104"), Net("10.0.0.0/8"));
  EXPECT_EQ(Net("::ffff:0:0/96"), Net("0.0.0.0/0"));
  EXPECT_EQ(Net("::ffff:10.1.2.3"), Net("10.1.2.3/32"));
}

TEST(Subnet, AllOfIpv6IsNotIpv4AndTheOtherWayRound) {
  EXPECT_TRUE(Net("::/0").Contains(Ip("2001:db8::1")));
  EXPECT_FALSE(Net("::/0").Contains(Ip("10.0.0.1")));
  EXPECT_FALSE(Net("::/64").Contains(Ip("::ffff:10.0.0.1")));
  EXPECT_TRUE(Net("0.0.0.0/0").Contains(Ip("10.0.0.1")));
  EXPECT_FALSE(Net("0.0.0.0/0").Contains(Ip("::1")));
  EXPECT_FALSE(Net("::/0").Overlaps(Net("0.0.0.0/0")));
  EXPECT_FALSE(Net("0.0.0.0/0").Overlaps(Net("::/0")));
}

TEST(Subnet, BitsBehindThePrefixDoNotCount) {
  EXPECT_EQ(Net("10.1.2.3/8"), Net("10.0.0.0/8"));
  EXPECT_EQ(Net("fd00::1/8").ToString(), "fd00::/8");
}

TEST(Subnet, CoversAndOverlapsFollowThePrefixes) {
  EXPECT_TRUE(Net("10.0.0.0/8").Covers(Net("10.1.0.0/16")));
  EXPECT_TRUE(Net("10.0.0.0/8").Covers(Net("10.0.0.0/8")));
  EXPECT_FALSE(Net("10.1.0.0/16").Covers(Net("10.0.0.0/8")));
  EXPECT_FALSE(Net("10.0.0.0/16").Covers(Net("10.0.0.0/8")));
  EXPECT_FALSE(Net("::/64").Covers(Net("::/0")));
  EXPECT_TRUE(Net("10.1.0.0/16").Overlaps(Net("10.0.0.0/8")));
  EXPECT_TRUE(Net("10.0.0.0/8").Overlaps(Net("10.1.0.0/16")));
  EXPECT_FALSE(Net("10.0.0.0/9").Overlaps(Net("10.128.0.0/9")));
}

TEST(Subnet, TextSurvivesTheRoundTrip) {
  for (const char* text :
       {"0.0.0.0/0", "10.0.0.0/8", "192.0.2.1/32", "::/0", "fd00::/8", "::1/128", "::/96"}) {
    EXPECT_EQ(Net(text).ToString(), text);
  }
  EXPECT_EQ(Net("192.0.2.1").ToString(), "192.0.2.1/32");
  EXPECT_EQ(Net("::1").ToString(), "::1/128");
}

TEST(Subnet, TextThatIsNoNetworkIsRefusedByName) {
  for (const char* text : {"",
                           "/",
                           "/8",
                           "10.0.0.0/",
                           "10.0.0.0/33",
                           "10.0.0.0/-1",
                           "10.0.0.0/+8",
                           "10.0.0.0/ 8",
                           "10.0.0.0/8/8",
                           "10.0.0.0/8 ",
                           "10.0.0/8",
                           "10/8",
                           "10.0.0.0/255.0.0.0",
                           "::/129",
                           "::/",
                           "fd00::/8x",
                           "localhost",
                           "[::1]/8",
                           "::ffff:10.0.0.0/8",
                           "::ffff:0.0.0.0/95",
                           "10.0.0.0/65544",
                           "10.0.0.0/4294967304"}) {
    const absl::StatusOr<Subnet> subnet = ParseSubnet(text);
    ASSERT_FALSE(subnet.ok()) << text;
    EXPECT_NE(subnet.status().message().find(text), absl::string_view::npos) << subnet.status();
  }
}

TEST(SubnetSet, ContainsWhatAnyOfItsNetworksContains) {
  SubnetSet set;
  EXPECT_FALSE(set.Contains(Ip("10.0.0.1")));
  ASSERT_TRUE(set.Add(Net("10.0.0.0/8")));
  ASSERT_TRUE(set.Add(Net("fd00::/8")));
  EXPECT_TRUE(set.Contains(Ip("10.0.0.1")));
  EXPECT_TRUE(set.Contains(Ip("::ffff:10.0.0.1")));
  EXPECT_TRUE(set.Contains(Ip("fd12::1")));
  EXPECT_FALSE(set.Contains(Ip("11.0.0.1")));
  EXPECT_FALSE(set.Contains(Ip("fe80::1")));
  EXPECT_TRUE(set.Overlaps(Net("10.1.0.0/16")));
  EXPECT_TRUE(set.Overlaps(Net("0.0.0.0/0")));
  EXPECT_FALSE(set.Overlaps(Net("192.168.0.0/16")));
}

TEST(SubnetSet, WhatIsCoveredTakesNoPlace) {
  SubnetSet set;
  ASSERT_TRUE(set.Add(Net("10.0.0.0/8")));
  ASSERT_TRUE(set.Add(Net("10.0.0.0/8")));
  ASSERT_TRUE(set.Add(Net("10.1.0.0/16")));
  EXPECT_EQ(set.size(), 1u);
}

TEST(SubnetSet, AFullSetSaysSoAndKeepsWhatItHas) {
  SubnetSet set;
  for (size_t i = 0; i < SubnetSet::kCapacity; ++i)
    ASSERT_TRUE(set.Add(Net(absl::StrCat("10.0.", i, ".0/24"))));
  EXPECT_FALSE(set.Add(Net("192.168.0.0/16")));
  EXPECT_TRUE(set.Add(Net("10.0.1.0/25")));
  EXPECT_EQ(set.size(), SubnetSet::kCapacity);
  EXPECT_TRUE(set.Contains(Ip("10.0.63.1")));
  EXPECT_FALSE(set.Contains(Ip("192.168.0.1")));
}

TEST(SubnetSet, AddAllTakesEverythingOrSaysThatItDidNot) {
  SubnetSet some;
  ASSERT_TRUE(some.Add(Net("10.0.0.0/8")));
  ASSERT_TRUE(some.Add(Net("192.168.0.0/16")));
  SubnetSet set;
  ASSERT_TRUE(set.AddAll(some));
  EXPECT_EQ(set.size(), 2u);

  SubnetSet full;
  for (size_t i = 0; i < SubnetSet::kCapacity - 1; ++i)
    ASSERT_TRUE(full.Add(Net(absl::StrCat("172.16.", i, ".0/24"))));
  EXPECT_FALSE(full.AddAll(some));
}

}  // namespace
}  // namespace shunt::net
