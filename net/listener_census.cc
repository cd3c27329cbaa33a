// SPDX-License-Identifier: Apache-2.0
#include "net/listener_census.h"

#include <linux/inet_diag.h>
#include <netinet/tcp.h>

namespace shunt::net {
namespace {

ListeningSocket Describe(const inet_diag_msg& message, netlink::Bytes attributes) {
  ListeningSocket socket;
  socket.cookie = uint64_t{message.id.idiag_cookie[1]} << 32 | message.id.idiag_cookie[0];
  socket.family = message.idiag_family;
  socket.ip = DiagAddress(message.id.idiag_src, message.idiag_family);
  netlink::ForEachAttribute(attributes, [&](int type, netlink::Bytes value) {
    if (type == INET_DIAG_SKV6ONLY) socket.v6_only = netlink::Front<uint8_t>(value).value_or(0) != 0;
  });
  return socket;
}

}  // namespace

std::optional<ListeningSocket> ReadListeningSocket(netlink::Bytes payload, uint16_t port) {
  const std::optional<inet_diag_msg> message = netlink::Front<inet_diag_msg>(payload);
  // Kernels agree on the filter, but what is decided on is what came back.
  if (!message || message->idiag_state != TCP_LISTEN || ntohs(message->id.idiag_sport) != port) return {};
  return Describe(*message, netlink::Behind(payload, sizeof *message));
}

bool ListeningSocket::Accepts(const IpAddress& destination) const {
  if (destination.IsV6())
    return family == AF_INET6 && (ip == destination || (ip.IsV6() && ip.IsUnspecified()));
  if (family == AF_INET6 && v6_only) return false;
  return ip == destination || ip.IsUnspecified();
}

Result<ListenerCensus> ListenerCensus::Open() {
  Result<SockDiag> diag = SockDiag::Open();
  if (!diag) return tl::unexpected(diag.error());
  return ListenerCensus(*std::move(diag));
}

Result<void> ListenerCensus::Visit(sa_family_t family, uint16_t port,
                                   absl::FunctionRef<void(const ListeningSocket&)> visit) {
  inet_diag_req_v2 question{};
  question.sdiag_family = static_cast<uint8_t>(family);
  question.idiag_states = 1u << TCP_LISTEN;
  question.id.idiag_sport = htons(port);
  return diag_.Dump(question, [&](netlink::Bytes payload) {
    if (const auto socket = ReadListeningSocket(payload, port)) visit(*socket);
  });
}

}  // namespace shunt::net
