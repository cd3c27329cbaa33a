// SPDX-License-Identifier: Apache-2.0
// Listening inside on ports that nobody published, and connecting to oneself: by loopback, the unspecified
// address, and the address of one's own interface.
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "tests/parity/guest.h"

namespace parity {
namespace {

// One connection from `client_address` to the listener: both ends printed, a byte each way.
void Serve(int listener, const Address& client_address, int family) {
  const int client = Tcp(family);
  Step("connect", Connect(client, client_address));
  sockaddr_storage from{};
  socklen_t length = sizeof from;
  const int served = accept4(listener, reinterpret_cast<sockaddr*>(&from), &length, SOCK_NONBLOCK);
  Made("accept", served);
  if (served < 0) return;
  Fact("family", "%d/%u", from.ss_family, length);
  Fact("flags", "%#x", fcntl(served, F_GETFL) & ~O_LARGEFILE);
  char byte = 0;
  Step("send", send(client, "x", 1, 0));
  Fact("events", "%#x", WaitFor(served, POLLIN));
  Step("recv", recv(served, &byte, 1, 0));
  Step("send", send(served, "y", 1, 0));
  Step("recv", recv(client, &byte, 1, 0));
}

// The first address of an interface that is not loopback; ends the case if there is none.
bool OwnAddress(char* text, socklen_t size) {
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return false;
  bool found = false;
  for (ifaddrs* it = all; it != nullptr && !found; it = it->ifa_next) {
    if (it->ifa_addr == nullptr || it->ifa_addr->sa_family != AF_INET) continue;
    if ((it->ifa_flags & IFF_LOOPBACK) != 0) continue;
    inet_ntop(AF_INET, &reinterpret_cast<sockaddr_in*>(it->ifa_addr)->sin_addr, text, size);
    found = true;
  }
  freeifaddrs(all);
  return found;
}

}  // namespace

PARITY_CASE(listen, loopback, kPlain) {
  const int listener = Listener(V4("127.0.0.1", 0));
  Where(listener);
  Serve(listener, LocalOf(listener), AF_INET);
}

PARITY_CASE(listen, loopback_other_address, kPlain) {
  const int listener = Listener(V4("127.0.0.1", 0));
  Step("connect", Connect(Tcp(), V4("127.0.0.2", PortOf(LocalOf(listener)))));
  const int second = Listener(V4("127.3.2.1", 0));
  Serve(second, LocalOf(second), AF_INET);
}

PARITY_CASE(listen, loopback_six, kPlain) {
  const int listener = Listener(V6("::1", 0));
  Where(listener);
  Serve(listener, LocalOf(listener), AF_INET6);
}

PARITY_CASE(listen, any, kPlain) {
  const int listener = Listener(V4("0.0.0.0", 0));
  Where(listener);
  Serve(listener, V4("127.0.0.1", PortOf(LocalOf(listener))), AF_INET);
}

PARITY_CASE(listen, connect_to_unspecified, kPlain) {
  const int listener = Listener(V4("0.0.0.0", 0));
  const int client = Tcp();
  Step("connect", Connect(client, V4("0.0.0.0", PortOf(LocalOf(listener)))));
  Where(client);
  Made("accept", accept(listener, nullptr, nullptr));
}

PARITY_CASE(listen, connect_to_unspecified_six, kPlain) {
  const int listener = Listener(V6("::", 0));
  const int client = Tcp(AF_INET6);
  Step("connect", Connect(client, V6("::", PortOf(LocalOf(listener)))));
  Where(client);
  Made("accept", accept(listener, nullptr, nullptr));
}

PARITY_CASE(listen, dual_stack, kPlain) {
  const int listener = Listener(V6("::", 0));
  const int port = PortOf(LocalOf(listener));
  Serve(listener, V4("127.0.0.1", port), AF_INET);
  Serve(listener, V6("::1", port), AF_INET6);
  Serve(listener, Mapped("127.0.0.1", port), AF_INET6);
}

PARITY_CASE(listen, v6only, kPlain) {
  const int listener = Tcp(AF_INET6);
  Step("v6only", SetOption(listener, IPPROTO_IPV6, IPV6_V6ONLY, 1));
  Step("bind", Bind(listener, V6("::", 0)));
  Step("listen", listen(listener, 4));
  Step("four", Connect(Tcp(), V4("127.0.0.1", PortOf(LocalOf(listener)))));
  Serve(listener, V6("::1", PortOf(LocalOf(listener))), AF_INET6);
}

PARITY_CASE(listen, mapped_any, kPlain) {
  const int listener = Listener(Mapped("0.0.0.0", 0));
  Where(listener);
  Serve(listener, V4("127.0.0.1", PortOf(LocalOf(listener))), AF_INET);
}

PARITY_CASE(listen, mapped_any_connect, kPlain) {
  const int listener = Listener(V4("0.0.0.0", 0));
  const int client = Tcp(AF_INET6);
  Step("connect", Connect(client, Mapped("0.0.0.0", PortOf(LocalOf(listener)))));
  Where(client);
  Made("accept", accept(listener, nullptr, nullptr));
}

PARITY_CASE(listen, refused_loopback, kPlain) {
  const int listener = Listener(V4("127.0.0.1", 0));
  const Address address = LocalOf(listener);
  close(listener);
  Step("connect", Connect(Tcp(), address));
  // The services of the other side listen on its own address, not on loopback.
  Step("service", Connect(Tcp(), V4("127.0.0.1", Port("echo"))));
  Step("service_any", Connect(Tcp(), V4("0.0.0.0", Port("echo"))));
  Step("service_six", Connect(Tcp(AF_INET6), V6("::1", Port("echo"))));
  Step("service_mapped", Connect(Tcp(AF_INET6), Mapped("127.0.0.1", Port("echo"))));
}

PARITY_CASE(listen, own_interface, kOrdinary) {
  char text[INET_ADDRSTRLEN] = {};
  if (!OwnAddress(text, sizeof text)) {
    Fact("interface", "none");
    return;
  }
  const int listener = Listener(V4("0.0.0.0", 0));
  Serve(listener, V4(text, PortOf(LocalOf(listener))), AF_INET);
  const int own = Listener(V4(text, 0));
  Where(own);
  Serve(own, LocalOf(own), AF_INET);
  Step("refused", Connect(Tcp(), V4(text, Port("closed"))));
}

PARITY_CASE(listen, nonblocking_loopback_connect, kPlain) {
  const int listener = Listener(V4("127.0.0.1", 0));
  ConnectAndWait(Tcp(AF_INET, SOCK_NONBLOCK), LocalOf(listener));
}

PARITY_CASE(listen, accept4_flags, kPlain) {
  const int listener = Listener(V4("127.0.0.1", 0));
  Step("connect", Connect(Tcp(), LocalOf(listener)));
  const int served = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  Made("accept", served);
  Step("fd_flags", fcntl(served, F_GETFD));
  Fact("flags", "%#x", fcntl(served, F_GETFL) & ~O_LARGEFILE);
  // By the system call: musl makes EINVAL an accept of its own.
  Step("bad_flags", syscall(SYS_accept4, listener, nullptr, nullptr, 1));
}

PARITY_CASE(listen, accept_would_block, kPlain) {
  const int listener = Listener(V4("0.0.0.0", 0));
  Step("nonblock", fcntl(listener, F_SETFL, O_NONBLOCK));
  Step("accept", accept(listener, nullptr, nullptr));
  Step("not_listening", accept(Tcp(), nullptr, nullptr));
}

PARITY_CASE(listen, accept_pointers, kPlain) {
  const int listener = Listener(V4("127.0.0.1", 0));
  Step("connect", Connect(Tcp(), LocalOf(listener)));
  Step("connect", Connect(Tcp(), LocalOf(listener)));
  sockaddr_in from{};
  socklen_t length = static_cast<socklen_t>(-1);
  Step("negative", accept(listener, reinterpret_cast<sockaddr*>(&from), &length));
  length = 3;
  Made("short", accept(listener, reinterpret_cast<sockaddr*>(&from), &length));
  Fact("length", "%u", length);
}

PARITY_CASE(listen, address_in_use, kPlain) {
  const int first = Listener(V4("0.0.0.0", 0));
  const Address address = LocalOf(first);
  const int second = Tcp();
  Step("bind", Bind(second, address));
  Step("reuse", SetOption(second, SOL_SOCKET, SO_REUSEADDR, 1));
  Step("bind", Bind(second, address));
  close(first);
  Step("bind", Bind(second, address));
  Step("listen", listen(second, 4));
}

PARITY_CASE(listen, reuseport_group, kPlain) {
  int fds[3];
  Address address = V4("0.0.0.0", 0);
  for (int& fd : fds) {
    fd = Tcp(AF_INET, SOCK_NONBLOCK);
    Step("reuseport", SetOption(fd, SOL_SOCKET, SO_REUSEPORT, 1));
    Step("bind", Bind(fd, address));
    Step("listen", listen(fd, 64));
    address = LocalOf(fd);
  }
  for (int i = 0; i < 60; ++i) {
    if (Connect(Tcp(), V4("127.0.0.1", PortOf(address))) != 0) Step("connect", -1);
  }
  int accepted = 0;
  for (const int fd : fds) {
    while (accept(fd, nullptr, nullptr) >= 0) ++accepted;
  }
  Fact("accepted", "%d", accepted);
}

PARITY_CASE(listen, reuseport_alone_is_refused, kPlain) {
  const int first = Listener(V4("0.0.0.0", 0));
  const int second = Tcp();
  Step("reuseport", SetOption(second, SOL_SOCKET, SO_REUSEPORT, 1));
  Step("bind", Bind(second, LocalOf(first)));
}

PARITY_CASE(listen, without_bind, kPlain) {
  const int fd = Tcp();
  Step("listen", listen(fd, 4));
  Fact("port", "%s", PortOf(LocalOf(fd)) != 0 ? "some" : "none");
  Serve(fd, V4("127.0.0.1", PortOf(LocalOf(fd))), AF_INET);
}

PARITY_CASE(listen, twice_and_after_shutdown, kPlain) {
  const int fd = Listener(V4("127.0.0.1", 0));
  const Address address = LocalOf(fd);
  Step("again", listen(fd, 1));
  Step("acceptconn", Option(fd, SOL_SOCKET, SO_ACCEPTCONN));
  Step("shutdown", shutdown(fd, SHUT_RDWR));
  Fact("state", "%s", StateOf(fd));
  Step("connect", Connect(Tcp(), address));
  Step("accept", accept(fd, nullptr, nullptr));
  Step("listen", listen(fd, 1));
  Serve(fd, LocalOf(fd), AF_INET);
}

PARITY_CASE(listen, bind_errors, kPlain) {
  const int fd = Tcp();
  Step("foreign", Bind(fd, V4("198.51.100.77", 0)));
  Step("privileged", Bind(fd, V4("127.0.0.1", 81)));
  Step("privileged_any", Bind(fd, V4("0.0.0.0", 81)));
  Step("six_on_four", Bind(fd, V6("::1", 0)));
  Step("bind", Bind(fd, V4("127.0.0.1", 0)));
  Step("twice", Bind(fd, V4("127.0.0.1", 0)));
  Step("multicast", Bind(Tcp(), V4("224.0.0.1", 0)));
  Step("broadcast", Bind(Tcp(), V4("255.255.255.255", 0)));
  Step("foreign_six", Bind(Tcp(AF_INET6), V6("2001:db8::77", 0)));
  Step("link_local_no_scope", Bind(Tcp(AF_INET6), V6("fe80::77", 0)));
  Step("four_on_six", Bind(Tcp(AF_INET6), V4("127.0.0.1", 0)));
}

PARITY_CASE(listen, bind_shows_in_getsockname, kPlain) {
  const int fd = Tcp();
  Where(fd);
  Step("bind", Bind(fd, V4("127.0.0.1", 0)));
  Where(fd);
  const int six = Tcp(AF_INET6);
  Where(six);
  Step("bind", Bind(six, V6("::", 0)));
  Where(six);
}

PARITY_CASE(listen, options_inherited_by_accepted, kPlain) {
  const int listener = Listener(V4("127.0.0.1", 0));
  SetOption(listener, SOL_SOCKET, SO_KEEPALIVE, 1);
  SetOption(listener, IPPROTO_TCP, TCP_NODELAY, 1);
  Step("connect", Connect(Tcp(), LocalOf(listener)));
  const int served = accept(listener, nullptr, nullptr);
  Step("keepalive", Option(served, SOL_SOCKET, SO_KEEPALIVE));
  Step("nodelay", Option(served, IPPROTO_TCP, TCP_NODELAY));
}

PARITY_CASE(listen, forked_workers_accept, kPlain) {
  const int listener = Listener(V4("0.0.0.0", 0), 64);
  pid_t pids[3];
  for (pid_t& pid : pids) {
    pid = Child([&] {
      const int served = accept(listener, nullptr, nullptr);
      return send(served, "w", 1, MSG_NOSIGNAL) == 1 ? 0 : 1;
    });
  }
  for (int i = 0; i < 3; ++i) {
    const int client = Tcp();
    char byte = 0;
    Step("connect", Connect(client, V4("127.0.0.1", PortOf(LocalOf(listener)))));
    Step("recv", recv(client, &byte, 1, 0));
  }
  for (const pid_t pid : pids) Fact("child", "%d", WaitChild(pid));
}

PARITY_CASE(listen, self_connect, kPlain) {
  // A socket connected to its own port: a simultaneous open with itself.
  const int fd = Tcp();
  Step("bind", Bind(fd, V4("127.0.0.1", 0)));
  Step("connect", Connect(fd, LocalOf(fd)));
  Talk("talk", fd);
}

PARITY_CASE(listen, connected_client_then_bind_listen, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("hold")));
  Step("listen", listen(fd, 4));
  Step("bind", Bind(fd, V4("0.0.0.0", 0)));
  Step("disconnect", Connect(fd, Unspecified()));
  Step("bind", Bind(fd, V4("127.0.0.1", 0)));
  Step("listen", listen(fd, 4));
  Serve(fd, LocalOf(fd), AF_INET);
}

}  // namespace parity
