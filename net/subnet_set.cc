// SPDX-License-Identifier: Apache-2.0
// Subnet and SubnetSet: construction and text.

#include "net/subnet_set.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "core/check.h"
#include "net/sock_addr.h"

namespace shunt::net {

Subnet::Subnet(const IpAddress& address, int prefix_len) {
  SHUNT_CHECK(prefix_len >= 0 && prefix_len <= (address.IsV4() ? 32 : 128));
  prefix_len_ = static_cast<uint8_t>(address.IsV4() ? prefix_len + kMappedLen : prefix_len);
  prefix_ = IpAddress(address.high() & HighMask(), address.low() & LowMask());
}

std::string Subnet::ToString() const {
  return absl::StrCat(prefix_.ToString(), "/", prefix_len());
}

absl::StatusOr<Subnet> ParseSubnet(absl::string_view text) {
  const size_t slash = text.find('/');
  const absl::string_view address_text = text.substr(0, slash);
  absl::StatusOr<IpAddress> address = IpAddress::Parse(address_text);
  if (!address.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text, "\" is not a network; write one like 10.0.0.0/8, fd00::/8 or 192.0.2.1"));
  }
  // The length counts bits of the spelling that was used: ::ffff:10.0.0.0/104 is 10.0.0.0/8.
  const bool spelled_v6 = address_text.find(':') != absl::string_view::npos;
  const int longest = spelled_v6 ? 128 : 32;
  if (slash == absl::string_view::npos) return Subnet(*address, address->IsV4() ? 32 : 128);

  const std::optional<uint16_t> length = ParsePortNumber(text.substr(slash + 1));
  if (!length || *length > longest) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text, "\" has no valid prefix length; behind the slash comes ",
                     "a number from 0 to ", longest, ", as in ", address_text, "/", longest));
  }
  if (!spelled_v6 || address->IsV6()) return Subnet(*address, *length);
  if (*length < 96) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", text, "\" mixes IPv4 and IPv6: a network of IPv4-mapped addresses has a prefix length from ",
        "96 to 128; write IPv4 networks like 10.0.0.0/8"));
  }
  return Subnet(*address, *length - 96);
}

bool SubnetSet::Add(const Subnet& subnet) {
  for (const Subnet& known : *this) {
    if (known.Covers(subnet)) return true;
  }
  if (size_ == kCapacity) return false;
  subnets_[size_++] = subnet;
  return true;
}

bool SubnetSet::AddAll(const SubnetSet& other) {
  for (const Subnet& subnet : other) {
    if (!Add(subnet)) return false;
  }
  return true;
}

}  // namespace shunt::net
