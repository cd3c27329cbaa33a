// SPDX-License-Identifier: Apache-2.0
// Publish: text, and the check that a list of them makes sense.

#include "net/publish.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "net/sock_addr.h"

namespace shunt::net {
namespace {

absl::Status Refuse(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("cannot publish \"", text, "\": ", why));
}

absl::StatusOr<uint16_t> ReadPort(absl::string_view text, absl::string_view which,
                                  absl::string_view port_text) {
  const std::optional<uint16_t> port = ParsePortNumber(port_text);
  if (!port || *port == 0) {
    return Refuse(text,
                  absl::StrCat("the ", which, " port \"", port_text, "\" is not a number from 1 to 65535"));
  }
  return *port;
}

// `host` is what stands before the colon of HOSTPORT.
absl::StatusOr<IpAddress> ReadHostIp(absl::string_view text, absl::string_view host) {
  const bool has_colon = absl::StrContains(host, ":");
  const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (has_colon && !bracketed) {
    return Refuse(text, "write [HOSTIP:]HOSTPORT:PORT, with an IPv6 address in brackets, like [::1]:8080:80");
  }
  absl::StatusOr<IpAddress> ip = IpAddress::Parse(bracketed ? host.substr(1, host.size() - 2) : host);
  if (!ip.ok() || has_colon != bracketed) {
    return Refuse(text,
                  absl::StrCat("\"", host, "\" is not an IP address; write one like 127.0.0.1 or [::1]"));
  }
  return ip;
}

std::string Conflict(const Publish& a, const Publish& b, absl::string_view which, uint16_t port) {
  return absl::StrCat("cannot publish both \"", a.ToString(), "\" and \"", b.ToString(), "\": the ", which,
                      " port ", port, " occurs twice; ",
                      which == "host" ? "give each its own port, or host addresses that do not overlap"
                                      : "give each its own port, or an IPv4 and an IPv6 address of the host");
}

}  // namespace

std::string Publish::ToString() const {
  if (!host_ip) return absl::StrCat(host_port, ":", port);
  const std::string ip = host_ip->ToString();
  if (host_ip->IsV4()) return absl::StrCat(ip, ":", host_port, ":", port);
  return absl::StrCat("[", ip, "]:", host_port, ":", port);
}

absl::StatusOr<Publish> ParsePublish(absl::string_view text) {
  absl::string_view rest = text;
  if (const size_t slash = rest.find('/'); slash != absl::string_view::npos) {
    const absl::string_view protocol = rest.substr(slash + 1);
    if (protocol == "udp") return Refuse(text, "UDP ports cannot be published, only TCP ports");
    if (protocol != "tcp") {
      return Refuse(text,
                    absl::StrCat("\"/", protocol, "\" is not a protocol to publish; write /tcp or nothing"));
    }
    rest = rest.substr(0, slash);
  }

  const size_t second = rest.rfind(':');
  if (second == absl::string_view::npos) {
    return Refuse(text, "write [HOSTIP:]HOSTPORT:PORT, like 8080:80 or 127.0.0.1:8080:80");
  }
  const absl::string_view before = rest.substr(0, second);
  const size_t first = before.rfind(':');

  Publish publish;
  if (first != absl::string_view::npos) {
    absl::StatusOr<IpAddress> ip = ReadHostIp(text, before.substr(0, first));
    if (!ip.ok()) return ip.status();
    publish.host_ip = *ip;
  }
  const absl::string_view host_port = first == absl::string_view::npos ? before : before.substr(first + 1);
  absl::StatusOr<uint16_t> port = ReadPort(text, "host", host_port);
  if (!port.ok()) return port.status();
  publish.host_port = *port;
  port = ReadPort(text, "container", rest.substr(second + 1));
  if (!port.ok()) return port.status();
  publish.port = *port;
  return publish;
}

bool HostIpsOverlap(const std::optional<IpAddress>& a, const std::optional<IpAddress>& b) {
  if (!a || !b || *a == *b) return true;
  if (a->IsUnspecified()) return a->IsV6() || b->IsV4() || b->IsUnspecified();
  if (b->IsUnspecified()) return b->IsV6() || a->IsV4();
  return false;
}

absl::Status CheckPublishList(std::span<const Publish> list) {
  for (size_t i = 0; i < list.size(); ++i) {
    for (size_t j = i + 1; j < list.size(); ++j) {
      const Publish& a = list[i];
      const Publish& b = list[j];
      const bool overlap = HostIpsOverlap(a.host_ip, b.host_ip);
      if (overlap && a.host_port == b.host_port)
        return absl::InvalidArgumentError(Conflict(a, b, "host", a.host_port));
      // A listener can be at one address of the host, so only another family's listener can have another.
      if (a.port == b.port && (overlap || a.host_ip->IsV4() == b.host_ip->IsV4()))
        return absl::InvalidArgumentError(Conflict(a, b, "container", a.port));
    }
  }
  return absl::OkStatus();
}

}  // namespace shunt::net
