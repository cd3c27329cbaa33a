// SPDX-License-Identifier: Apache-2.0
// Reads DNS messages (RFC 1035, section 4), of which names are left to c-ares.

#include "net/discovery/dns_answer.h"

#include <ares.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>

namespace shunt::net {
namespace {

constexpr uint16_t kCname = 5;
constexpr uint16_t kInternet = 1;
constexpr size_t kHeader = 12;

// Goes through a message. What would lie beyond its end is zero, and `ok` tells.
class MessageReader {
 public:
  explicit MessageReader(std::span<const uint8_t> message) : message_(message) {}

  bool ok() const { return ok_; }
  size_t position() const { return position_; }

  uint16_t Read16() {
    if (!Has(2)) return 0;
    const auto value = static_cast<uint16_t>((message_[position_] << 8) | message_[position_ + 1]);
    position_ += 2;
    return value;
  }
  uint32_t Read32() {
    const uint32_t high = Read16();
    return (high << 16) | Read16();
  }
  std::string ReadName() {
    char* name = nullptr;
    long size = 0;
    if (!Has(1) || ares_expand_name(message_.data() + position_, message_.data(),
                                    static_cast<int>(message_.size()), &name, &size) != ARES_SUCCESS) {
      ok_ = false;
      return {};
    }
    std::string text(name);
    ares_free_string(name);
    Skip(static_cast<size_t>(size));
    return text;
  }
  template <typename T>
  T ReadBytes() {
    T value{};
    if (Has(sizeof(T))) std::memcpy(&value, message_.data() + position_, sizeof(T));
    Skip(sizeof(T));
    return value;
  }
  void Skip(size_t bytes) {
    if (Has(bytes)) position_ += bytes;
  }

 private:
  bool Has(size_t bytes) {
    ok_ = ok_ && message_.size() - position_ >= bytes;
    return ok_;
  }

  const std::span<const uint8_t> message_;
  size_t position_ = 0;
  bool ok_ = true;
};

void ReadRecord(MessageReader& reader, DnsType type, DnsRecords& records) {
  if (type == DnsType::kA) {
    records.addresses.push_back(IpAddress::FromV4(reader.ReadBytes<in_addr>()));
  } else if (type == DnsType::kAaaa) {
    records.addresses.push_back(IpAddress::FromV6(reader.ReadBytes<in6_addr>()));
  } else {
    SrvRecord& service = records.services.emplace_back();
    service.priority = reader.Read16();
    service.weight = reader.Read16();
    service.port = reader.Read16();
    service.target = reader.ReadName();
  }
}

}  // namespace

const char* DnsTypeName(DnsType type) {
  return type == DnsType::kA ? "A" : type == DnsType::kAaaa ? "AAAA" : "SRV";
}

std::optional<DnsRecords> ReadDnsAnswer(std::span<const uint8_t> message, DnsType type) {
  if (message.size() > std::numeric_limits<uint16_t>::max()) return std::nullopt;
  MessageReader reader(message);
  reader.Skip(4);
  const uint16_t questions = reader.Read16();
  const uint16_t answers = reader.Read16();
  reader.Skip(kHeader - 8);
  for (int i = 0; i < questions && reader.ok(); ++i) {
    reader.ReadName();
    reader.Skip(4);
  }
  DnsRecords records;
  records.ttl = std::numeric_limits<int32_t>::max();
  for (int i = 0; i < answers && reader.ok(); ++i) {
    reader.ReadName();
    const uint16_t record_type = reader.Read16();
    const uint16_t record_class = reader.Read16();
    uint32_t ttl = reader.Read32();
    if (ttl > std::numeric_limits<int32_t>::max()) ttl = 0;  // RFC 2181, section 8
    const uint16_t size = reader.Read16();
    const size_t end = reader.position() + size;
    const bool wanted = record_class == kInternet && record_type == static_cast<uint16_t>(type);
    if (wanted || (record_class == kInternet && record_type == kCname)) {
      records.ttl = std::min(records.ttl, ttl);
    }
    if (wanted) {
      ReadRecord(reader, type, records);
    } else {
      reader.Skip(size);
    }
    if (reader.position() != end) return std::nullopt;
  }
  if (!reader.ok()) return std::nullopt;
  return records;
}

}  // namespace shunt::net
