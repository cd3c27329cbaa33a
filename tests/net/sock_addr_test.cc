// SPDX-License-Identifier: Apache-2.0
// SockAddr: every length and family that a container can pass, judged as the running kernel judges it; and
// text.

#include "net/sock_addr.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>

#include "core/fd.h"

namespace shunt::net {
namespace {

IpAddress Ip(const char* text) {
  return IpAddress::Parse(text).value();
}

// 130 bytes that begin with `family` and have no zero byte behind it, so that a wrong offset shows.
std::array<std::byte, 130> Bytes(sa_family_t family) {
  std::array<std::byte, 130> bytes;
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i + 1);
  std::memcpy(bytes.data(), &family, sizeof family);
  return bytes;
}

int ParseErrno(std::span<const std::byte> raw) {
  const Result<SockAddr> address = SockAddr::Parse(raw);
  return address ? 0 : address.error().code;
}

TEST(SockAddr, EveryLengthOfAnIpv4AddressIsJudgedByTheRule) {
  const auto bytes = Bytes(AF_INET);
  for (size_t length = 0; length <= bytes.size(); ++length) {
    const int expected = length >= 16 && length <= 128 ? 0 : EINVAL;
    EXPECT_EQ(ParseErrno(std::span(bytes).first(length)), expected) << length;
  }
}

TEST(SockAddr, EveryLengthOfAnIpv6AddressIsJudgedByTheRule) {
  const auto bytes = Bytes(AF_INET6);
  for (size_t length = 0; length <= bytes.size(); ++length) {
    const int expected = length >= 24 && length <= 128 ? 0 : EINVAL;
    EXPECT_EQ(ParseErrno(std::span(bytes).first(length)), expected) << length;
  }
}

TEST(SockAddr, EveryOtherFamilyIsRefusedAtEveryLengthThatHasOne) {
  for (int family = 0; family <= 0xffff; ++family) {
    if (family == AF_INET || family == AF_INET6) continue;
    const auto bytes = Bytes(static_cast<sa_family_t>(family));
    ASSERT_EQ(ParseErrno(std::span(bytes).first(16)), EAFNOSUPPORT) << family;
  }
  for (const int family : {AF_UNSPEC, AF_UNIX, AF_NETLINK, AF_VSOCK}) {
    const auto bytes = Bytes(static_cast<sa_family_t>(family));
    for (size_t length = 0; length <= bytes.size(); ++length) {
      const int expected = length >= 2 && length <= 128 ? EAFNOSUPPORT : EINVAL;
      EXPECT_EQ(ParseErrno(std::span(bytes).first(length)), expected) << family << " " << length;
    }
  }
}

// The rule above is the kernel's: ask it. Port 0 makes a bind succeed for any length that it takes.
void ExpectTheKernelToAgree(sa_family_t family) {
  std::array<std::byte, 130> bytes{};
  std::memcpy(bytes.data(), &family, sizeof family);
  for (size_t length = 0; length <= bytes.size(); ++length) {
    const Fd socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!socket.valid()) GTEST_SKIP() << "no sockets of family " << family << ": " << std::strerror(errno);
    const int result =
        bind(socket.get(), reinterpret_cast<const sockaddr*>(bytes.data()), static_cast<socklen_t>(length));
    EXPECT_EQ(ParseErrno(std::span(bytes).first(length)), result == 0 ? 0 : errno) << length;
  }
}

TEST(SockAddr, TheKernelJudgesIpv4LengthsLikewise) {
  ExpectTheKernelToAgree(AF_INET);
}
TEST(SockAddr, TheKernelJudgesIpv6LengthsLikewise) {
  ExpectTheKernelToAgree(AF_INET6);
}

TEST(SockAddr, WhatIsReadIsHandedOnByteForByte) {
  const auto v4 = Bytes(AF_INET);
  const SockAddr a = SockAddr::Parse(std::span(v4).first(128)).value();
  EXPECT_EQ(a.size(), 16u);
  EXPECT_EQ(std::memcmp(a.data(), v4.data(), 8), 0);
  EXPECT_EQ(a.family(), AF_INET);
  EXPECT_EQ(a.port(), 0x0304);
  EXPECT_EQ(a.ip(), Ip("5.6.7.8"));

  const auto v6 = Bytes(AF_INET6);
  const SockAddr b = SockAddr::Parse(std::span(v6).first(128)).value();
  EXPECT_EQ(b.size(), 28u);
  EXPECT_EQ(std::memcmp(b.data(), v6.data(), 28), 0);
  EXPECT_EQ(b.family(), AF_INET6);
  EXPECT_EQ(b.port(), 0x0304);
  EXPECT_EQ(b.flowinfo(), 0x05060708u);
  EXPECT_EQ(b.ip(), Ip("90a:b0c:d0e:f10:1112:1314:1516:1718"));
  EXPECT_EQ(b.scope_id(), ntohl(0x191a1b1c));
}

TEST(SockAddr, AScopeIdCountsOnlyIfAllOfItIsThere) {
  const auto bytes = Bytes(AF_INET6);
  for (size_t length = 24; length < 28; ++length) {
    const SockAddr address = SockAddr::Parse(std::span(bytes).first(length)).value();
    EXPECT_EQ(address.size(), 24u) << length;
    EXPECT_EQ(address.scope_id(), 0u) << length;
  }
}

