// SPDX-License-Identifier: Apache-2.0
// A TCP echo server: the peer that the connection benchmarks talk to.
//
//   echo_server ADDRESS PORT [THREADS | quiet] [--stall-every N --stall-ms M]
//
// With --stall-every each thread does nothing at all for M milliseconds after every N connections that it has
// accepted: a stall of which everything is known, to try out what measures it.
//
// `quiet` accepts once in a millisecond, echoes nothing and is never woken by a connection: what a client
// measures then is its own connect() and not the wake-up of a server on another CPU. Each thread has its own
// listening socket (SO_REUSEPORT) and its own epoll, so threads share nothing. Prints "ready PORT" when all
// of them listen (PORT 0 takes a free one) and serves until it is killed. An error at the start is one line
// and exit status 1; a wrong use is exit status 2.

#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace {

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;

  in_port_t& port() {
    return storage.ss_family == AF_INET ? reinterpret_cast<sockaddr_in*>(&storage)->sin_port
                                        : reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port;
  }
};

// Connections that nobody has accepted yet; the kernel lets no socket have more than net.core.somaxconn. One
// more has to send its SYN again, after a second. The stages of `shunt bench` allow as many, and look whether
// it happened.
constexpr int kQueue = 65535;

[[noreturn]] void Die(const char* what) {
  std::fprintf(stderr, "echo_server: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

bool ParseAddress(const char* text, in_port_t port, Address& address) {
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
  if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
    address.storage.ss_family = AF_INET;
    address.length = sizeof(sockaddr_in);
  } else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
    address.storage.ss_family = AF_INET6;
    address.length = sizeof(sockaddr_in6);
  } else {
    return false;
  }
  address.port() = htons(port);
  return true;
}

// Listens on `address`; a port of 0 in it is replaced by the one that the kernel chose.
int Listen(Address& address) {
  const int listening = socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (listening < 0) Die("socket");
  const int on = 1;
  setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(listening, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  auto* generic = reinterpret_cast<sockaddr*>(&address.storage);
  if (bind(listening, generic, address.length) != 0) Die("bind");
  if (listen(listening, kQueue) != 0) Die("listen");
  socklen_t length = sizeof address.storage;
  if (getsockname(listening, generic, &length) != 0) Die("getsockname");
  return listening;
}

// What a thread does now and then instead of serving.
struct Stall {
  int every = 0;  // connections; 0: never
  int milliseconds = 0;

  void Accepted() {
    if (every == 0 || ++accepted_ % every != 0) return;
    const timespec pause{milliseconds / 1000, milliseconds % 1000 * 1'000'000L};
    nanosleep(&pause, nullptr);
  }

 private:
  int accepted_ = 0;
};

void AcceptAll(int epoll, int listening, Stall& stall) {
  for (;;) {
    const int client = accept4(listening, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client < 0) return;
    const int on = 1;
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = client;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, client, &event) != 0) close(client);
    stall.Accepted();
  }
}

// Echoes what is there. What does not fit into the socket's buffer ends the connection: the clients here send
// little and read before they send more.
void Echo(int client) {
  char bytes[65536];
  const ssize_t got = recv(client, bytes, sizeof bytes, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0 || send(client, bytes, static_cast<size_t>(got), MSG_NOSIGNAL) != got) close(client);
}

void Serve(int listening, Stall stall) {
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = listening;
  if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listening, &event) != 0) Die("epoll");
  for (;;) {
    epoll_event events[64];
    const int count = epoll_wait(epoll, events, 64, -1);
    for (int i = 0; i < count; ++i) {
      if (events[i].data.fd == listening) {
        AcceptAll(epoll, listening, stall);
      } else {
        Echo(events[i].data.fd);
      }
    }
  }
}

// Accepts and closes what has queued up, once in a millisecond.
void Sweep(int listening) {
  for (;;) {
    int client;
    while ((client = accept4(listening, nullptr, nullptr, SOCK_CLOEXEC)) >= 0) close(client);
    const timespec pause{0, 1'000'000};
    nanosleep(&pause, nullptr);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Stall stall;
  bool understood = true;
  const option kLong[] = {{"stall-every", required_argument, nullptr, 'e'},
                          {"stall-ms", required_argument, nullptr, 'm'},
                          {nullptr, 0, nullptr, 0}};
  for (int letter; (letter = getopt_long(argc, argv, "", kLong, nullptr)) != -1;) {
    if (letter == 'e') stall.every = std::atoi(optarg);
    if (letter == 'm') stall.milliseconds = std::atoi(optarg);
    if (letter == '?') understood = false;
  }
  understood = understood && (stall.every > 0) == (stall.milliseconds > 0) && stall.every >= 0;
  argc -= optind - 1;  // what is left are the plain arguments
  argv += optind - 1;
  const int port = argc > 2 ? std::atoi(argv[2]) : -1;
  const bool quiet = argc > 3 && std::strcmp(argv[3], "quiet") == 0;
  const int threads = argc > 3 && !quiet ? std::atoi(argv[3]) : 1;
  Address address;
  if (!understood || argc < 3 || argc > 4 || port < 0 || port > 65535 || threads < 1 || threads > 256 ||
      !ParseAddress(argv[1], static_cast<in_port_t>(port), address)) {
    std::fprintf(stderr,
                 "usage: echo_server ADDRESS PORT [THREADS | quiet] [--stall-every N --stall-ms M]   (a "
                 "numeric address, a port, at most 256 threads)\n");
    return 2;
  }
  std::vector<int> listening;
  for (int i = 0; i < threads; ++i) listening.push_back(Listen(address));
  std::printf("ready %d\n", ntohs(address.port()));
  std::fflush(stdout);
  if (quiet) Sweep(listening[0]);
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(Serve, listening[static_cast<size_t>(i)], stall);
  Serve(listening[0], stall);
}
