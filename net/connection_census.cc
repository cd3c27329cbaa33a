// SPDX-License-Identifier: Apache-2.0
#include "net/connection_census.h"

#include <linux/inet_diag.h>
#include <linux/tcp.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace shunt::net {
namespace {

// netinet/tcp.h, which has these as an enum, and linux/tcp.h, which has the whole of tcp_info, exclude each
// other.
constexpr uint32_t kEstablished = 1, kSynSent = 2, kCloseWait = 8;
constexpr uint32_t kStates = 1u << kEstablished | 1u << kSynSent | 1u << kCloseWait;

constexpr uint8_t kPeersPortIs = 12;  // INET_DIAG_BC_D_EQ: Linux 4.16

// A program of INET_DIAG_REQ_BYTECODE that is true of connections to any of some ports. An instruction goes
// on `yes` or `no` bytes further; whoever comes to the very end is accepted, and beyond it refused.
class PortFilter {
 public:
  // Nothing: they are too many.
  netlink::Bytes For(std::span<const uint16_t> ports) {
    if (ports.empty() || ports.size() > ConnectionCensus::kMostPorts) return {};
    inet_diag_bc_op* next = program_.data();
    inet_diag_bc_op* const end = next + kEach * ports.size() - 1;  // the last one needs no jump
    for (const uint16_t port : ports) {
      // Behind the comparison there is its port, then the jump that is made if it is this one.
      *next++ = {.code = kPeersPortIs, .yes = 2 * kOp, .no = kEach * kOp};
      *next++ = {.code = 0, .yes = 0, .no = port};
      if (next == end) break;
      *next = {.code = INET_DIAG_BC_JMP, .yes = kOp, .no = static_cast<uint16_t>((end - next) * kOp)};
      ++next;
    }
    return std::as_bytes(std::span(program_.data(), end));
  }

 private:
  static constexpr size_t kEach = 3;
  static constexpr uint8_t kOp = sizeof(inet_diag_bc_op);
  std::array<inet_diag_bc_op, kEach * ConnectionCensus::kMostPorts> program_;
};

}  // namespace

std::optional<OpenConnection> ReadOpenConnection(netlink::Bytes payload) {
  const std::optional<inet_diag_msg> message = netlink::Front<inet_diag_msg>(payload);
  if (!message || message->idiag_state > 31 || (1u << message->idiag_state & kStates) == 0) return {};
  OpenConnection connection{.peer = DiagAddress(message->id.idiag_dst, message->idiag_family),
                            .port = ntohs(message->id.idiag_dport)};
  netlink::ForEachAttribute(netlink::Behind(payload, sizeof *message), [&](int type, netlink::Bytes value) {
    // An older kernel's tcp_info is shorter.
    if (type != INET_DIAG_INFO || value.size() < offsetof(tcp_info, tcpi_min_rtt) + sizeof(uint32_t)) return;
    std::memcpy(&connection.min_rtt_us, value.data() + offsetof(tcp_info, tcpi_min_rtt), sizeof(uint32_t));
    if (connection.min_rtt_us == UINT32_MAX) connection.min_rtt_us = 0;
  });
  return connection;
}

Result<ConnectionCensus> ConnectionCensus::Open() {
  Result<SockDiag> diag = SockDiag::Open();
  if (!diag) return tl::unexpected(diag.error());
  return ConnectionCensus(*std::move(diag));
}

Result<void> ConnectionCensus::Visit(bool with_rtt, std::span<const uint16_t> ports,
                                     absl::FunctionRef<void(const OpenConnection&)> visit) {
  PortFilter filter;
  for (const int family : {AF_INET, AF_INET6}) {
    inet_diag_req_v2 question{};
    question.sdiag_family = static_cast<uint8_t>(family);
    question.idiag_states = kStates;
    if (with_rtt) question.idiag_ext = 1u << (INET_DIAG_INFO - 1);
    const auto see = [&](netlink::Bytes payload) {
      if (const auto connection = ReadOpenConnection(payload)) visit(*connection);
    };
    Result<void> dumped;
    if (filters_) {
      dumped = diag_.Dump(question, see, filter.For(ports));
      if (!dumped && dumped.error().code == EINVAL) filters_ = false;  // it has not told of any
    }
    if (!filters_) dumped = diag_.Dump(question, see);
    if (!dumped) return dumped;
  }
  return {};
}

}  // namespace shunt::net
