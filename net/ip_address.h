// SPDX-License-Identifier: Apache-2.0
// IpAddress: one IPv4 or IPv6 address as a value of 16 bytes.
//
// IPv4 is kept in its v4-mapped form (::ffff:a.b.c.d). An IPv6 socket that talks to a mapped address sends
// IPv4, so the two spellings mean the same peer and compare equal: no rule can be evaded by choosing the
// other spelling. Trivially copyable, no heap except in ToString() and in the errors of Parse().

#pragma once

#include <netinet/in.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace shunt::net {

class IpAddress {
 public:
  // The IPv6 unspecified address, ::.
  constexpr IpAddress() = default;

  // The 128 bits, most significant half first, in host byte order.
  constexpr IpAddress(uint64_t high, uint64_t low) : high_(high), low_(low) {}

  static IpAddress FromV4(in_addr address) { return {0, kMappedPrefix | ntohl(address.s_addr)}; }
  static IpAddress FromV6(const in6_addr& address);

  // Takes what inet_pton(3) takes: "10.0.0.1", "fe80::1", "::ffff:10.0.0.1"; no zone, no port, no name.
  static absl::StatusOr<IpAddress> Parse(absl::string_view text);

  constexpr uint64_t high() const { return high_; }
  constexpr uint64_t low() const { return low_; }

  // True for IPv4, in either spelling.
  constexpr bool IsV4() const { return high_ == 0 && (low_ >> 32) == 0xffff; }
  constexpr bool IsV6() const { return !IsV4(); }

  // Host byte order. Only for IsV4().
  constexpr uint32_t V4Bits() const { return static_cast<uint32_t>(low_); }
  // Network byte order. Only for IsV4().
  in_addr ToV4() const { return {htonl(V4Bits())}; }
  // Every address has this form; IPv4 gives ::ffff:a.b.c.d.
  in6_addr ToV6() const;

  // 127.0.0.0/8 and ::1.
  constexpr bool IsLoopback() const { return IsV4() ? (V4Bits() >> 24) == 127 : (high_ == 0 && low_ == 1); }
  // 0.0.0.0 and ::, which a connect() takes for the machine itself.
  constexpr bool IsUnspecified() const { return high_ == 0 && (low_ == 0 || low_ == kMappedPrefix); }
  // 224.0.0.0/4 and ff00::/8.
  constexpr bool IsMulticast() const { return IsV4() ? (V4Bits() >> 28) == 0xe : (high_ >> 56) == 0xff; }
  // 169.254.0.0/16 and fe80::/10.
  constexpr bool IsLinkLocal() const { return IsV4() ? (V4Bits() >> 16) == 0xa9fe : (high_ >> 54) == 0x3fa; }
  // 255.255.255.255. The broadcast addresses of networks cannot be told from the address alone.
  constexpr bool IsBroadcast() const { return IsV4() && V4Bits() == 0xffffffff; }

  // "10.0.0.1" for IPv4 (in either spelling), else as inet_ntop(3): "fe80::1".
  std::string ToString() const;

  // Spreads all 128 bits over the result; good enough for a table, not against somebody who wants collisions.
  constexpr size_t Hash() const {
    const uint64_t mixed = (high_ ^ (low_ * 0x9e3779b97f4a7c15u)) * 0xff51afd7ed558ccdu;
    return static_cast<size_t>(mixed ^ (mixed >> 32));
  }

  friend constexpr bool operator==(const IpAddress&, const IpAddress&) = default;

 private:
  static constexpr uint64_t kMappedPrefix = uint64_t{0xffff} << 32;

  uint64_t high_ = 0;
  uint64_t low_ = 0;
};

static_assert(sizeof(IpAddress) == 16);

}  // namespace shunt::net

template <>
struct std::hash<shunt::net::IpAddress> {
  size_t operator()(const shunt::net::IpAddress& address) const { return address.Hash(); }
};
