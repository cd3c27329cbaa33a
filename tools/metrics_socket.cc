// SPDX-License-Identifier: Apache-2.0
#include "tools/metrics_socket.h"

#include <sys/socket.h>

#include <cerrno>
#include <optional>
#include <span>

#include "absl/strings/str_cat.h"
#include "core/result.h"

namespace shunt {
namespace {

constexpr int kBacklog = 64;

absl::StatusOr<Fd> ListenOn(const net::SockAddr& address) {
  Fd socket(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1, off = 0;
  if (!socket.valid()) return ToStatus({errno}, "make a socket");
  setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (address.family() == AF_INET6) setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
  if (bind(socket.get(), address.data(), address.size()) != 0 || listen(socket.get(), kBacklog) != 0)
    return ToStatus({errno}, "listen there");
  return socket;
}

}  // namespace

absl::StatusOr<net::SockAddr> ParseMetricsAddress(const std::string& text) {
  if (!text.empty() && text[0] == ':') {
    if (const std::optional<uint16_t> port = net::ParsePortNumber(text.substr(1)))
      return net::SockAddr(net::IpAddress(), *port, AF_INET6);
  } else if (absl::StatusOr<net::SockAddr> address = net::SockAddr::FromText(text); address.ok()) {
    return address;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", text, "\" should be ADDRESS:PORT or :PORT, for example 127.0.0.1:9464, [::1]:9464 or :9464"));
}

absl::StatusOr<Fd> ListenForMetrics(const std::string& address) {
  const absl::StatusOr<net::SockAddr> parsed = ParseMetricsAddress(address);
  if (!parsed.ok()) return parsed.status();
  absl::StatusOr<Fd> socket = ListenOn(*parsed);
  // A host without IPv6.
  if (!socket.ok() && address[0] == ':')
    socket = ListenOn(net::SockAddr(net::IpAddress::FromV4({0}), parsed->port()));
  if (socket.ok()) return socket;
  return absl::Status(
      socket.status().code(),
      absl::StrCat("metrics on ", address, " (--metrics-bind-address): ", socket.status().message()));
}

std::string MetricsAddressOf(int socket) {
  sockaddr_storage name{};
  socklen_t size = sizeof(name);
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&name), &size) != 0) return "?";
  const Result<net::SockAddr> address = net::SockAddr::Parse(std::as_bytes(std::span(&name, 1)).first(size));
  return address ? address->ToString() : "?";
}

}  // namespace shunt
