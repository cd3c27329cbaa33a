// SPDX-License-Identifier: Apache-2.0
// Races of a hostile container against the decision about its own connect, and the peers that tell whether
// one was won. A static program, so that it runs in any root filesystem; race_test.py starts it.
//
//   race_attacks peers IP...
//       on the host: one listener at each IP, all at one port. Prints the port; at the end of its input, how
//       many connections each took
//   race_attacks attack NAME TRIES PORT ALLOWED FORBIDDEN [BACKEND]
//       in a container: prints what became of the tries. BACKEND: where connects to ALLOWED lead, a service's
//       address
//   race_attacks bystander PORT ALLOWED
//       in another container: connects every millisecond until the end of its input
//
// In each attack one thread changes something without a pause while another connects:
//   address   the address in memory, between the allowed and the forbidden one
//   family    the family of the forbidden address, on a socket that was moved to the host already
//   length    the whole argument block of a 32-bit socketcall: descriptor, address and length lie in memory
//   exchange  what is open under the descriptor: dup2 of a moved socket over one that is left to the kernel
//   reopen    the same by close and open, and with sockets that are about to be moved
// The forbidden listener has the last word. The attacker looks as well, at whom its sockets are connected to.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "core/fd.h"
#include "tests/support/int80.h"

namespace shunt {
namespace {

// An attacker's call that is not back by then is told so by a signal (a SYN that it got out to a forbidden
// peer waits for minutes); a call that does not mind that, or a bystander's that takes as long, hangs.
constexpr int64_t kInterruptAfterNs = 5'000'000'000;
constexpr int64_t kHungAfterNs = 60'000'000'000;
constexpr int kHung = 3;
constexpr int kNotHere = 77;
constexpr uint16_t kRefusedPort = 9;

int64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

sockaddr_in At(const char* ip, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  if (inet_pton(AF_INET, ip, &address.sin_addr) != 1) {
    std::fprintf(stderr, "race_attacks: %s is no IPv4 address\n", ip);
    std::exit(2);
  }
  return address;
}

const sockaddr* Plain(const sockaddr_in& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

Fd Tcp(int type = 0) {
  Fd fd(socket(AF_INET, SOCK_STREAM | type, 0));
  if (!fd.valid()) {
    std::perror("race_attacks: socket");
    std::exit(1);
  }
  // Closed by a reset, so that no port stays in TIME_WAIT.
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  return fd;
}

int StateOf(int fd) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 ? info.tcpi_state : -1;
}

void Disconnect(int fd) {
  const sockaddr nowhere{.sa_family = AF_UNSPEC, .sa_data = {}};
  connect(fd, &nowhere, sizeof(nowhere));
}

uint64_t Netns(int fd) {
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  getsockopt(fd, SOL_SOCKET, 71 /* SO_NETNS_COOKIE */, &cookie, &size);
  return cookie;
}

// ---- the tries

struct Stage {
  sockaddr_in allowed{}, forbidden{};
  in_addr backend{};  // where connects to `allowed` lead, if it is a service
  long tries = 0;
};

struct Tally {
  long allowed = 0, forbidden = 0, elsewhere = 0, refused = 0, under_way = 0, moved = 0;
};

// Whom `fd` is connected to, or how far it has come.
void Count(const Stage& stage, int fd, Tally& tally) {
  sockaddr_in peer{};
  socklen_t size = sizeof(peer);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) == 0) {
    if (peer.sin_addr.s_addr == stage.forbidden.sin_addr.s_addr) {
      ++tally.forbidden;
    } else if (peer.sin_addr.s_addr == stage.backend.s_addr) {
      ++tally.allowed;
    } else {
      ++tally.elsewhere;
    }
  } else if (const int state = StateOf(fd); state == TCP_SYN_SENT) {
    ++tally.under_way;
  } else {
    ++tally.refused;
  }
}

