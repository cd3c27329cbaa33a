// SPDX-License-Identifier: Apache-2.0
// What rtnetlink's messages mean: see route_messages.h.

#include "net/route_messages.h"

#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

namespace shunt::net {
namespace {

using netlink::Behind;
using netlink::Bytes;
using netlink::ForEachAttribute;
using netlink::Front;

std::optional<IpAddress> ReadAddress(Bytes value) {
  if (value.size() == sizeof(in_addr)) return IpAddress::FromV4(*Front<in_addr>(value));
  if (value.size() == sizeof(in6_addr)) return IpAddress::FromV6(*Front<in6_addr>(value));
  return std::nullopt;
}

std::string ReadName(Bytes value) {
  const char* const text = reinterpret_cast<const char*>(value.data());
  return std::string(text, strnlen(text, value.size()));
}

// `prefix_len` counts the bits of the family. Nothing for IPv4-mapped addresses with a prefix of IPv6
// (::ffff:0:0/90), to which nothing can be sent: the kernel sends IPv4 instead.
std::optional<Subnet> ReadSubnet(int family, const IpAddress& address, int prefix_len) {
  const int length = family == AF_INET6 && address.IsV4() ? prefix_len - 96 : prefix_len;
  if (length < 0 || length > (address.IsV4() ? 32 : 128)) return std::nullopt;
  return Subnet(address, length);
}

}  // namespace

void ReadInterface(Bytes payload, std::vector<Interface>& interfaces) {
  const std::optional<ifinfomsg> body = Front<ifinfomsg>(payload);
  if (!body) return;
  Interface interface;
  interface.ifindex = body->ifi_index;
  interface.is_loopback = (body->ifi_flags & IFF_LOOPBACK) != 0;
  interface.is_ethernet = body->ifi_type == ARPHRD_ETHER;
  ForEachAttribute(Behind(payload, sizeof *body), [&](int type, Bytes value) {
    if (type == IFLA_IFNAME) interface.name = ReadName(value);
  });
  interfaces.push_back(std::move(interface));
}

void ReadInterfaceAddress(Bytes payload, std::vector<InterfaceAddress>& addresses) {
  const std::optional<ifaddrmsg> body = Front<ifaddrmsg>(payload);
  if (!body || (body->ifa_family != AF_INET && body->ifa_family != AF_INET6)) return;
  // On a point-to-point link IFA_LOCAL is ours and IFA_ADDRESS the peer's; else they are the same or LOCAL is
  // missing.
  std::optional<IpAddress> local;
  std::optional<IpAddress> on_link;
  ForEachAttribute(Behind(payload, sizeof *body), [&](int type, Bytes value) {
    if (type == IFA_LOCAL) local = ReadAddress(value);
    if (type == IFA_ADDRESS) on_link = ReadAddress(value);
  });
  if (!local) local = on_link;
  if (!on_link) on_link = local;
  if (!local) return;
  const std::optional<Subnet> network = ReadSubnet(body->ifa_family, *on_link, body->ifa_prefixlen);
  if (!network) return;
  InterfaceAddress address;
  address.ifindex = static_cast<int>(body->ifa_index);
  address.ip = *local;
  address.network = *network;
  addresses.push_back(std::move(address));
}

void ReadRoute(Bytes payload, std::vector<Route>& routes) {
  const std::optional<rtmsg> body = Front<rtmsg>(payload);
  // Other families are multicast forwarding, which has no part in TCP.
  if (!body || (body->rtm_family != AF_INET && body->rtm_family != AF_INET6)) return;
  // A default route has no destination attribute.
  IpAddress destination = body->rtm_family == AF_INET ? IpAddress::FromV4({INADDR_ANY}) : IpAddress();
  std::vector<int> devices;
  ForEachAttribute(Behind(payload, sizeof *body), [&](int type, Bytes value) {
    if (type == RTA_DST) destination = ReadAddress(value).value_or(destination);
    if (type == RTA_OIF) devices.push_back(Front<int>(value).value_or(0));
    if (type == RTA_MULTIPATH) {
      while (const std::optional<rtnexthop> hop = Front<rtnexthop>(value)) {
        devices.push_back(hop->rtnh_ifindex);
        if (hop->rtnh_len < sizeof *hop || hop->rtnh_len > value.size()) return;
        value = Behind(value, hop->rtnh_len);
      }
    }
  });
  const std::optional<Subnet> subnet = ReadSubnet(body->rtm_family, destination, body->rtm_dst_len);
  if (!subnet) return;
  if (devices.empty()) devices.push_back(0);
  for (const int device : devices) routes.push_back({*subnet, device, body->rtm_type});
}

std::optional<RouteAnswer> ReadRouteAnswer(Bytes payload) {
  const std::optional<rtmsg> body = Front<rtmsg>(payload);
  if (!body) return std::nullopt;
  RouteAnswer answer;
  answer.type = body->rtm_type;
  ForEachAttribute(Behind(payload, sizeof *body), [&](int type, Bytes value) {
    if (type == RTA_OIF) answer.ifindex = Front<int>(value).value_or(0);
    if (type == RTA_PREFSRC) answer.source = ReadAddress(value).value_or(IpAddress());
    if (type == RTA_GATEWAY) answer.gateway = ReadAddress(value).value_or(IpAddress());
    // An IPv4 route through an IPv6 gateway: the family, then the address.
    if (type == RTA_VIA && value.size() > sizeof(uint16_t)) {
      answer.gateway = ReadAddress(value.subspan(sizeof(uint16_t))).value_or(IpAddress());
    }
  });
  return answer;
}

}  // namespace shunt::net
