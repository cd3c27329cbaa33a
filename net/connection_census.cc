// SPDX-License-Identifier: Apache-2.0
#include "net/connection_census.h"

#include <linux/inet_diag.h>
#include <linux/tcp.h>

#include <cstring>
#include <utility>

namespace shunt::net {
namespace {

// netinet/tcp.h, which has these as an enum, and linux/tcp.h, which has the whole of tcp_info, exclude each
// other.
constexpr uint32_t kEstablished = 1, kSynSent = 2, kCloseWait = 8;
constexpr uint32_t kStates = 1u << kEstablished | 1u << kSynSent | 1u << kCloseWait;

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

Result<void> ConnectionCensus::Visit(bool with_rtt, absl::FunctionRef<void(const OpenConnection&)> visit) {
  for (const int family : {AF_INET, AF_INET6}) {
    inet_diag_req_v2 question{};
    question.sdiag_family = static_cast<uint8_t>(family);
    question.idiag_states = kStates;
    if (with_rtt) question.idiag_ext = 1u << (INET_DIAG_INFO - 1);
    const Result<void> dumped = diag_.Dump(question, [&](netlink::Bytes payload) {
      if (const auto connection = ReadOpenConnection(payload)) visit(*connection);
    });
    if (!dumped) return dumped;
  }
  return {};
}

}  // namespace shunt::net
