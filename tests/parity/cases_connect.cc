// SPDX-License-Identifier: Apache-2.0
// Blocking connects, one after the other: what succeeds, what is refused, and what a socket is good for
// afterwards.
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "tests/parity/guest.h"

namespace parity {

PARITY_CASE(connect, host, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, HostAt("echo")));
  Where(fd);
  Talk("talk", fd);
}

PARITY_CASE(connect, peer, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("echo")));
  Where(fd);
  Talk("talk", fd);
}

PARITY_CASE(connect, hundred_in_a_row, kPlain) {
  int good = 0;
  for (int i = 0; i < 100; ++i) {
    const int fd = Tcp(AF_INET, SOCK_CLOEXEC);
    good += Connect(fd, PeerAt("hold")) == 0;
    close(fd);
  }
  Fact("good", "%d", good);
}

PARITY_CASE(connect, refused_host, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, HostAt("closed")));
  Fact("so_error", "%s", ErrnoName(TakeError(fd)));
  Where(fd);
  Fact("state", "%s", StateOf(fd));
}

PARITY_CASE(connect, refused_peer, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("closed")));
  Fact("so_error", "%s", ErrnoName(TakeError(fd)));
  Where(fd);
}

PARITY_CASE(connect, refused_then_ok, kPlain) {
  const int fd = Tcp();
  Step("refused", Connect(fd, PeerAt("closed")));
  Step("again", Connect(fd, PeerAt("closed")));
  Step("connect", Connect(fd, PeerAt("echo")));
  Where(fd);
  Talk("talk", fd);
}

PARITY_CASE(connect, refused_then_other_address, kPlain) {
  const int fd = Tcp();
  Step("refused", Connect(fd, HostAt("closed")));
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("talk", fd);
}

PARITY_CASE(connect, refused_then_send, kPlain) {
  const int fd = Tcp();
  Step("refused", Connect(fd, PeerAt("closed")));
  Step("send", send(fd, "x", 1, MSG_NOSIGNAL));
  char byte = 0;
  Step("recv", recv(fd, &byte, 1, MSG_DONTWAIT));
}

PARITY_CASE(connect, refused_then_listen, kPlain) {
  const int fd = Tcp();
  Step("refused", Connect(fd, PeerAt("closed")));
  Step("bind", Bind(fd, V4("127.0.0.1", 0)));
  Step("listen", listen(fd, 4));
  const int client = Tcp();
  Step("connect", Connect(client, LocalOf(fd)));
  Made("accept", accept(fd, nullptr, nullptr));
}

PARITY_CASE(connect, twice_is_eisconn, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("echo")));
  Step("same", Connect(fd, PeerAt("echo")));
  Step("other", Connect(fd, HostAt("echo")));
  Step("loopback", Connect(fd, V4("127.0.0.1", 9)));
  Talk("talk", fd);
}

PARITY_CASE(connect, port_zero, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, V4("203.0.113.2", 0)));
}

PARITY_CASE(connect, broadcast_and_multicast, kOrdinary) {
  int fd = Tcp();
  Step("multicast", Connect(fd, V4("224.0.0.1", 80)));
  close(fd);
  fd = Tcp();
  Step("limited", Connect(fd, V4("255.255.255.255", 80)));
  close(fd);
  fd = Tcp();
  Step("then_ok", Connect(fd, V4("224.0.0.1", 80)));
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("talk", fd);
}

PARITY_CASE(connect, disconnect_then_connect, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("talk", fd);
  Step("disconnect", Connect(fd, Unspecified()));
  Fact("state", "%s", StateOf(fd));
  Where(fd);
  Step("connect", Connect(fd, HostAt("echo")));
  Where(fd);
  Talk("talk", fd);
}

PARITY_CASE(connect, disconnect_then_own_loopback, kPlain) {
  const int listener = Listener(V4("127.0.0.1", 0));
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("echo")));
  Step("disconnect", Connect(fd, Unspecified()));
  Step("connect", Connect(fd, LocalOf(listener)));
  Made("accept", accept(listener, nullptr, nullptr));
}

