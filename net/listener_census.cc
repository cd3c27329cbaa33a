// SPDX-License-Identifier: Apache-2.0
#include "net/listener_census.h"

#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>

namespace shunt::net {
namespace {

ListeningSocket Describe(const inet_diag_msg& message, netlink::Bytes attributes) {
  ListeningSocket socket;
  socket.cookie = uint64_t{message.id.idiag_cookie[1]} << 32 | message.id.idiag_cookie[0];
  socket.family = message.idiag_family;
  if (message.idiag_family == AF_INET) {
    in_addr address;
    std::memcpy(&address, message.id.idiag_src, sizeof address);
    socket.ip = IpAddress::FromV4(address);
  } else {
    in6_addr address;
    std::memcpy(&address, message.id.idiag_src, sizeof address);
    socket.ip = IpAddress::FromV6(address);
  }
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

ListenerCensus::ListenerCensus(Fd fd)
    : fd_(std::move(fd)), buffer_(std::make_unique<std::byte[]>(netlink::kDumpBuffer)) {}

Result<ListenerCensus> ListenerCensus::Open() {
  Fd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!fd.valid()) return FailErrno();
  return ListenerCensus(std::move(fd));
}

Result<void> ListenerCensus::Visit(sa_family_t family, uint16_t port,
                                   absl::FunctionRef<void(const ListeningSocket&)> visit) {
  inet_diag_req_v2 question{};
  question.sdiag_family = static_cast<uint8_t>(family);
  question.sdiag_protocol = IPPROTO_TCP;
  question.idiag_states = 1u << TCP_LISTEN;
  question.id.idiag_sport = htons(port);
  return netlink::DumpOnce(fd_.get(), netlink::Request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, question),
                           buffer_.get(), [&](int type, netlink::Bytes payload) {
                             if (type != SOCK_DIAG_BY_FAMILY) return;
                             if (const auto socket = ReadListeningSocket(payload, port)) visit(*socket);
                           });
}

}  // namespace shunt::net
