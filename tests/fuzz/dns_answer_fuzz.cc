// SPDX-License-Identifier: Apache-2.0
// A DNS server's answer, with any bytes. What is taken from it fits into the message that it was in, and can
// be asked for.

#include <span>

#include "core/check.h"
#include "net/discovery/dns_answer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shunt::net;
  constexpr size_t kShortestRecord = 1 + 10;  // the root's name, type, class, time, size
  // Each of the 255 bytes of a name as \ddd.
  constexpr size_t kLongestName = 4 * 255;
  for (const DnsType type : {DnsType::kA, DnsType::kAaaa, DnsType::kSrv}) {
    const auto records = ReadDnsAnswer(std::span(data, size), type);
    if (!records) continue;
    SHUNT_CHECK(records->ttl <= 0x7fffffff);
    SHUNT_CHECK(records->addresses.empty() || records->services.empty());
    const size_t found = records->addresses.size() + records->services.size();
    SHUNT_CHECK(records->empty() == (found == 0));
    SHUNT_CHECK(found * kShortestRecord <= size);
    for (const IpAddress& ip : records->addresses) SHUNT_CHECK(type == DnsType::kAaaa || ip.IsV4());
    for (const SrvRecord& service : records->services) {
      SHUNT_CHECK(service.target.size() <= kLongestName);
      SHUNT_CHECK(service.target.find('\0') == std::string::npos);
    }
  }
  return 0;
}