PARITY_CASE(connect, disconnect_unconnected, kPlain) {
  const int fd = Tcp();
  Step("disconnect", Connect(fd, Unspecified()));
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("talk", fd);
}

PARITY_CASE(connect, disconnect_after_refused, kPlain) {
  const int fd = Tcp();
  Step("refused", Connect(fd, PeerAt("closed")));
  Step("disconnect", Connect(fd, Unspecified()));
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("talk", fd);
}

PARITY_CASE(connect, disconnect_many_times, kPlain) {
  const int fd = Tcp();
  int good = 0;
  for (int i = 0; i < 20; ++i) {
    good += Connect(fd, PeerAt("hold")) == 0;
    good += Connect(fd, Unspecified()) == 0;
  }
  Fact("good", "%d", good);
}

PARITY_CASE(connect, short_unspec, kPlain) {
  const int fd = Tcp();
  Address address = Unspecified();
  Step("connect", Connect(fd, PeerAt("echo")));
  address.length = 2;
  Step("two_bytes", Connect(fd, address));
  Where(fd);
  address.length = 1;
  Step("one_byte", Connect(fd, address));
}

PARITY_CASE(connect, source_port, kPlain) {
  const int fd = Tcp();
  Step("bind", Bind(fd, V4("0.0.0.0", 0)));
  const int port = PortOf(LocalOf(fd));
  Step("connect", Connect(fd, PeerAt("whoami")));
  char seen[8] = {};
  Step("read", ReadFully(fd, seen, 5));
  int number = 0;
  sscanf(seen, "%d", &number);
  Fact("kept", "%s", PortOf(LocalOf(fd)) == port ? "yes" : "no");
  Fact("seen", "%s", number == port ? "the bound port" : "another port");
  Where(fd);
}

PARITY_CASE(connect, source_port_reuse_and_fixed, kPlain) {
  const int probe = Tcp();
  Step("probe", Bind(probe, V4("0.0.0.0", 0)));
  const Address address = LocalOf(probe);
  close(probe);
  const int fd = Tcp();
  Step("reuse", SetOption(fd, SOL_SOCKET, SO_REUSEADDR, 1));
  Step("bind", Bind(fd, address));
  Step("connect", Connect(fd, HostAt("echo")));
  Fact("kept", "%s", PortOf(LocalOf(fd)) == PortOf(address) ? "yes" : "no");
  Talk("talk", fd);
}

PARITY_CASE(connect, bind_same_port_twice, kPlain) {
  const int first = Tcp();
  Step("bind", Bind(first, V4("0.0.0.0", 0)));
  const Address address = LocalOf(first);
  Step("connect", Connect(first, PeerAt("echo")));
  const int second = Tcp();
  Step("bind_again", Bind(second, address));
  Step("connect", Connect(second, PeerAt("echo")));
  Talk("talk", second);
  Step("bind_connected", Bind(first, V4("0.0.0.0", 0)));
}

PARITY_CASE(connect, bind_after_refused, kPlain) {
  const int fd = Tcp();
  Step("refused", Connect(fd, PeerAt("closed")));
  Step("bind", Bind(fd, V4("0.0.0.0", 0)));
  Step("connect", Connect(fd, PeerAt("echo")));
  Step("bind", Bind(fd, V4("0.0.0.0", 0)));
  Talk("talk", fd);
}

PARITY_CASE(connect, source_loopback_to_far, kOrdinary) {
  const int fd = Tcp();
  Step("bind", Bind(fd, V4("127.0.0.1", 0)));
  Step("connect", Connect(fd, PeerAt("echo")));
}

PARITY_CASE(connect, source_address_of_nobody, kPlain) {
  const int fd = Tcp();
  Step("bind", Bind(fd, V4("198.51.100.77", 0)));
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("talk", fd);
}

