// SPDX-License-Identifier: Apache-2.0
// Subnet and SubnetSet: networks in CIDR notation, and a small set of them that answers "is this address in
// there?".
//
// IPv4 and IPv6 are two worlds: an IPv6 network with a prefix shorter than ::ffff:0:0/96 never contains an
// IPv4 address, in whichever spelling (so ::/0 is "all of IPv6" and 0.0.0.0/0 "all of IPv4"). A network
// inside ::ffff:0:0/96 is IPv4. No heap except for text; safe to read from many threads.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "net/ip_address.h"

namespace shunt::net {

class Subnet {
 public:
  // ::/0.
  constexpr Subnet() = default;

  // `prefix_len` as people write it: 0..32 for an IPv4 address, 0..128 for an IPv6 one; larger is a mistake
  // of ours (checked). Bits of `address` behind the prefix are cleared.
  Subnet(const IpAddress& address, int prefix_len);

  constexpr bool IsV4() const { return prefix_len_ >= kMappedLen && prefix_.IsV4(); }
  // The first address.
  constexpr const IpAddress& prefix() const { return prefix_; }
  // 0..32 for IPv4, 0..128 for IPv6.
  constexpr int prefix_len() const { return IsV4() ? prefix_len_ - kMappedLen : prefix_len_; }

  constexpr bool Contains(const IpAddress& address) const {
    return address.IsV4() == IsV4() && MatchesPrefix(address);
  }
  // True if every address of `other` is in this network.
  constexpr bool Covers(const Subnet& other) const {
    return other.IsV4() == IsV4() && prefix_len_ <= other.prefix_len_ && MatchesPrefix(other.prefix_);
  }
  // True if some address is in both.
  constexpr bool Overlaps(const Subnet& other) const { return Covers(other) || other.Covers(*this); }

  // "10.0.0.0/8", "fd00::/8".
  std::string ToString() const;

  friend constexpr bool operator==(const Subnet&, const Subnet&) = default;

 private:
  static constexpr int kMappedLen = 96;  // the length of ::ffff:0:0/96

  constexpr bool MatchesPrefix(const IpAddress& address) const {
    return ((address.high() ^ prefix_.high()) & HighMask()) == 0 &&
           ((address.low() ^ prefix_.low()) & LowMask()) == 0;
  }
  constexpr uint64_t HighMask() const { return LeadingOnes(prefix_len_ < 64 ? prefix_len_ : 64); }
  constexpr uint64_t LowMask() const { return LeadingOnes(prefix_len_ < 64 ? 0 : prefix_len_ - 64); }
  static constexpr uint64_t LeadingOnes(int count) { return count == 0 ? 0 : ~uint64_t{0} << (64 - count); }

  IpAddress prefix_;
  uint8_t prefix_len_ = 0;  // of 128 bits, also for IPv4
};

// Reads "10.0.0.0/8", "fd00::/8", or an address alone, which is the network of just that address.
// "10.1.2.3/8" means 10.0.0.0/8. The error names the text and says what would be right.
absl::StatusOr<Subnet> ParseSubnet(absl::string_view text);

// A fixed-capacity set of networks. Contains() looks at each in turn: meant for a few entries.
class SubnetSet {
 public:
  static constexpr size_t kCapacity = 64;

  // False if the set is full. What is covered already takes no place.
  [[nodiscard]] bool Add(const Subnet& subnet);
  // False if not all fitted in; some may have been added.
  [[nodiscard]] bool AddAll(const SubnetSet& other);

  bool Contains(const IpAddress& address) const {
    for (const Subnet& subnet : *this) {
      if (subnet.Contains(address)) return true;
    }
    return false;
  }
  bool Overlaps(const Subnet& other) const {
    for (const Subnet& subnet : *this) {
      if (subnet.Overlaps(other)) return true;
    }
    return false;
  }

  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }
  const Subnet* begin() const { return subnets_.data(); }
  const Subnet* end() const { return subnets_.data() + size_; }

 private:
  std::array<Subnet, kCapacity> subnets_;
  size_t size_ = 0;
};

}  // namespace shunt::net
