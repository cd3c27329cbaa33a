// SPDX-License-Identifier: Apache-2.0
// IPv6 in its forms, and the kinds of sockets that are left to the kernel: UDP, AF_UNIX, netlink, raw.
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "tests/parity/guest.h"

namespace parity {
namespace {

Address UnixAt(const char* name, bool abstract) {
  Address result;
  auto* un = reinterpret_cast<sockaddr_un*>(&result.storage);
  un->sun_family = AF_UNIX;
  const int shift = abstract ? 1 : 0;
  snprintf(un->sun_path + shift, sizeof un->sun_path - 1, "%s-%d", name, getpid());
  result.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + static_cast<size_t>(shift) +
                                         strlen(un->sun_path + shift));
  return result;
}

}  // namespace

PARITY_CASE(six, host, kPlain) {
  const int fd = Tcp(AF_INET6);
  Step("connect", Connect(fd, HostAt6("echo")));
  Where(fd);
  Talk("talk", fd);
}

PARITY_CASE(six, peer, kPlain) {
  const int fd = Tcp(AF_INET6);
  Step("connect", Connect(fd, PeerAt6("echo")));
  Where(fd);
  Talk("talk", fd);
}

PARITY_CASE(six, refused, kPlain) {
  const int fd = Tcp(AF_INET6);
  Step("connect", Connect(fd, PeerAt6("closed")));
  Step("connect", Connect(fd, PeerAt6("echo")));
  Talk("talk", fd);
}

PARITY_CASE(six, nonblocking, kPlain) {
  const int fd = Tcp(AF_INET6, SOCK_NONBLOCK);
  ConnectAndWait(fd, PeerAt6("echo"));
  Talk("talk", fd);
}

PARITY_CASE(six, mapped_peer, kPlain) {
  const int port = Port("echo");
  const int fd = Tcp(AF_INET6);
  Step("connect", Connect(fd, Mapped(World("peer"), port)));
  Where(fd);
  Step("domain", Option(fd, SOL_SOCKET, SO_DOMAIN));
  Talk("talk", fd);
}

PARITY_CASE(six, mapped_host, kPlain) {
  const int port = Port("echo");
  const int fd = Tcp(AF_INET6);
  Step("connect", Connect(fd, Mapped(World("host"), port)));
  Where(fd);
  Talk("talk", fd);
}

// Not here and not in the walks: an IPv6 address after a refused mapped one. The kernel (6.18) then sends the
// SYN by IPv4 and waits for minutes; that is a fault of its own and nothing that a program could rely on.
PARITY_CASE(six, mapped_refused_then_mapped, kPlain) {
  const int closed = Port("closed");
  const int echo = Port("echo");
  const int fd = Tcp(AF_INET6);
  Step("connect", Connect(fd, Mapped(World("peer"), closed)));
  Step("connect", Connect(fd, Mapped(World("peer"), echo)));
  Where(fd);
  Talk("talk", fd);
}

PARITY_CASE(six, mapped_v6only, kPlain) {
  const int port = Port("echo");
  const int fd = Tcp(AF_INET6);
  Step("v6only", SetOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1));
  Step("mapped", Connect(fd, Mapped(World("peer"), port)));
  Step("six", Connect(fd, PeerAt6("echo")));
  Talk("talk", fd);
}

PARITY_CASE(six, mapped_nonblocking_refused, kPlain) {
  const int port = Port("closed");
  ConnectAndWait(Tcp(AF_INET6, SOCK_NONBLOCK), Mapped(World("peer"), port));
}

PARITY_CASE(six, four_address_on_six, kPlain) {
  const int fd = Tcp(AF_INET6);
  Step("connect", Connect(fd, PeerAt("echo")));
  Where(fd);
}

PARITY_CASE(six, six_address_on_four, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt6("echo")));
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("talk", fd);
}

PARITY_CASE(six, bound_mapped_source, kPlain) {
  const int port = Port("echo");
  const int fd = Tcp(AF_INET6);
  Step("bind", Bind(fd, Mapped("0.0.0.0", 0)));
  Where(fd);
  Step("connect", Connect(fd, Mapped(World("peer"), port)));
  Talk("talk", fd);
}

PARITY_CASE(six, bound_any_source, kPlain) {
  const int fd = Tcp(AF_INET6);
  Step("bind", Bind(fd, V6("::", 0)));
  const int port = PortOf(LocalOf(fd));
  Step("connect", Connect(fd, PeerAt6("whoami")));
  char seen[8] = {};
  Step("read", ReadFully(fd, seen, 5));
  int number = 0;
  sscanf(seen, "%d", &number);
  Fact("seen", "%s", number == port ? "the bound port" : "another port");
}

