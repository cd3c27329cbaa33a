// SPDX-License-Identifier: Apache-2.0
// The wire form of a LockPolicy: "shl1", a byte that is 0, three counts of one byte each, then the entries:
// networks (16 bytes of address, 1 of prefix length), and two lists of endpoints (16 bytes, then the port,
// big-endian).

#include "net/lock_policy.h"

#include <netinet/in.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "core/check.h"

namespace shunt::net {
namespace {

constexpr char kMagic[5] = {'s', 'h', 'l', '1', '\0'};
static_assert(SubnetSet::kCapacity <= 255 && LockPolicy::kMaxEndpoints <= 255,
              "the counts are one byte each");

// Takes the request apart from the front. After the first piece that is missing everything reads as zero and
// ok() is false.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> wire) : rest_(wire) {}

  bool ok() const { return ok_; }
  bool AtEnd() const { return ok_ && rest_.empty(); }

  void Read(void* into, size_t size) {
    ok_ = ok_ && size <= rest_.size();
    if (!ok_) {
      std::memset(into, 0, size);
      return;
    }
    std::memcpy(into, rest_.data(), size);
    rest_ = rest_.subspan(size);
  }
  uint8_t ReadByte() {
    uint8_t byte;
    Read(&byte, sizeof(byte));
    return byte;
  }
  IpAddress ReadAddress() {
    in6_addr address;
    Read(&address, sizeof(address));
    return IpAddress::FromV6(address);
  }

 private:
  std::span<const std::byte> rest_;
  bool ok_ = true;
};

void AppendAddress(const IpAddress& ip, std::string& wire) {
  const in6_addr bytes = ip.ToV6();
  wire.append(reinterpret_cast<const char*>(&bytes), sizeof(bytes));
}

void AppendEndpoints(const std::vector<Endpoint>& endpoints, std::string& wire) {
  for (const Endpoint& endpoint : endpoints) {
    AppendAddress(endpoint.ip, wire);
    wire.push_back(static_cast<char>(endpoint.port >> 8));
    wire.push_back(static_cast<char>(endpoint.port & 0xff));
  }
}

std::vector<Endpoint> ReadEndpoints(size_t count, Reader& reader) {
  std::vector<Endpoint> endpoints;
  for (size_t i = 0; i < count && reader.ok(); ++i) {
    const IpAddress ip = reader.ReadAddress();
    const uint8_t high = reader.ReadByte();
    const uint8_t low = reader.ReadByte();
    endpoints.push_back({ip, static_cast<uint16_t>(high << 8 | low)});
  }
  return endpoints;
}

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("lock request: ", what, "; is it from another version of shunt?"));
}

}  // namespace

absl::Status CheckLockPolicy(const LockPolicy& policy) {
  for (const auto& [name, size] : {std::pair{"published ports reached from inside", policy.self.size()},
                                   std::pair{"published ports", policy.listen.size()}}) {
    if (size > LockPolicy::kMaxEndpoints) {
      return absl::InvalidArgumentError(absl::StrCat("a socket lock has room for ", LockPolicy::kMaxEndpoints,
                                                     " ", name, ", not ", size, "; publish fewer"));
    }
  }
  return absl::OkStatus();
}

std::string EncodeLockPolicy(const LockPolicy& policy) {
  SHUNT_CHECK(CheckLockPolicy(policy).ok());
  std::string wire(kMagic, sizeof(kMagic));
  wire.push_back(static_cast<char>(policy.deny.size()));
  wire.push_back(static_cast<char>(policy.self.size()));
  wire.push_back(static_cast<char>(policy.listen.size()));
  for (const Subnet& subnet : policy.deny) {
    AppendAddress(subnet.prefix(), wire);
    wire.push_back(static_cast<char>(subnet.prefix_len()));
  }
  AppendEndpoints(policy.self, wire);
  AppendEndpoints(policy.listen, wire);
  return wire;
}

absl::StatusOr<LockPolicy> DecodeLockPolicy(std::span<const std::byte> wire) {
  Reader reader(wire);
  char magic[sizeof(kMagic)];
  reader.Read(magic, sizeof(magic));
  if (std::memcmp(magic, kMagic, sizeof(kMagic)) != 0) return Malformed("does not begin with \"shl1\"");
  const size_t deny = reader.ReadByte();
  const size_t self = reader.ReadByte();
  const size_t listen = reader.ReadByte();
  if (deny > SubnetSet::kCapacity) return Malformed("too many networks");
  if (self > LockPolicy::kMaxEndpoints || listen > LockPolicy::kMaxEndpoints)
    return Malformed("too many ports");

  LockPolicy policy;
  for (size_t i = 0; i < deny && reader.ok(); ++i) {
    const IpAddress prefix = reader.ReadAddress();
    const int prefix_len = reader.ReadByte();
    // Subnet takes a length that does not fit its family for a mistake of ours, so it is judged here.
    if (prefix_len > (prefix.IsV4() ? 32 : 128)) return Malformed("a prefix length that is too large");
    if (!policy.deny.Add(Subnet(prefix, prefix_len))) return Malformed("too many networks");
  }
  policy.self = ReadEndpoints(self, reader);
  policy.listen = ReadEndpoints(listen, reader);
  if (!reader.AtEnd())
    return Malformed(reader.ok() ? "longer than its counts say" : "shorter than its counts say");
  return policy;
}

}  // namespace shunt::net