TEST(SockAddr, PaddingDoesNotMakeAddressesDiffer) {
  auto bytes = Bytes(AF_INET);
  const SockAddr a = SockAddr::Parse(std::span(bytes).first(16)).value();
  bytes[15] = std::byte{0};
  const SockAddr b = SockAddr::Parse(std::span(bytes).first(16)).value();
  EXPECT_EQ(a, b);
  EXPECT_EQ(std::memcmp(a.data(), b.data(), 16), 0);
}

TEST(SockAddr, EachPartMakesAddressesDiffer) {
  const SockAddr base = SockAddr::FromText("[fe80::1%2]:80").value();
  EXPECT_EQ(base, SockAddr::FromText("[fe80::1%2]:80").value());
  for (const char* other : {"[fe80::1%3]:80", "[fe80::1]:80", "[fe80::2%2]:80", "[fe80::1%2]:81"}) {
    EXPECT_FALSE(base == SockAddr::FromText(other).value()) << other;
  }
  EXPECT_FALSE(SockAddr(Ip("192.0.2.1"), 80, AF_INET) == SockAddr(Ip("192.0.2.1"), 80, AF_INET6));

  std::array<std::byte, 28> raw{};
  std::memcpy(raw.data(), base.data(), raw.size());
  raw[7] = std::byte{1};
  EXPECT_FALSE(base == SockAddr::Parse(raw).value()) << "flowinfo";
}

TEST(SockAddr, AnIpv4AddressTakesTheFormOfTheSocketsFamily) {
  const SockAddr v4(Ip("192.0.2.1"), 443);
  EXPECT_EQ(v4.family(), AF_INET);
  EXPECT_EQ(v4.size(), 16u);
  EXPECT_EQ(v4.ToString(), "192.0.2.1:443");

  const SockAddr mapped(Ip("192.0.2.1"), 443, AF_INET6);
  EXPECT_EQ(mapped.family(), AF_INET6);
  EXPECT_EQ(mapped.size(), 28u);
  EXPECT_EQ(mapped.ip(), v4.ip());
  EXPECT_EQ(mapped.ToString(), "[::ffff:192.0.2.1]:443");
}

TEST(SockAddr, ThePortCanBeReplaced) {
  SockAddr address = SockAddr::FromText("[2001:db8::1]:80").value();
  address.set_port(8080);
  EXPECT_EQ(address.ToString(), "[2001:db8::1]:8080");
}

TEST(SockAddr, NoAddressIsNoAddress) {
  const SockAddr none;
  EXPECT_FALSE(none.valid());
  EXPECT_EQ(none.family(), AF_UNSPEC);
  EXPECT_EQ(none.size(), 0u);
  EXPECT_EQ(none.ToString(), "(no address)");
}

TEST(SockAddr, TextSurvivesTheRoundTrip) {
  for (const char* text : {"0.0.0.0:0", "192.0.2.1:80", "255.255.255.255:65535", "[::]:0", "[::1]:80",
                           "[2001:db8::1]:65535", "[::ffff:192.0.2.1]:1", "[fe80::1%4294967295]:80"}) {
    const absl::StatusOr<SockAddr> address = SockAddr::FromText(text);
    ASSERT_TRUE(address.ok()) << address.status();
    EXPECT_EQ(address->ToString(), text);
  }
}

TEST(SockAddr, TextThatIsNoAddressIsRefusedByName) {
  for (const char* text : {"",
                           ":",
                           ":80",
                           "192.0.2.1",
                           "192.0.2.1:",
                           "192.0.2.1:65536",
                           "192.0.2.1:-1",
                           "192.0.2.1:+1",
                           "192.0.2.1: 1",
                           "192.0.2.1:80 ",
                           "192.0.2.1:0x50",
                           "::1",
                           "::1:80",
                           "2001:db8::1:80",
                           "[::1]",
                           "[::1]80",
                           "[::1:80",
                           "::1]:80",
                           "[192.0.2.1]:80",
                           "[]:80",
                           "[:80",
                           "]:80",
                           "[::1%]:80",
                           "[::1%lo]:80",
                           "[::1%4294967296]:80",
                           "host:80",
                           "192.0.2.1%1:80",
                           "[::1]x:80",
                           "x[::1]:80"}) {
    const absl::StatusOr<SockAddr> address = SockAddr::FromText(text);
    ASSERT_FALSE(address.ok()) << text;
    EXPECT_NE(address.status().message().find(text), absl::string_view::npos) << address.status();
  }
}

TEST(SockAddr, APortNumberIsDigitsUpTo65535) {
  EXPECT_EQ(ParsePortNumber("0"), 0);
  EXPECT_EQ(ParsePortNumber("65535"), 65535);
  for (const char* text : {"", "-0", "-1", "+1", " 1", "1 ", "1.0", "0x1", "65536", "18446744073709551617"}) {
    EXPECT_EQ(ParsePortNumber(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace shunt::net
