// SPDX-License-Identifier: Apache-2.0
// IpAddress to and from the kernel's structures and people's text.

#include "net/ip_address.h"

#include <arpa/inet.h>
#include <endian.h>

#include <cstring>

#include "absl/strings/str_cat.h"

namespace shunt::net {

IpAddress IpAddress::FromV6(const in6_addr& address) {
  uint64_t halves[2];
  std::memcpy(halves, &address, sizeof halves);
  return {be64toh(halves[0]), be64toh(halves[1])};
}

in6_addr IpAddress::ToV6() const {
  const uint64_t halves[2] = {htobe64(high_), htobe64(low_)};
  in6_addr address;
  std::memcpy(&address, halves, sizeof address);
  return address;
}

absl::StatusOr<IpAddress> IpAddress::Parse(absl::string_view text) {
  const std::string terminated(text);
  // inet_pton reads up to the first NUL byte; what is behind it would be ignored in silence.
  if (terminated.find('\0') == std::string::npos) {
    in_addr v4;
    if (inet_pton(AF_INET, terminated.c_str(), &v4) == 1) return FromV4(v4);
    in6_addr v6;
    if (inet_pton(AF_INET6, terminated.c_str(), &v6) == 1) return FromV6(v6);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is not an IP address; write one like 192.0.2.1 or 2001:db8::1"));
}

std::string IpAddress::ToString() const {
  char text[INET6_ADDRSTRLEN];
  if (IsV4()) {
    const in_addr v4 = ToV4();
    return inet_ntop(AF_INET, &v4, text, sizeof text);
  }
  const in6_addr v6 = ToV6();
  return inet_ntop(AF_INET6, &v6, text, sizeof text);
}

}  // namespace shunt::net
