// SPDX-License-Identifier: Apache-2.0
// Reads the messages of rtnetlink: devices, addresses, routes. The layout is that of rtnetlink(7).
//
// The kernel writes them, but about a network whose root is in a container: how many there are, their names
// and their addresses are his choice. `payload` is what follows a message's header. What cannot be used is
// left out. Pure; any thread.

#pragma once

#include <optional>
#include <vector>

#include "net/netlink.h"
#include "net/rtnetlink.h"

namespace shunt::net {

// RTM_NEWLINK: appends the device.
void ReadInterface(netlink::Bytes payload, std::vector<Interface>& interfaces);
// RTM_NEWADDR: appends the address, without the device's name and kind.
void ReadInterfaceAddress(netlink::Bytes payload, std::vector<InterfaceAddress>& addresses);
// RTM_NEWROUTE in a list: appends one Route for each next hop; one with device 0 if none is told.
void ReadRoute(netlink::Bytes payload, std::vector<Route>& routes);
// RTM_NEWROUTE as the answer to one question. Nothing if it is too short. No heap.
std::optional<RouteAnswer> ReadRouteAnswer(netlink::Bytes payload);

}  // namespace shunt::net