PARITY_CASE(six, bound_loopback_to_mapped, kOrdinary) {
  const int port = Port("echo");
  const int fd = Tcp(AF_INET6);
  Step("bind", Bind(fd, V6("::1", 0)));
  Step("connect", Connect(fd, Mapped(World("peer"), port)));
}

PARITY_CASE(six, disconnect_then_four, kPlain) {
  const int port = Port("echo");
  const int fd = Tcp(AF_INET6);
  Step("connect", Connect(fd, PeerAt6("echo")));
  Step("disconnect", Connect(fd, Unspecified()));
  Where(fd);
  Step("connect", Connect(fd, Mapped(World("peer"), port)));
  Talk("talk", fd);
}

PARITY_CASE(six, flow_label_is_ignored, kPlain) {
  Address address = PeerAt6("echo");
  reinterpret_cast<sockaddr_in6*>(&address.storage)->sin6_flowinfo = htonl(0x12345);
  const int fd = Tcp(AF_INET6);
  Step("connect", Connect(fd, address));
  Talk("talk", fd);
}

PARITY_CASE(six, scope_of_a_global_address, kOrdinary) {
  Address address = HostAt6("closed");
  reinterpret_cast<sockaddr_in6*>(&address.storage)->sin6_scope_id = 1;
  const int listener = Listener(V6("::1", 0));
  Step("link_local_no_scope", Connect(Tcp(AF_INET6), V6("fe80::1234", 80)));
  Address own = LocalOf(listener);
  reinterpret_cast<sockaddr_in6*>(&own.storage)->sin6_scope_id = 1;
  Step("loopback_with_scope", Connect(Tcp(AF_INET6), own));
}

PARITY_CASE(six, rfc3484_probe_like_sshd, kOrdinary) {
  // UDP over IPv6, disconnected, then an IPv4 address on the same socket.
  const int fd = socket(AF_INET6, SOCK_DGRAM, 0);
  Step("loopback", Connect(fd, V6("::1", 9)));
  Step("disconnect", Connect(fd, Unspecified()));
  Step("four", Connect(fd, V4("127.0.0.1", 9)));
  Where(fd);
}

PARITY_CASE(udp, echo, kOrdinary) {
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  Step("connect", Connect(fd, PeerAt("udp")));
  Where(fd);
  Talk("talk", fd);
}

PARITY_CASE(udp, sendto, kOrdinary) {
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  const Address address = PeerAt("udp");
  Step("sendto", sendto(fd, "abc", 3, 0, address.get(), address.length));
  char back[4] = {};
  Step("read", ReadFully(fd, back, 3));
}

PARITY_CASE(udp, bound_then_connected, kOrdinary) {
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  Step("bind", Bind(fd, V4("0.0.0.0", 0)));
  Step("connect", Connect(fd, PeerAt("udp")));
  Talk("talk", fd);
  Step("disconnect", Connect(fd, Unspecified()));
  Step("send", send(fd, "x", 1, 0));
}

PARITY_CASE(udp, loopback, kPlain) {
  const int server = socket(AF_INET, SOCK_DGRAM, 0);
  Step("bind", Bind(server, V4("127.0.0.1", 0)));
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  Step("connect", Connect(fd, LocalOf(server)));
  Step("send", send(fd, "abc", 3, 0));
  char back[8] = {};
  Step("recv", recv(server, back, sizeof back, 0));
  close(server);
  Step("send", send(fd, "abc", 3, 0));
  Step("recv", recv(fd, back, sizeof back, 0));
}

PARITY_CASE(udp, loopback_six, kPlain) {
  const int server = socket(AF_INET6, SOCK_DGRAM, 0);
  Step("bind", Bind(server, V6("::1", 0)));
  const int fd = socket(AF_INET6, SOCK_DGRAM, 0);
  Step("connect", Connect(fd, LocalOf(server)));
  Step("send", send(fd, "abc", 3, 0));
  char back[8] = {};
  Step("recv", recv(server, back, sizeof back, 0));
}

PARITY_CASE(unix, stream_path, kPlain) {
  const Address address = UnixAt("/tmp/parity", false);
  const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  Step("before", Connect(socket(AF_UNIX, SOCK_STREAM, 0), address));
  Step("bind", Bind(listener, address));
  Step("not_listening", Connect(socket(AF_UNIX, SOCK_STREAM, 0), address));
  Step("listen", listen(listener, 4));
  const int client = socket(AF_UNIX, SOCK_STREAM, 0);
  Step("connect", Connect(client, address));
  Made("accept", accept(listener, nullptr, nullptr));
  Step("again", Connect(client, address));
  Step("bind_taken", Bind(socket(AF_UNIX, SOCK_STREAM, 0), address));
  unlink(reinterpret_cast<const sockaddr_un*>(&address.storage)->sun_path);
}

