// SPDX-License-Identifier: Apache-2.0
// SockAddr: the address of an IPv4 or IPv6 socket as a value, ready to be handed to the kernel.
//
// A container's bytes become a SockAddr once, by Parse(); every decision is made on this copy and this copy
// is what the kernel gets, so what was decided on is what is used. Trivially copyable, 32 bytes, no heap
// except for text.

#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/result.h"
#include "net/ip_address.h"

namespace shunt::net {

// A decimal number from 0 to 65535 and nothing else: no sign, no blank.
std::optional<uint16_t> ParsePortNumber(absl::string_view text);

class SockAddr {
 public:
  // AF_UNSPEC, size 0: no address.
  SockAddr() : v6_{}, size_(0) {}

  // For ports in host byte order. The family is AF_INET for IPv4, else AF_INET6.
  SockAddr(const IpAddress& ip, uint16_t port);
  // With AF_INET6 an IPv4 address takes its mapped form. AF_INET needs an IPv4 address (checked).
  SockAddr(const IpAddress& ip, uint16_t port, sa_family_t family);

  // Reads what a program passed to connect(2) or bind(2), by the kernel's rules for each family:
  //   fewer than 2 or more than 128 bytes             EINVAL
  //   AF_INET, fewer than 16 bytes                    EINVAL
  //   AF_INET6, fewer than 24 bytes                   EINVAL (24 are enough: RFC 2133 had no scope id)
  //   any other family                                EAFNOSUPPORT
  // Bytes beyond the structure, and sin_zero, are dropped: the kernel does not look at them.
  // The kernel judges by the socket's domain first: an IPv6 socket wants 24 bytes whatever the family says,
  // and AF_UNSPEC means "disconnect" to connect(2). Who calls this has looked at the domain and at AF_UNSPEC
  // before.
  static Result<SockAddr> Parse(std::span<const std::byte> raw);

  // "192.0.2.1:80", "[2001:db8::1]:80", "[fe80::1%2]:80" (the zone as an interface's index).
  static absl::StatusOr<SockAddr> FromText(absl::string_view text);

  sa_family_t family() const { return any_.sa_family; }
  bool valid() const { return size_ != 0; }
  // Host byte order. sin_port and sin6_port lie at the same place.
  uint16_t port() const { return ntohs(v4_.sin_port); }
  void set_port(uint16_t port) { v4_.sin_port = htons(port); }
  IpAddress ip() const;
  // 0 for IPv4, and where a program passed no more than 27 bytes. An index of the *program's* network
  // namespace.
  uint32_t scope_id() const { return family() == AF_INET6 ? v6_.sin6_scope_id : 0; }
  // Host byte order; 0 for IPv4.
  uint32_t flowinfo() const { return family() == AF_INET6 ? ntohl(v6_.sin6_flowinfo) : 0; }

  const sockaddr* data() const { return &any_; }
  // 16, 28, or 24 for an AF_INET6 address that came without a scope id.
  socklen_t size() const { return size_; }

  // As FromText() reads it; an IPv4-mapped address of an IPv6 socket as "[::ffff:192.0.2.1]:80".
  std::string ToString() const;

  // Same family, address, port, scope and flow.
  friend bool operator==(const SockAddr& a, const SockAddr& b) {
    return a.family() == b.family() && a.port() == b.port() && a.ip() == b.ip() &&
           a.scope_id() == b.scope_id() && a.flowinfo() == b.flowinfo();
  }

 private:
  union {
    sockaddr any_;
    sockaddr_in v4_;
    sockaddr_in6 v6_;
  };
  socklen_t size_;
};

static_assert(sizeof(SockAddr) == 32);

}  // namespace shunt::net
