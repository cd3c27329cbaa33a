// SPDX-License-Identifier: Apache-2.0
// Publish: one port of a container that is to be reachable on the host, as in `-p 127.0.0.1:8080:80`.

#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "net/ip_address.h"

namespace shunt::net {

// TCP only. Ports are in host byte order and never 0.
struct Publish {
  std::optional<IpAddress> host_ip;  // none: whatever address the program binds to
  uint16_t host_port = 0;
  uint16_t port = 0;  // as the program in the container binds it

  // As ParsePublish() reads it.
  std::string ToString() const;

  friend bool operator==(const Publish&, const Publish&) = default;
};

// Reads "[HOSTIP:]HOSTPORT:PORT[/tcp]"; an IPv6 HOSTIP stands in brackets. The error names the text and the
// remedy.
absl::StatusOr<Publish> ParsePublish(absl::string_view text);

// True if a socket on one host address would be in the way of a socket on the other, for the same port. No
// address, and ::, overlap with everything; 0.0.0.0 with all of IPv4.
bool HostIpsOverlap(const std::optional<IpAddress>& a, const std::optional<IpAddress>& b);

// Checks the list of one container. A host port may occur twice only with host addresses that do not overlap,
// a container port only with one of IPv4 and one of IPv6: a listener can be in one place of the host. The
// error names both entries.
absl::Status CheckPublishList(std::span<const Publish> list);

}  // namespace shunt::net
