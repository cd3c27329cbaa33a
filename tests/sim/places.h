// SPDX-License-Identifier: Apache-2.0
// The simulated networks: what addresses there are, and where a container must never get by the host.

#pragma once

#include <cstdint>

#include "net/ip_address.h"
#include "net/sock_addr.h"

namespace shunt::sim {

inline constexpr int kHostDevice = 2;
inline constexpr uint16_t kPublishedPort = 8080;       // in the container
inline constexpr uint16_t kPublishedHostPort = 18080;  // on the host

net::IpAddress Ip(const char* text);

// True if a socket of the host's may be connected there on a container's behalf: not to the host's loopback
// (but for the published port), the container's own networks and what is ignored.
bool MayBeReached(const net::IpAddress& ip, uint16_t port);
bool CanBindTo(uint64_t netns, const net::IpAddress& ip);

inline constexpr const char* kIgnored = "192.0.2.0/24";
inline constexpr const char* kContainerAddress = "10.0.2.100";
inline constexpr const char* kContainerNetwork = "10.0.2.0/24";
inline constexpr const char* kHostAddress = "203.0.113.1";

}  // namespace shunt::sim
