// SPDX-License-Identifier: Apache-2.0
// rtnetlink: building requests, walking answers. The layout is that of rtnetlink(7).

#include "net/rtnetlink.h"

#include <linux/if.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"

namespace shunt::net {
namespace {

using Bytes = std::span<const std::byte>;

// The kernel makes its dump messages as large as the buffer of the last read, up to 32 KiB.
constexpr size_t kDumpBuffer = 32768;
// More devices, addresses or routes than this are refused: whoever is root in a container makes as many as he
// likes.
constexpr size_t kMostEntries = 16384;
// Datagrams that are not from the kernel, or belong to a question that was given up, are read past; so many
// at most.
constexpr int kMostStrangers = 4096;

// Netlink aligns everything to 4 bytes.
constexpr size_t Aligned(size_t length) {
  return (length + 3) & ~size_t{3};
}

// Copies a structure out of the front of `bytes`, which may be unaligned; nothing if it is too short.
template <typename Struct>
std::optional<Struct> Front(Bytes bytes) {
  if (bytes.size() < sizeof(Struct)) return std::nullopt;
  Struct value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

Bytes Behind(Bytes bytes, size_t length) {
  return bytes.subspan(std::min(Aligned(length), bytes.size()));
}

// Takes the next message off the front of `datagram`: its header, and what follows the header as `payload`.
std::optional<nlmsghdr> NextMessage(Bytes& datagram, Bytes& payload) {
  const std::optional<nlmsghdr> header = Front<nlmsghdr>(datagram);
  if (!header || header->nlmsg_len < sizeof(nlmsghdr) || header->nlmsg_len > datagram.size())
    return std::nullopt;
  payload = datagram.subspan(sizeof(nlmsghdr), header->nlmsg_len - sizeof(nlmsghdr));
  datagram = Behind(datagram, header->nlmsg_len);
  return header;
}

// Calls visit(type, value) for each attribute in `attributes`.
template <typename Visit>
void ForEachAttribute(Bytes attributes, Visit visit) {
  while (const std::optional<rtattr> header = Front<rtattr>(attributes)) {
    if (header->rta_len < sizeof(rtattr) || header->rta_len > attributes.size()) return;
    visit(header->rta_type & NLA_TYPE_MASK,
          attributes.subspan(sizeof(rtattr), header->rta_len - sizeof(rtattr)));
    attributes = Behind(attributes, header->rta_len);
  }
}

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

// One request in a fixed buffer.
class Request {
 public:
  template <typename Body>
  Request(int type, int flags, const Body& body) {
    // One counter for all sockets: an answer that was left over can never be taken for that to another
    // question.
    static std::atomic<uint32_t> last_sequence{0};
    header_.nlmsg_type = static_cast<uint16_t>(type);
    header_.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
    header_.nlmsg_seq = last_sequence.fetch_add(1, std::memory_order_relaxed) + 1;
    Append(&body, sizeof body);
  }

  template <typename Value>
  void AddAttribute(int type, const Value& value) {
    const rtattr header = {static_cast<unsigned short>(sizeof(rtattr) + sizeof value),
                           static_cast<unsigned short>(type)};
    Append(&header, sizeof header);
    Append(&value, sizeof value);
  }

  uint32_t sequence() const { return header_.nlmsg_seq; }

  Result<void> SendTo(int fd) {
    header_.nlmsg_len = static_cast<uint32_t>(size_);
    std::memcpy(buffer_, &header_, sizeof header_);
    sockaddr_nl kernel = {};
    kernel.nl_family = AF_NETLINK;
    for (;;) {
      const ssize_t sent =
          sendto(fd, buffer_, size_, MSG_DONTWAIT, reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel);
      if (sent >= 0) return {};
      if (errno != EINTR) return FailErrno();
    }
  }

 private:
  void Append(const void* data, size_t length) {
    std::memcpy(buffer_ + size_, data, length);
    size_ = Aligned(size_ + length);
  }

  nlmsghdr header_ = {};
  size_t size_ = sizeof(nlmsghdr);
  alignas(nlmsghdr) std::byte buffer_[128] = {};
};

// The next datagram of the kernel. EAGAIN if there is none, EMSGSIZE if it does not fit.
Result<Bytes> ReceiveFromKernel(int fd, std::span<std::byte> buffer) {
  for (int strangers = 0; strangers < kMostStrangers; ++strangers) {
    sockaddr_nl sender = {};
    iovec part = {buffer.data(), buffer.size()};
    msghdr message = {};
    message.msg_name = &sender;
    message.msg_namelen = sizeof sender;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    const ssize_t length = recvmsg(fd, &message, MSG_DONTWAIT);
    if (length < 0) {
      if (errno == EINTR) continue;
      return FailErrno();
    }
    // The sender's port is written by the kernel and cannot be forged; its own is 0.
    if (message.msg_namelen != sizeof sender || sender.nl_pid != 0) continue;
    if ((message.msg_flags & MSG_TRUNC) != 0) return Fail(EMSGSIZE);
    return Bytes(buffer).first(static_cast<size_t>(length));
  }
  return Fail(EAGAIN);
}

int ErrorOf(Bytes payload) {
  const std::optional<nlmsgerr> error = Front<nlmsgerr>(payload);
  return error && error->error < 0 ? -error->error : EBADMSG;
}

// Sends a dump request and calls visit(type, payload) for every message of the answer. ERESTART if the tables
// changed meanwhile, so that something may be missing.
template <typename Visit>
Result<void> DumpOnce(int fd, Request request, std::byte* buffer, Visit visit) {
  if (Result<void> sent = request.SendTo(fd); !sent) return sent;
  bool interrupted = false;
  for (int strangers = 0; strangers < kMostStrangers;) {
    const Result<Bytes> datagram = ReceiveFromKernel(fd, {buffer, kDumpBuffer});
    if (!datagram) return Fail(datagram.error().code);
    Bytes rest = *datagram;
    Bytes payload;
    while (const std::optional<nlmsghdr> header = NextMessage(rest, payload)) {
      if (header->nlmsg_seq != request.sequence()) {
        ++strangers;
        continue;
      }
      interrupted |= (header->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
      if (header->nlmsg_type == NLMSG_ERROR) return Fail(ErrorOf(payload));
      if (header->nlmsg_type == NLMSG_DONE) {
        // The end carries the dump's own result.
        const int result = Front<int>(payload).value_or(0);
        if (result < 0) return Fail(-result);
        return interrupted ? Result<void>(Fail(ERESTART)) : Result<void>();
      }
      visit(header->nlmsg_type, payload);
    }
  }
  return Fail(EAGAIN);
}

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

void ReadInterface(Bytes payload, std::vector<Interface>& interfaces) {
  const std::optional<ifinfomsg> body = Front<ifinfomsg>(payload);
  if (!body) return;
  Interface interface;
  interface.ifindex = body->ifi_index;
  interface.is_loopback = (body->ifi_flags & IFF_LOOPBACK) != 0;
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

// Appends one Route for each next hop of the message.
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

RouteAnswer ReadRouteAnswer(const rtmsg& body, Bytes attributes) {
  RouteAnswer answer;
  answer.type = body.rtm_type;
  ForEachAttribute(attributes, [&](int type, Bytes value) {
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
    const std::optional<rtmsg> body = Front<rtmsg>(payload);
    if (header->nlmsg_type != RTM_NEWROUTE || !body) return Fail(EBADMSG);
    return ReadRouteAnswer(*body, Behind(payload, sizeof *body));
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
