// SPDX-License-Identifier: Apache-2.0
// DnsResponder: see dns_responder.h.

#include "tests/net/discovery/dns_responder.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/check.h"

namespace shunt::testing_support {
namespace {

constexpr size_t kDnsHeader = 12;
constexpr size_t kLargestDatagram = 512;

std::string Number32(uint32_t number) {
  return Number16(number >> 16) + Number16(number & 0xffff);
}

unsigned At16(const std::string& bytes, size_t at) {
  return (static_cast<unsigned>(static_cast<unsigned char>(bytes[at])) << 8) |
         static_cast<unsigned char>(bytes[at + 1]);
}

// Nothing: that is no question.
std::optional<DnsQuestion> ReadQuestion(const std::string& message) {
  if (message.size() < kDnsHeader + 5) return std::nullopt;
  DnsQuestion question;
  question.id = static_cast<uint16_t>(At16(message, 0));
  size_t at = kDnsHeader;
  while (at < message.size() && message[at] != 0) {
    const auto length = static_cast<unsigned char>(message[at]);
    if (!question.name.empty()) question.name += '.';
    question.name += absl::AsciiStrToLower(message.substr(at + 1, length));
    at += length + 1u;
  }
  if (at + 5 > message.size()) return std::nullopt;
  question.type = static_cast<uint16_t>(At16(message, at + 1));
  question.text = message.substr(kDnsHeader, at + 5 - kDnsHeader);
  return question;
}

Fd Bound(int type, uint16_t port) {
  Fd made(socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(made.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) return Fd();
  return made;
}

uint16_t PortOf(const Fd& socket) {
  sockaddr_in address{};
  socklen_t size = sizeof(address);
  SHUNT_CHECK(getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
  return ntohs(address.sin_port);
}

}  // namespace

std::string Number16(unsigned number) {
  return {static_cast<char>(number >> 8), static_cast<char>(number & 0xff)};
}

std::string DnsName(const std::string& name) {
  std::string bytes;
  for (const absl::string_view label : absl::StrSplit(name, '.', absl::SkipEmpty())) {
    bytes += static_cast<char>(label.size());
    bytes += std::string(label);
  }
  return bytes + '\0';
}

DnsRecord A(const std::string& address, uint32_t ttl) {
  std::string data(4, '\0');
  SHUNT_CHECK(inet_pton(AF_INET, address.c_str(), data.data()) == 1);
  return {static_cast<uint16_t>(net::DnsType::kA), ttl, data};
}

DnsRecord Aaaa(const std::string& address, uint32_t ttl) {
  std::string data(16, '\0');
  SHUNT_CHECK(inet_pton(AF_INET6, address.c_str(), data.data()) == 1);
  return {static_cast<uint16_t>(net::DnsType::kAaaa), ttl, data};
}

DnsRecord Cname(const std::string& target, uint32_t ttl) {
  return {kDnsCname, ttl, DnsName(target)};
}

DnsRecord Srv(int priority, int weight, int port, const std::string& target, uint32_t ttl) {
  std::string data;
  for (const int number : {priority, weight, port}) data += Number16(static_cast<unsigned>(number));
  return {static_cast<uint16_t>(net::DnsType::kSrv), ttl, data + DnsName(target)};
}

std::string DnsQuestion::ToString() const {
  return absl::StrCat(net::DnsTypeName(static_cast<net::DnsType>(type)), " ", name, tcp ? " tcp" : "");
}

std::string DnsMessage(const DnsQuestion& question, const std::vector<DnsRecord>& records, DnsCode code,
                       bool truncated) {
  constexpr unsigned kAnswer = 0x8180;  // QR, RD, RA
  constexpr unsigned kTruncated = 0x0200;
  constexpr unsigned kTheName = 0xc000 | kDnsHeader;  // a pointer to the question's
  std::string message = Number16(question.id) + Number16(kAnswer | code | (truncated ? kTruncated : 0)) +
                        Number16(1) + Number16(static_cast<unsigned>(records.size())) + Number16(0) +
                        Number16(0) + question.text;
  for (const DnsRecord& record : records) {
    message += Number16(kTheName) + Number16(record.type) + Number16(1) + Number32(record.ttl) +
               Number16(static_cast<unsigned>(record.data.size())) + record.data;
  }
  return message;
}

DnsResponder::DnsResponder() {
  // The port of the one has to be free for the other, too.
  for (int tries = 0; tries < 100 && !tcp_.valid(); ++tries) {
    udp_ = Bound(SOCK_DGRAM, 0);
    SHUNT_CHECK(udp_.valid());
    port_ = PortOf(udp_);
    tcp_ = Bound(SOCK_STREAM, port_);
  }
  SHUNT_CHECK(tcp_.valid() && listen(tcp_.get(), 16) == 0);
}

std::string DnsResponder::address() const {
  return absl::StrCat("127.0.0.1:", port_);
}

void DnsResponder::AddTo(std::vector<pollfd>& watched) const {
  for (const int fd : {udp_.get(), tcp_.get()}) watched.push_back({.fd = fd, .events = POLLIN, .revents = 0});
  for (const Connection& connection : connections_) {
    watched.push_back({.fd = connection.socket.get(), .events = POLLIN, .revents = 0});
  }
}

std::vector<std::string> DnsResponder::AnswersTo(const std::string& message, bool tcp) {
  std::optional<DnsQuestion> question = ReadQuestion(message);
  if (!question) return {};
  question->tcp = tcp;
  asked_.push_back(question->ToString());
  std::string answer;
  DnsQuestion plain = *question;
  plain.tcp = false;
  if (const auto code = codes.find(plain.ToString()); code != codes.end()) {
    answer = DnsMessage(*question, {}, code->second);
  } else if (const auto records = zone.find(question->name); records == zone.end()) {
    answer = DnsMessage(*question, {}, kNoSuchName);
  } else {
    std::vector<DnsRecord> fitting;
    for (const DnsRecord& record : records->second) {
      if (record.type == question->type || record.type == kDnsCname) fitting.push_back(record);
    }
    answer = DnsMessage(*question, fitting);
    if (!tcp && answer.size() > kLargestDatagram) answer = DnsMessage(*question, {}, kNoError, true);
  }
  return tamper ? tamper(*question, answer) : std::vector{answer};
}

void DnsResponder::Serve() {
  std::array<char, 65536> buffer;
  sockaddr_in peer{};
  socklen_t peer_size = sizeof(peer);
  for (ssize_t size; (size = recvfrom(udp_.get(), buffer.data(), buffer.size(), 0,
                                      reinterpret_cast<sockaddr*>(&peer), &peer_size)) >= 0;) {
    for (const std::string& answer :
         AnswersTo(std::string(buffer.data(), static_cast<size_t>(size)), false)) {
      sendto(udp_.get(), answer.data(), answer.size(), 0, reinterpret_cast<const sockaddr*>(&peer),
             peer_size);
    }
  }
  for (;;) {
    Fd accepted(accept4(tcp_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!accepted.valid()) break;
    connections_.push_back({std::move(accepted), ""});
  }
  for (Connection& connection : connections_) ServeConnection(connection);
  std::erase_if(connections_, [](const Connection& connection) { return !connection.socket.valid(); });
}

void DnsResponder::ServeConnection(Connection& connection) {
  std::array<char, 65536> buffer;
  const ssize_t size = recv(connection.socket.get(), buffer.data(), buffer.size(), 0);
  if (size == 0 || (size < 0 && errno != EAGAIN)) {
    connection.socket.reset();
    return;
  }
  if (size > 0) connection.received.append(buffer.data(), static_cast<size_t>(size));
  std::string& received = connection.received;
  while (received.size() >= 2 && received.size() >= 2 + At16(received, 0)) {
    const std::string message = received.substr(2, At16(received, 0));
    received.erase(0, 2 + message.size());
    for (const std::string& answer : AnswersTo(message, true)) {
      const std::string bytes = Number16(static_cast<unsigned>(answer.size())) + answer;
      const size_t sent = std::min(bytes.size(), cut_tcp_after.value_or(bytes.size()));
      send(connection.socket.get(), bytes.data(), sent, MSG_NOSIGNAL);
      if (!cut_tcp_after) continue;
      connection.socket.reset();
      return;
    }
  }
}

}  // namespace shunt::testing_support
