// SPDX-License-Identifier: Apache-2.0
// DnsResponder: a small DNS server for tests, on UDP and TCP of one port of 127.0.0.1.
//
// It has no thread: Serve() does what there is to do. It answers from its zone as servers do (NXDOMAIN,
// answers without records, truncation above 512 bytes), unless the test says something else: `tamper` gets
// each question with the answer that would be sent, and returns what is sent instead.

#pragma once

#include <poll.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/fd.h"
#include "net/discovery/dns_answer.h"

namespace shunt::testing_support {

constexpr uint16_t kDnsCname = 5;

// What stands in a zone. The data is as it is sent; the functions below make it.
struct DnsRecord {
  uint16_t type = 0;
  uint32_t ttl = 60;
  std::string data;
};

std::string DnsName(const std::string& name);
std::string Number16(unsigned number);
DnsRecord A(const std::string& address, uint32_t ttl = 60);
DnsRecord Aaaa(const std::string& address, uint32_t ttl = 60);
DnsRecord Cname(const std::string& target, uint32_t ttl = 60);
DnsRecord Srv(int priority, int weight, int port, const std::string& target, uint32_t ttl = 60);

enum DnsCode : uint8_t { kNoError = 0, kServerFailure = 2, kNoSuchName = 3, kRefused = 5 };

struct DnsQuestion {
  uint16_t id = 0;
  std::string name;  // "a.b"
  uint16_t type = 0;
  std::string text;  // as it stands in the message, to be repeated in answers
  bool tcp = false;

  // "A a.b", with " tcp" if so
  std::string ToString() const;
};

// A message. The records are of the name that is asked for.
std::string DnsMessage(const DnsQuestion& question, const std::vector<DnsRecord>& records,
                       DnsCode code = kNoError, bool truncated = false);

class DnsResponder {
 public:
  // Messages that are sent one after the other; over TCP the length is put before each.
  using Tamper = std::function<std::vector<std::string>(const DnsQuestion& question, std::string answer)>;

  DnsResponder();

  std::string address() const;  // "127.0.0.1:40123"
  void Serve();
  // What a caller of poll(2) has to watch.
  void AddTo(std::vector<pollfd>& watched) const;

  // What has been asked since the last time, in order.
  std::vector<std::string> TakeAsked() { return std::exchange(asked_, {}); }
  size_t connections() const { return connections_.size(); }

  std::map<std::string, std::vector<DnsRecord>> zone;  // by name, of any type
  std::map<std::string, DnsCode> codes;                // by "A a.b": the answer is just this code
  Tamper tamper;
  // Connections are closed after so many bytes of an answer.
  std::optional<size_t> cut_tcp_after;

 private:
  struct Connection {
    Fd socket;
    std::string received;
  };

  std::vector<std::string> AnswersTo(const std::string& message, bool tcp);
  void ServeConnection(Connection& connection);

  Fd udp_, tcp_;
  uint16_t port_ = 0;
  std::vector<Connection> connections_;
  std::vector<std::string> asked_;
};

}  // namespace shunt::testing_support
