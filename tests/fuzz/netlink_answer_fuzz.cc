// SPDX-License-Identifier: Apache-2.0
// A datagram of netlink about a container's network, with any bytes: devices, addresses, routes, listening
// sockets. What is taken from it must be what one can go on with.

#include <linux/sock_diag.h>

#include <span>
#include <vector>

#include "core/check.h"
#include "net/listener_census.h"
#include "net/route_messages.h"

namespace {

using namespace shunt::net;

void CheckSubnet(const Subnet& subnet) {
  const auto again = ParseSubnet(subnet.ToString());
  SHUNT_CHECK(again.ok() && again->ToString() == subnet.ToString());
}

void ReadAll(netlink::Bytes payload) {
  std::vector<Interface> interfaces;
  ReadInterface(payload, interfaces);
  SHUNT_CHECK(interfaces.size() <= 1);
  std::vector<InterfaceAddress> addresses;
  ReadInterfaceAddress(payload, addresses);
  SHUNT_CHECK(addresses.size() <= 1);
  for (const InterfaceAddress& address : addresses) CheckSubnet(address.network);
  std::vector<Route> routes;
  ReadRoute(payload, routes);
  // A next hop takes 4 bytes at least, however it is nested.
  SHUNT_CHECK(routes.size() <= 1 + payload.size() / 4);
  for (const Route& route : routes) CheckSubnet(route.destination);
  if (const auto answer = ReadRouteAnswer(payload)) SHUNT_CHECK(!answer->source.ToString().empty());
  constexpr uint16_t kPort = 0x1f90;  // 8080
  if (const auto socket = ReadListeningSocket(payload, kPort)) SHUNT_CHECK(!socket->ip.ToString().empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr uint32_t kSequence = 1;
  const netlink::Bytes datagram = std::as_bytes(std::span(data, size));
  netlink::DumpAnswer answer(kSequence);
  size_t messages = 0;
  const bool ended = answer.Take(datagram, [&](int, netlink::Bytes payload) {
    ++messages;
    ReadAll(payload);
  });
  SHUNT_CHECK(messages + static_cast<size_t>(answer.strangers()) <= size / sizeof(nlmsghdr));
  if (ended && !answer.result()) SHUNT_CHECK(answer.result().error().code > 0);
  return 0;
}