// The connecting thread under watch: no call may last for ever.
class Watch {
 public:
  explicit Watch(bool interrupts) : caller_(pthread_self()), interrupts_(interrupts) {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    sigaction(SIGUSR1, &action, nullptr);
    thread_ = std::thread([this] { Look(); });
  }
  ~Watch() {
    over_ = true;
    thread_.join();
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  template <typename Call>
  int Timed(Call call) {
    const int64_t begin = Now();
    begun_ = begin;
    const int result = call();
    begun_ = 0;
    longest_ = std::max(longest_, Now() - begin);
    return result;
  }

  int64_t longest_ms() const { return longest_ / 1'000'000; }
  long interrupted() const { return interrupted_; }

 private:
  void Look() {
    const timespec pause{.tv_sec = 0, .tv_nsec = 20'000'000};
    int64_t told = 0;
    while (!over_) {
      nanosleep(&pause, nullptr);
      const int64_t begun = begun_;
      const int64_t since = begun == 0 ? 0 : Now() - begun;
      if (since > kHungAfterNs) {
        std::printf("hung\n");
        std::fflush(stdout);
        _exit(kHung);
      }
      if (interrupts_ && since > kInterruptAfterNs) {
        if (told != begun) ++interrupted_;
        told = begun;
        pthread_kill(caller_, SIGUSR1);
      }
    }
  }

  const pthread_t caller_;
  const bool interrupts_;
  std::atomic<int64_t> begun_{0};
  std::atomic<bool> over_{false};
  std::atomic<long> interrupted_{0};
  int64_t longest_ = 0;
  std::thread thread_;
};

// A thread that does the same thing over and over while this object lives.
class Meddler {
 public:
  template <typename Change>
  explicit Meddler(Change change)
      : thread_([this, change] {
          while (!over_.load(std::memory_order_relaxed)) change();
        }) {}
  ~Meddler() {
    over_ = true;
    thread_.join();
  }
  Meddler(const Meddler&) = delete;
  Meddler& operator=(const Meddler&) = delete;

 private:
  std::atomic<bool> over_{false};
  std::thread thread_;
};

// An unconnected, non-blocking socket that is in the host's network.
Fd MovedSocket(const Stage& stage) {
  Fd fd = Tcp(SOCK_NONBLOCK);
  const uint64_t before = Netns(fd.get());
  sockaddr_in refused = stage.allowed;
  refused.sin_port = htons(kRefusedPort);
  connect(fd.get(), Plain(refused), sizeof(refused));
  Disconnect(fd.get());
  if (Netns(fd.get()) == before) {
    std::printf("a connect to the allowed peer is not moved, so there is nothing to attack\n");
    std::exit(1);
  }
  return fd;
}

void FlipAddress(const Stage& stage, Watch& watch, Tally& tally) {
  sockaddr_in flipping = stage.allowed;
  volatile in_addr_t* const address = &flipping.sin_addr.s_addr;
  const Meddler meddler([&] {
    *address = stage.forbidden.sin_addr.s_addr;
    *address = stage.allowed.sin_addr.s_addr;
  });
  for (long i = 0; i < stage.tries; ++i) {
    const Fd fd = Tcp(i % 4 == 3 ? SOCK_NONBLOCK : 0);
    const uint64_t home = Netns(fd.get());
    watch.Timed([&] { return connect(fd.get(), Plain(flipping), sizeof(flipping)); });
    tally.moved += Netns(fd.get()) != home;
    Count(stage, fd.get(), tally);
  }
}

void FlipFamily(const Stage& stage, Watch& watch, Tally& tally) {
  sockaddr_in flipping = stage.forbidden;
  volatile sa_family_t* const family = &flipping.sin_family;
  const Meddler meddler([&] {
    for (const int other : {AF_UNIX, AF_INET, AF_UNSPEC, AF_INET, AF_INET6})
      *family = static_cast<sa_family_t>(other);
  });
  Fd fd = MovedSocket(stage);
  const uint64_t host = Netns(fd.get());
  for (long i = 0; i < stage.tries; ++i) {
    watch.Timed([&] { return connect(fd.get(), Plain(flipping), sizeof(flipping)); });
    Count(stage, fd.get(), tally);
    ++tally.moved;
    Disconnect(fd.get());
    // Where the forbidden address was seen, it was sent home.
    if (Netns(fd.get()) != host) fd = MovedSocket(stage);
  }
}

#ifdef __x86_64__
int SocketCall32(int which, const uint32_t* arguments) {
  if (!shunt::HasInt80()) return -ENOSYS;
  long result;
  asm volatile("int $0x80"
               : "=a"(result)
               : "a"(102L), "b"(long{which}), "c"(arguments)
               : "memory", "cc", "r8", "r9", "r10", "r11");
  return static_cast<int>(result);
}

void FlipLength(const Stage& stage, Watch& watch, Tally& tally) {
  constexpr int kConnect = 3;
  // Where 32 bits can name it.
  void* const low = mmap(nullptr, 4096, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT | MAP_POPULATE, -1, 0);
  auto* const addresses = static_cast<sockaddr_in*>(low);
  auto* const block = reinterpret_cast<volatile uint32_t*>(addresses + 8);
  addresses[0] = stage.allowed;
  addresses[1] = stage.forbidden;
  const auto where = [&](size_t index) {
    return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(&addresses[index]));
  };
  block[0] = static_cast<uint32_t>(-1);
  if (SocketCall32(kConnect, const_cast<uint32_t*>(block)) == -ENOSYS) {
    std::printf("no socketcall here: this kernel or this filter has none for 32-bit programs\n");
    std::exit(kNotHere);
  }
  Fd twin = MovedSocket(stage);
  const uint64_t host = Netns(twin.get());
  std::atomic<uint32_t> fresh{static_cast<uint32_t>(twin.get())}, moved{fresh.load()};
  const Meddler meddler([&] {
    for (const uint32_t length : {16U, 2U, 16U, 0U, 128U}) {
      block[0] = fresh.load(std::memory_order_relaxed);
      block[1] = where(0);
      block[2] = length;
      block[1] = where(1);
      block[0] = moved.load(std::memory_order_relaxed);
      block[2] = 16;
    }
  });
  for (long i = 0; i < stage.tries; ++i) {
    const Fd fd = Tcp(SOCK_NONBLOCK);
    fresh.store(static_cast<uint32_t>(fd.get()), std::memory_order_relaxed);
    watch.Timed([&] { return SocketCall32(kConnect, const_cast<uint32_t*>(block)); });
    Count(stage, fd.get(), tally);
    Count(stage, twin.get(), tally);
    ++tally.moved;
    Disconnect(twin.get());
    if (Netns(twin.get()) != host) {
      twin = MovedSocket(stage);
      moved.store(static_cast<uint32_t>(twin.get()), std::memory_order_relaxed);
    }
  }
}
#else
void FlipLength(const Stage&, Watch&, Tally&) {
  std::printf("socketcall of 32-bit programs is attacked on x86-64 only\n");
  std::exit(kNotHere);
}
#endif

