// SPDX-License-Identifier: Apache-2.0
// rtnetlink: what is asked, and of whom an answer is taken. What it means is read in route_messages.cc.

#include "net/rtnetlink.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/netlink.h"
#include "net/route_messages.h"

namespace shunt::net {
namespace {

using netlink::Bytes;
using netlink::DumpOnce;
using netlink::ErrorOf;
using netlink::kDumpBuffer;
using netlink::kMostStrangers;
using netlink::NextMessage;
using netlink::ReceiveFromKernel;
using netlink::Request;

// More devices, addresses or routes than this are refused: whoever is root in a container makes as many as he
// likes.
constexpr size_t kMostEntries = 16384;

// Collects what read(payload, list) makes of each message of type `wanted`. Asks again if the tables changed
// meanwhile.
template <typename Entry, typename Body, typename Read>
absl::StatusOr<std::vector<Entry>> Dump(int fd, int question, int wanted, const Body& body,
                                        absl::string_view what, Read read) {
  const auto buffer = std::make_unique<std::byte[]>(kDumpBuffer);
  for (int attempt = 0; attempt < 8; ++attempt) {
    std::vector<Entry> list;
    // Read to the end in any case: a socket with half a dump in it refuses the next question.
    const Result<void> done =
        DumpOnce(fd, Request(question, NLM_F_DUMP, body), buffer.get(), [&](int type, Bytes payload) {
          if (type == wanted && list.size() <= kMostEntries) read(payload, list);
        });
    if (list.size() > kMostEntries) {
      return absl::ResourceExhaustedError(
          absl::StrCat("list the ", what, " of a network namespace: there are more than ", kMostEntries));
    }
    if (done) return list;
    if (done.error().code != ERESTART) {
      return ToStatus(done.error(),
                      std::string("list the ").append(what.data(), what.size()) + " of a network namespace");
    }
  }
  return absl::UnavailableError(absl::StrCat(
      "list the ", what, " of a network namespace: they kept changing while they were read; try again"));
}

}  // namespace

Result<Fd> OpenRouteSocket() {
  Fd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
  if (!fd.valid()) return FailErrno();
  return fd;
}

absl::StatusOr<std::vector<Interface>> DumpInterfaces(int route_socket_fd) {
  return Dump<Interface>(route_socket_fd, RTM_GETLINK, RTM_NEWLINK, ifinfomsg{}, "devices", ReadInterface);
}

absl::StatusOr<std::vector<InterfaceAddress>> DumpAddresses(int route_socket_fd) {
  absl::StatusOr<std::vector<InterfaceAddress>> addresses = Dump<InterfaceAddress>(
      route_socket_fd, RTM_GETADDR, RTM_NEWADDR, ifaddrmsg{}, "addresses", ReadInterfaceAddress);
  if (!addresses.ok()) return addresses;
  const absl::StatusOr<std::vector<Interface>> interfaces = DumpInterfaces(route_socket_fd);
  if (!interfaces.ok()) return interfaces.status();
  std::unordered_map<int, const Interface*> by_index;
  for (const Interface& interface : *interfaces) by_index[interface.ifindex] = &interface;
  for (InterfaceAddress& address : *addresses) {
    const auto found = by_index.find(address.ifindex);
    if (found == by_index.end())
      continue;  // the device has come between the two dumps; a change is announced
    address.name = found->second->name;
    address.is_loopback_device = found->second->is_loopback;
    address.is_ethernet_device = found->second->is_ethernet;
  }
  return addresses;
}

absl::StatusOr<std::vector<Route>> DumpRoutes(int route_socket_fd) {
  return Dump<Route>(route_socket_fd, RTM_GETROUTE, RTM_NEWROUTE, rtmsg{}, "routes", ReadRoute);
}

Result<RouteAnswer> LookUpRoute(int route_socket_fd, const IpAddress& destination) {
  rtmsg question = {};
  question.rtm_family = destination.IsV4() ? AF_INET : AF_INET6;
  question.rtm_dst_len = destination.IsV4() ? 32 : 128;
  Request request(RTM_GETROUTE, 0, question);
  if (destination.IsV4()) {
    request.AddAttribute(RTA_DST, destination.ToV4());
  } else {
    request.AddAttribute(RTA_DST, destination.ToV6());
  }
  request.AddAttribute(RTA_IP_PROTO, uint8_t{IPPROTO_TCP});
  if (Result<void> sent = request.SendTo(route_socket_fd); !sent) return Fail(sent.error().code);

  alignas(nlmsghdr) std::byte buffer[4096];
  for (int strangers = 0; strangers < kMostStrangers; ++strangers) {
    const Result<Bytes> datagram = ReceiveFromKernel(route_socket_fd, buffer);
    if (!datagram) return Fail(datagram.error().code);
    Bytes rest = *datagram;
    Bytes payload;
    const std::optional<nlmsghdr> header = NextMessage(rest, payload);
    if (!header || header->nlmsg_seq != request.sequence()) continue;
    if (header->nlmsg_type == NLMSG_ERROR) return Fail(ErrorOf(payload));
    const std::optional<RouteAnswer> answer = ReadRouteAnswer(payload);
    if (header->nlmsg_type != RTM_NEWROUTE || !answer) return Fail(EBADMSG);
    return *answer;
  }
  return Fail(EAGAIN);
}

Result<Fd> OpenRouteMonitor() {
  Result<Fd> fd = OpenRouteSocket();
  if (!fd) return fd;
  sockaddr_nl self = {};
  self.nl_family = AF_NETLINK;
  if (bind(fd->get(), reinterpret_cast<const sockaddr*>(&self), sizeof self) != 0) return FailErrno();
  for (const int group : {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE,
                          RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE, RTNLGRP_NEXTHOP}) {
    if (setsockopt(fd->get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0)
      return FailErrno();
  }
  return fd;
}

bool DrainChanges(int monitor_fd) {
  bool changed = false;
  for (int reads = 0; reads < kMostStrangers; ++reads) {
    // What has changed is not looked at: whoever asks reads everything anew.
    std::byte unused;
    if (recv(monitor_fd, &unused, sizeof unused, MSG_DONTWAIT) >= 0 || errno == ENOBUFS) {
      changed = true;
    } else if (errno != EINTR) {
      return changed;
    }
  }
  return changed;
}

}  // namespace shunt::net
