// SPDX-License-Identifier: Apache-2.0
// What is taken from a DNS server's answer: addresses or services, and how long they hold. Pure.
//
// c-ares has readers for single types of records; none of them tells for how long SRV records hold.

#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "net/ip_address.h"

namespace shunt::net {

// The values are those of the protocol.
enum class DnsType : uint16_t { kA = 1, kAaaa = 28, kSrv = 33 };

// "SRV"
const char* DnsTypeName(DnsType type);

struct SrvRecord {
  uint16_t priority = 0;
  uint16_t weight = 0;
  uint16_t port = 0;
  std::string target;  // as c-ares takes it in a question; empty: the root, "there is no such service"
};

struct DnsRecords {
  // Of the record that holds for the shortest time, CNAMEs on the way to it included. Seconds.
  uint32_t ttl = 0;
  std::vector<IpAddress> addresses;  // kA, kAaaa
  std::vector<SrvRecord> services;   // kSrv

  bool empty() const { return addresses.empty() && services.empty(); }
};

// The records of `type` of an answer, whosever they are: what an answer contains is what was asked for, in
// whatever order servers put the CNAMEs that lead there. Nothing: the message is broken, be it at its end.
std::optional<DnsRecords> ReadDnsAnswer(std::span<const uint8_t> message, DnsType type);

}  // namespace shunt::net