void Exchange(const Stage& stage, Watch& watch, Tally& tally) {
  const Fd twin = MovedSocket(stage);
  const Fd local(socket(AF_UNIX, SOCK_STREAM, 0));
  const Fd inside = Tcp(SOCK_NONBLOCK);
  const Fd spot(dup(local.get()));
  const Meddler meddler([&] {
    dup2(twin.get(), spot.get());
    dup2(local.get(), spot.get());
    dup2(twin.get(), spot.get());
    dup2(inside.get(), spot.get());
  });
  for (long i = 0; i < stage.tries; ++i) {
    watch.Timed([&] { return connect(spot.get(), Plain(stage.forbidden), sizeof(stage.forbidden)); });
    // A SYN that got out comes back as nothing. Give it time now and then.
    if (StateOf(twin.get()) == TCP_SYN_SENT && i % 8 == 0) {
      pollfd writable{.fd = twin.get(), .events = POLLOUT, .revents = 0};
      poll(&writable, 1, 1);
    }
    ++tally.moved;
    Count(stage, twin.get(), tally);
    Disconnect(twin.get());
  }
}

void Reopen(const Stage& stage, Watch& watch, Tally& tally) {
  const Fd twin = MovedSocket(stage);
  // Its number is the lowest free one from now on, and only the meddler opens anything.
  const int spot = Tcp().release();
  const Meddler meddler([&] {
    close(spot);
    (void)!dup(twin.get());
    close(spot);
    (void)!socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    close(spot);
    (void)!socket(AF_UNIX, SOCK_STREAM, 0);
    close(spot);
    (void)!socket(AF_INET, SOCK_STREAM, 0);
  });
  for (long i = 0; i < stage.tries; ++i) {
    const sockaddr_in& to = i % 2 == 0 ? stage.forbidden : stage.allowed;
    watch.Timed([&] { return connect(spot, Plain(to), sizeof(to)); });
    ++tally.moved;
    Count(stage, spot, tally);
    Count(stage, twin.get(), tally);
    Disconnect(twin.get());
  }
}