PARITY_CASE(unix, stream_abstract, kPlain) {
  const Address address = UnixAt("parity", true);
  const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  Step("bind", Bind(listener, address));
  Step("listen", listen(listener, 4));
  const int client = socket(AF_UNIX, SOCK_STREAM, 0);
  Step("connect", Connect(client, address));
  const int served = accept(listener, nullptr, nullptr);
  Made("accept", served);
  Step("send", send(client, "abc", 3, 0));
  char back[4] = {};
  Step("recv", recv(served, back, 3, 0));
}

PARITY_CASE(unix, datagram_abstract, kPlain) {
  const Address address = UnixAt("parity", true);
  const int server = socket(AF_UNIX, SOCK_DGRAM, 0);
  Step("bind", Bind(server, address));
  const int client = socket(AF_UNIX, SOCK_DGRAM, 0);
  Step("connect", Connect(client, address));
  Step("send", send(client, "abc", 3, 0));
  char back[4] = {};
  Step("recv", recv(server, back, 3, 0));
  Step("disconnect", Connect(client, Unspecified()));
  Step("send", send(client, "abc", 3, 0));
}

PARITY_CASE(unix, autobind_and_pair, kPlain) {
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  Address address;
  address.storage.ss_family = AF_UNIX;
  address.length = sizeof(sa_family_t);
  Step("autobind", Bind(fd, address));
  int pair[2];
  Step("socketpair", socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
  Step("connect_pair", Connect(pair[0], address));
}

PARITY_CASE(unix, lengths, kPlain) {
  constexpr socklen_t kLengths[] = {0, 1, 2, 3, 16, 109, 110, 111, 128, 129};
  for (const socklen_t length : kLengths) {
    Address address = UnixAt("/tmp/parity-nobody", false);
    address.length = length;
    char name[32];
    snprintf(name, sizeof name, "length_%u", length);
    Step(name, connect(socket(AF_UNIX, SOCK_STREAM, 0), address.get(), length));
  }
}

PARITY_CASE(unix, inet_address, kPlain) {
  Step("connect", Connect(socket(AF_UNIX, SOCK_STREAM, 0), PeerAt("echo")));
  Step("bind", Bind(socket(AF_UNIX, SOCK_STREAM, 0), V4("0.0.0.0", 0)));
}

PARITY_CASE(netlink, bind_connect_and_dump, kPlain) {
  const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  Made("socket", fd);
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  Step("bind", bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address));
  Step("connect", connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address));
  struct {
    nlmsghdr header;
    rtgenmsg message;
  } request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = RTM_GETLINK;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  Step("send", send(fd, &request, sizeof request, 0));
  alignas(nlmsghdr) char answer[32768];
  const ssize_t got = recv(fd, answer, sizeof answer, 0);
  Fact("type", "%d", got > 0 ? reinterpret_cast<nlmsghdr*>(answer)->nlmsg_type : -1);
}

PARITY_CASE(other, raw_sockets_are_refused, kPlain) {
  Step("raw", socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
  Step("raw_six", socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6));
  Step("packet", socket(AF_PACKET, SOCK_RAW, 0));
}

PARITY_CASE(other, sockets_of_no_kind, kPlain) {
  Step("family", socket(9999, SOCK_STREAM, 0));
  Step("type", socket(AF_INET, 77, 0));
  Step("protocol", socket(AF_INET, SOCK_STREAM, 99));
  Step("flags", socket(AF_INET, SOCK_STREAM | 0x100000, 0));
  Step("seqpacket", socket(AF_INET, SOCK_SEQPACKET, 0));
}

PARITY_CASE(other, nested_network_namespace, kOrdinary) {
  // In a namespace of its own nothing but its own (down) loopback is there, whoever watches the calls.
  const pid_t pid = Child([] {
    if (syscall(SYS_unshare, 0x10000000 | 0x40000000 /* CLONE_NEWUSER | CLONE_NEWNET */) != 0) return 50;
    Step("nested", Connect(Tcp(), PeerAt("echo")));
    Step("nested_loopback", Connect(Tcp(), V4("127.0.0.1", 9)));
    return 0;
  });
  Fact("child", "%d", WaitChild(pid));
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("talk", fd);
}

PARITY_CASE(other, socket_kept_from_the_outer_namespace, kOrdinary) {
  const int fd = Tcp();
  const pid_t pid = Child([&] {
    if (syscall(SYS_unshare, 0x10000000 | 0x40000000) != 0) return 50;
    Step("outer_socket", Connect(fd, PeerAt("echo")));
    Talk("talk", fd);
    return 0;
  });
  Fact("child", "%d", WaitChild(pid));
}

}  // namespace parity