PARITY_CASE(connect, bind_address_no_port, kPlain) {
  const int fd = Tcp();
  Step("set", SetOption(fd, IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, 1));
  Step("bind", Bind(fd, V4("0.0.0.0", 0)));
  Step("connect", Connect(fd, PeerAt("echo")));
  Step("get", Option(fd, IPPROTO_IP, 24));
  Where(fd);
  Talk("talk", fd);
}

PARITY_CASE(connect, fastopen_send, kOrdinary) {
  const int fd = Tcp();
  const Address address = PeerAt("echo");
  Step("sendto", sendto(fd, "abc", 3, 0x20000000 /* MSG_FASTOPEN */, address.get(), address.length));
  char back[4] = {};
  Step("read", ReadFully(fd, back, 3));
  Fact("bytes", "%s", back);
  Where(fd);
  Step("connect", Connect(fd, address));
}

PARITY_CASE(connect, fastopen_send_refused, kOrdinary) {
  const int fd = Tcp();
  const Address address = PeerAt("closed");
  Step("sendto", sendto(fd, "abc", 3, 0x20000000 | MSG_NOSIGNAL, address.get(), address.length));
  Fact("so_error", "%s", ErrnoName(TakeError(fd)));
}

PARITY_CASE(connect, fastopen_connect_option, kOrdinary) {
  const int fd = Tcp();
  Step("set", SetOption(fd, IPPROTO_TCP, 30 /* TCP_FASTOPEN_CONNECT */, 1));
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("talk", fd);
  Where(fd);
}

PARITY_CASE(connect, sendto_with_address_unconnected, kPlain) {
  const int fd = Tcp();
  const Address address = PeerAt("echo");
  Step("sendto", sendto(fd, "abc", 3, MSG_NOSIGNAL, address.get(), address.length));
  Step("connect", Connect(fd, address));
  Step("sendto", sendto(fd, "abc", 3, MSG_NOSIGNAL, address.get(), address.length));
  char back[4] = {};
  Step("read", ReadFully(fd, back, 3));
}

PARITY_CASE(connect, shutdown_before, kPlain) {
  const int fd = Tcp();
  Step("shutdown", shutdown(fd, SHUT_RDWR));
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("talk", fd);
}

PARITY_CASE(connect, send_before, kPlain) {
  const int fd = Tcp();
  Step("send", send(fd, "x", 1, MSG_NOSIGNAL));
  char byte = 0;
  Step("recv", recv(fd, &byte, 1, 0));
  Step("listen_after", Connect(fd, PeerAt("echo")));
  Step("listen", listen(fd, 1));
  Talk("talk", fd);
}

PARITY_CASE(connect, a_listening_socket, kPlain) {
  const int fd = Listener(V4("0.0.0.0", 0));
  Step("connect", Connect(fd, PeerAt("echo")));
  Fact("state", "%s", StateOf(fd));
}

PARITY_CASE(connect, an_accepted_socket, kPlain) {
  const int listener = Listener(V4("127.0.0.1", 0));
  const int client = Tcp();
  Step("connect", Connect(client, LocalOf(listener)));
  const int served = accept(listener, nullptr, nullptr);
  Made("accept", served);
  Step("connect_served", Connect(served, PeerAt("echo")));
  Step("disconnect", Connect(served, Unspecified()));
  Step("connect", Connect(served, PeerAt("echo")));
  Talk("talk", served);
}

PARITY_CASE(connect, protocol_named, kPlain) {
  const int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
  Step("connect", Connect(fd, PeerAt("echo")));
  Step("protocol", Option(fd, SOL_SOCKET, SO_PROTOCOL));
  Step("type", Option(fd, SOL_SOCKET, SO_TYPE));
  Step("domain", Option(fd, SOL_SOCKET, SO_DOMAIN));
  Talk("talk", fd);
}

