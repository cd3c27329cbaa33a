// SPDX-License-Identifier: Apache-2.0
// rtnetlink: asking the kernel about devices, addresses and routes, and hearing of changes.
//
// Plain netlink sockets and no library: three kinds of question with a handful of attributes do not need one.
//
// A netlink socket speaks of the network namespace in which it was *created*, whoever uses it. So the
// questions take a socket instead of opening one, and everything about a namespace, device names included,
// comes through that socket. The kernel answers while the question is being sent; nothing here ever waits.
// Datagrams from anybody but the kernel are dropped: root in a container may send to our socket there. One
// socket belongs to one thread at a time.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/fd.h"
#include "core/result.h"
#include "net/ip_address.h"
#include "net/subnet_set.h"

namespace shunt::net {

struct Interface {
  int ifindex = 0;
  std::string name;
  bool is_loopback = false;
  bool is_ethernet = false;  // or looks like it: veth, bridges, taps
};

struct InterfaceAddress {
  int ifindex = 0;
  IpAddress ip;    // the machine's own
  Subnet network;  // what is on the link; on a point-to-point link it holds the peer, maybe not `ip`
  bool is_loopback_device = false;  // of the device, not of the address
  bool is_ethernet_device = false;
  std::string name;  // of the device
};

// One next hop of one entry in any routing table.
struct Route {
  Subnet destination;
  int ifindex = 0;   // 0: not told
  uint8_t type = 0;  // RTN_UNICAST ...
};

// What the kernel would do with a new connection.
struct RouteAnswer {
  int ifindex = 0;    // output device; lo for the machine's own addresses
  uint8_t type = 0;   // RTN_UNICAST, RTN_LOCAL ...
  IpAddress source;   // preferred source; unspecified if none was told
  IpAddress gateway;  // unspecified: on the link
};

// A socket for the questions below, about the current network namespace.
Result<Fd> OpenRouteSocket();

// The lists hold at most 16384 entries each; more is ResourceExhausted.
absl::StatusOr<std::vector<Interface>> DumpInterfaces(int route_socket_fd);
absl::StatusOr<std::vector<InterfaceAddress>> DumpAddresses(int route_socket_fd);
// Routes of all tables, IPv4 and IPv6, the local tables included.
absl::StatusOr<std::vector<Route>> DumpRoutes(int route_socket_fd);

// Asks for the route of a TCP connection by this thread's user, unbound and unmarked. No heap. Fails as
// connect() would: ENETUNREACH, EHOSTUNREACH, EACCES ...
Result<RouteAnswer> LookUpRoute(int route_socket_fd, const IpAddress& destination);

// A nonblocking socket that becomes readable when a link, an address, a route or a routing rule of the
// current network namespace changes. Open it before the first dump: then no change falls between the two.
Result<Fd> OpenRouteMonitor();
// Reads what has arrived and throws it away; true if something has changed. Also true if the kernel had to
// drop messages. Reads a bounded number; if more is left, the socket stays readable.
bool DrainChanges(int monitor_fd);

}  // namespace shunt::net