int Attack(std::string_view name, const Stage& stage) {
  constexpr std::pair<std::string_view, void (*)(const Stage&, Watch&, Tally&)> kAttacks[] = {
      {"address", FlipAddress}, {"family", FlipFamily}, {"length", FlipLength},
      {"exchange", Exchange},   {"reopen", Reopen},
  };
  for (const auto& [known, run] : kAttacks) {
    if (name != known) continue;
    Tally tally;
    Watch watch(/*interrupts=*/true);
    const int64_t begin = Now();
    run(stage, watch, tally);
    std::printf(
        "{\"tries\": %ld, \"allowed\": %ld, \"forbidden\": %ld, \"elsewhere\": %ld, \"refused\": %ld, "
        "\"under_way\": %ld, \"moved\": %ld, \"interrupted\": %ld, \"longest_ms\": %lld, \"seconds\": "
        "%.1f}\n",
        stage.tries, tally.allowed, tally.forbidden, tally.elsewhere, tally.refused, tally.under_way,
        tally.moved, watch.interrupted(), static_cast<long long>(watch.longest_ms()),
        static_cast<double>(Now() - begin) / 1e9);
    return 0;
  }
  std::fprintf(stderr, "race_attacks: there is no attack %s\n", std::string(name).c_str());
  return 2;
}

// ---- who looks on

bool InputHasEnded(int timeout_ms) {
  pollfd input{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
  char byte;
  return poll(&input, 1, timeout_ms) == 1 && read(STDIN_FILENO, &byte, 1) <= 0;
}

int Bystander(const sockaddr_in& allowed) {
  long calls = 0, failures = 0;
  int first_error = 0;
  Watch watch(/*interrupts=*/false);
  std::printf("ready\n");
  std::fflush(stdout);
  do {
    const Fd fd = Tcp();
    const int result = watch.Timed([&] { return connect(fd.get(), Plain(allowed), sizeof(allowed)); });
    ++calls;
    if (result != 0) {
      if (failures++ == 0) first_error = errno;
    }
  } while (!InputHasEnded(/*timeout_ms=*/1));
  std::printf("{\"calls\": %ld, \"failures\": %ld, \"first_error\": %d, \"longest_ms\": %lld}\n", calls,
              failures, first_error, static_cast<long long>(watch.longest_ms()));
  return 0;
}

int Peers(const std::vector<const char*>& ips) {
  std::vector<Fd> listeners;
  std::vector<pollfd> polls{{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0}};
  int port = 0;
  for (const char* const ip : ips) {
    Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    sockaddr_in address = At(ip, port);
    const int on = 1;
    setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd.get(), Plain(address), sizeof(address)) != 0 || listen(fd.get(), 4096) != 0) {
      std::perror(ip);
      return 1;
    }
    socklen_t size = sizeof(address);
    getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port = ntohs(address.sin_port);
    polls.push_back({.fd = fd.get(), .events = POLLIN, .revents = 0});
    listeners.push_back(std::move(fd));
  }
  std::printf("%d\n", port);
  std::fflush(stdout);
  std::vector<long> taken(ips.size());
  std::array<Fd, 256> latest;  // stay open for a moment: a client may want to look
  size_t next = 0;
  while (polls[0].revents == 0) {
    poll(polls.data(), polls.size(), -1);
    for (size_t i = 0; i < ips.size(); ++i) {
      if (polls[i + 1].revents == 0) continue;
      Fd client(accept(polls[i + 1].fd, nullptr, nullptr));
      if (!client.valid()) continue;
      ++taken[i];
      latest[next++ % latest.size()] = std::move(client);
    }
  }
  for (size_t i = 0; i < ips.size(); ++i) std::printf("%s%ld", i == 0 ? "[" : ", ", taken[i]);
  std::printf("]\n");
  return 0;
}

}  // namespace
}  // namespace shunt

int main(int argc, char** argv) {
  using namespace shunt;
  const std::vector<const char*> arguments(argv, argv + argc);
  std::signal(SIGPIPE, SIG_IGN);
  const std::string_view command = argc > 1 ? arguments[1] : "";
  if (command == "peers" && argc > 2) return Peers({arguments.begin() + 2, arguments.end()});
  if (command == "bystander" && argc == 4) return Bystander(At(arguments[3], std::atoi(arguments[2])));
  if (command == "attack" && (argc == 7 || argc == 8)) {
    const int port = std::atoi(arguments[4]);
    return Attack(arguments[2], {.allowed = At(arguments[5], port),
                                 .forbidden = At(arguments[6], port),
                                 .backend = At(arguments[argc == 8 ? 7 : 5], port).sin_addr,
                                 .tries = std::atol(arguments[3])});
  }
  std::fprintf(stderr, "race_attacks: see its first lines for how it is called\n");
  return 2;
}