PARITY_CASE(connect, mptcp_or_none, kOrdinary) {
  const int fd = socket(AF_INET, SOCK_STREAM, 262 /* IPPROTO_MPTCP */);
  Made("socket", fd);
  if (fd < 0) return;
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("talk", fd);
}

PARITY_CASE(connect, caller_memory_is_not_written, kPlain) {
  const int fd = Tcp();
  const Address address = PeerAt("echo");
  Address copy = address;
  memset(reinterpret_cast<char*>(&copy.storage) + copy.length, 0x5a, sizeof copy.storage - copy.length);
  const Address before = copy;
  Step("connect", Connect(fd, copy));
  Fact("memory", "%s", memcmp(&before.storage, &copy.storage, sizeof copy.storage) == 0 ? "kept" : "written");
}

PARITY_CASE(connect, zero_padding_is_ignored, kPlain) {
  const int fd = Tcp();
  Address address = PeerAt("echo");
  memset(reinterpret_cast<sockaddr_in*>(&address.storage)->sin_zero, 0x7f, 8);
  Step("connect", Connect(fd, address));
  Where(fd);
}

PARITY_CASE(connect, getpeername_short_buffer, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("echo")));
  unsigned char buffer[32];
  memset(buffer, 0xee, sizeof buffer);
  socklen_t length = 4;
  Step("getpeername", getpeername(fd, reinterpret_cast<sockaddr*>(buffer), &length));
  Fact("length", "%u", length);
  Fact("beyond", "%s", buffer[4] == 0xee && buffer[31] == 0xee ? "kept" : "written");
  length = 0;
  Step("getsockname", getsockname(fd, reinterpret_cast<sockaddr*>(buffer), &length));
  Fact("length", "%u", length);
  length = static_cast<socklen_t>(-1);
  Step("negative", getsockname(fd, reinterpret_cast<sockaddr*>(buffer), &length));
}

PARITY_CASE(connect, fd_number_is_kept, kPlain) {
  const int fd = Tcp();
  const int next = Tcp();
  Step("connect", Connect(fd, PeerAt("echo")));
  const int third = Tcp();
  Fact("order", "%d %d", next - fd, third - fd);
  close(fd);
  Fact("lowest", "%d", Tcp() - fd);
}

PARITY_CASE(connect, at_the_fd_limit, kPlain) {
  const int fd = Tcp();
  const int probe = dup(fd);
  close(probe);
  // No number is free any more: whatever a connect needs, it cannot be one of ours.
  rlimit limit = {static_cast<rlim_t>(probe), static_cast<rlim_t>(probe)};
  Step("limit", setrlimit(RLIMIT_NOFILE, &limit));
  Step("full", dup(0));
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("talk", fd);
}

PARITY_CASE(connect, server_closes_at_once, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("close")));
  WaitFor(fd, POLLIN);
  char byte = 0;
  Step("recv", recv(fd, &byte, 1, 0));
  Fact("state", "%s", StateOf(fd));
}

PARITY_CASE(connect, server_resets, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("reset")));
  Step("send", send(fd, "x", 1, MSG_NOSIGNAL));
  Fact("events", "%#x", WaitFor(fd, POLLIN) & (POLLIN | POLLERR | POLLHUP));
  char byte = 0;
  Step("recv", recv(fd, &byte, 1, 0));
  Step("recv", recv(fd, &byte, 1, 0));
  Step("connect", Connect(fd, PeerAt("echo")));
  Talk("talk", fd);
}

PARITY_CASE(connect, server_speaks_first, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("banner")));
  char text[8] = {};
  Step("read", ReadFully(fd, text, 7));
  Fact("text", "%.5s", text);
}

PARITY_CASE(connect, server_answers_late, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("late")));
  const int64_t start = NowMs();
  char byte = 0;
  Step("recv", recv(fd, &byte, 1, 0));
  Waited("waited", start, 200);
}

}  // namespace parity
