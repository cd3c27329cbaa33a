// SPDX-License-Identifier: Apache-2.0
// What the containers of tools/soak do: one manner each, for ever or so many times.
//
//   soak_guest peer          accepts connections on the host, natively
//   soak_guest steady        a calm client: a connect every 10 ms, and each second a line with its latencies
//   soak_guest crowd N       N rounds of every kind of connect that succeeds, then ends
//   soak_guest killing       children that connect, and are killed in the middle
//   soak_guest hole          connects that nobody answers: with a timeout, cut short by a signal, given up by
//   a reset soak_guest publishing    a server on the published port, its client inside, both anew each time
//   soak_guest bad           what no program means: bad descriptors, lengths, pointers, families
//
// It paces itself, so that a soak measures change and not the machine's limits. Linked statically: it runs in
// any root filesystem. Exit status 1 and a line on standard error when a call did something else than without
// shunt.

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <thread>
#include <vector>

#include "tests/endure/guest_sockets.h"

namespace shunt {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint16_t kPublishedPort = 8080;
constexpr int kPatienceMs = 60'000;  // a soak loads its machine; only a call that hangs takes so long

[[noreturn]] void Wrong(const char* what, int error) {
  std::fprintf(stderr, "soak_guest: %s: %s\n", what, std::strerror(error));
  std::fflush(stderr);
  _exit(1);
}

void Pause(int milliseconds) {
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
}

[[noreturn]] void Peer() {
  const AcceptingPeer peer;
  if (!peer.ok()) Wrong("listen as the peer", errno);
  std::puts("ready");
  std::fflush(stdout);
  for (;;) pause();
}

[[noreturn]] void Steady() {
  std::vector<int64_t> nanoseconds;
  nanoseconds.reserve(200);
  for (;;) {
    nanoseconds.clear();
    const auto second = Clock::now();
    while (Clock::now() - second < std::chrono::seconds(1)) {
      Fd fd = Tcp();
      const auto begin = Clock::now();
      if (const int error = Connect(fd.get(), To(kHost, kPort)); error != 0)
        Wrong("the steady connect", error);
      nanoseconds.push_back(std::chrono::nanoseconds(Clock::now() - begin).count());
      Reset(std::move(fd));
      Pause(10);
    }
    std::sort(nanoseconds.begin(), nanoseconds.end());
    const size_t count = nanoseconds.size();
    std::printf("%zu %.1f %.1f\n", count, static_cast<double>(nanoseconds[count / 2]) / 1e3,
                static_cast<double>(nanoseconds[count * 99 / 100]) / 1e3);
    std::fflush(stdout);
  }
}

void ConnectWatched() {
  const Fd epoll(epoll_create1(0));
  Fd fd = Tcp(AF_INET, SOCK_NONBLOCK);
  epoll_event event{.events = EPOLLOUT};
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) Wrong("epoll_ctl", errno);
  if (const int error = Connect(fd.get(), To(kHost, kPort)); error != EINPROGRESS)
    Wrong("a watched connect", error);
  // EPOLLHUP of the unconnected socket may come first.
  const auto until = Clock::now() + std::chrono::milliseconds(kPatienceMs);
  do {
    if (Clock::now() > until || epoll_wait(epoll.get(), &event, 1, kPatienceMs) != 1)
      Wrong("a watched connect is never reported", ETIMEDOUT);
  } while ((event.events & EPOLLOUT) == 0 || (event.events & EPOLLHUP) != 0);
  Reset(std::move(fd));
}

void Crowd(int rounds) {
  for (int i = 0; i < rounds; ++i) {
    Fd fd = Tcp();
    if (const int error = Connect(fd.get(), To(kHost, kPort)); error != 0) Wrong("a connect", error);
    Reset(std::move(fd));
    fd = Tcp(AF_INET6);
    if (const int error = Connect(fd.get(), To(kHost6, kRefusedPort)); error != ECONNREFUSED)
      Wrong("a connect to a closed port", error);
    fd = Tcp();
    {
      const Fd copy(dup(fd.get()));  // stays on the ordinary path, which leads nowhere
      if (const int error = Connect(fd.get(), To(kHost, kPort)); error != ENETUNREACH)
        Wrong("a connect of a shared socket", error);
    }
    ConnectWatched();
    Pause(2);
  }
}

[[noreturn]] void Killing() {
  for (int i = 0;; ++i) {
    const pid_t child = fork();
    if (child < 0) Wrong("fork", errno);
    if (child == 0) {
      for (;;) {
        const Fd fd = Tcp();
        // The engine waits for its end even if the target is gone: short, so that the slots in use settle
        // soon.
        if (i % 2 == 1) SetSendTimeout(fd.get(), 1'000);
        Connect(fd.get(), To(i % 2 == 1 ? kNobody : kHost, kPort));
      }
    }
    std::this_thread::sleep_for(std::chrono::microseconds(i * 137 % 5000));
    kill(child, SIGKILL);
    if (waitpid(child, nullptr, 0) != child) Wrong("waitpid", errno);
    Pause(20);
  }
}

// Each thread in its own way; all of them at once hold some task slots, the signal's beats free them.
[[noreturn]] void Hole() {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  sigaction(SIGUSR1, &action, nullptr);
  std::vector<std::thread> threads;
  for (int timeout_ms : {50, 200, 700, 60'000, 0}) {
    threads.emplace_back([timeout_ms] {
      for (;;) {
        const Fd fd = Tcp();
        if (timeout_ms != 0) SetSendTimeout(fd.get(), timeout_ms);
        const int error = Connect(fd.get(), To(kNobody, kPort));
        // The neighbour is known to be missing after a while.
        if (error != EINPROGRESS && error != EINTR && error != EALREADY && error != EHOSTUNREACH &&
            error != EAGAIN)
          Wrong("a connect to nobody", error);
        Pause(5);
      }
    });
  }
  for (;;) {
    for (size_t i = 3; i < threads.size(); ++i) pthread_kill(threads[i].native_handle(), SIGUSR1);
    const Fd given_up = Tcp(AF_INET, SOCK_NONBLOCK);
    Connect(given_up.get(), To(kNobody, kPort));
    const Address nowhere{.storage = {.ss_family = AF_UNSPEC}, .size = sizeof(sockaddr)};
    Connect(given_up.get(), nowhere);
    Pause(100);
  }
}

[[noreturn]] void Publishing() {
  const Address any = To("0.0.0.0", kPublishedPort);
  for (;;) {
    const Fd listener = Tcp();
    const int on = 1;
    setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(listener.get(), any.get(), any.size) != 0 || listen(listener.get(), 8) != 0)
      Wrong("listen on the published port", errno);
    for (int i = 0; i < 20; ++i) {
      Fd client = Tcp();
      if (const int error = Connect(client.get(), To("127.0.0.1", kPublishedPort)); error != 0)
        Wrong("connect to the container's own published port", error);
      Fd served(accept(listener.get(), nullptr, nullptr));
      if (!served.valid()) Wrong("accept on the published port", errno);
      Reset(std::move(client));
      Reset(std::move(served));
      Pause(5);
    }
  }
}

void BadAddresses(const Address& to) {
  for (const int size : {-1, 0, 1, 2, 15, 17, 129, 1 << 30}) {
    connect(Tcp().get(), to.get(), static_cast<socklen_t>(size));
    bind(Tcp().get(), to.get(), static_cast<socklen_t>(size));
  }
  for (const int family : {AF_UNSPEC, AF_UNIX, AF_NETLINK, AF_PACKET, 255, 65535}) {
    Address other = to;
    other.storage.ss_family = static_cast<sa_family_t>(family);
    connect(Tcp().get(), other.get(), other.size);
    connect(Tcp(AF_INET6).get(), other.get(), other.size);
    bind(Tcp().get(), other.get(), other.size);
  }
}

[[noreturn]] void Bad() {
  const Address to = To(kHost, kRefusedPort);
  const Fd file(open("/proc/self/status", O_RDONLY)), datagram(socket(AF_INET, SOCK_DGRAM, 0));
  void* const forbidden = mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (;;) {
    BadAddresses(to);
    for (void* const pointer : {static_cast<void*>(nullptr), reinterpret_cast<void*>(8), forbidden}) {
      const auto* const address = static_cast<const sockaddr*>(pointer);
      if (connect(Tcp().get(), address, 16) == 0 || errno != EFAULT)
        Wrong("a connect to a bad pointer", errno);
    }
    for (const int number : {-1, 1 << 20, file.get(), datagram.get()}) {
      if (number != datagram.get() && Connect(number, to) == 0) Wrong("a connect of no socket", 0);
      listen(number, -1);
      for (const int level : {0, SOL_SOCKET, int{IPPROTO_TCP}})
        setsockopt(number, level, 19, forbidden, 1 << 20);
    }
    sendto(Tcp().get(), "x", 1, MSG_FASTOPEN | MSG_NOSIGNAL, to.get(), to.size);
    Pause(10);
  }
}

}  // namespace
}  // namespace shunt

int main(int argc, char** argv) {
  using std::string_view_literals::operator""sv;
  const std::string_view manner = argc > 1 ? argv[1] : "";
  signal(SIGPIPE, SIG_IGN);
  if (manner == "peer"sv) shunt::Peer();
  if (manner == "steady"sv) shunt::Steady();
  if (manner == "killing"sv) shunt::Killing();
  if (manner == "hole"sv) shunt::Hole();
  if (manner == "publishing"sv) shunt::Publishing();
  if (manner == "bad"sv) shunt::Bad();
  if (manner == "crowd"sv && argc == 3) {
    shunt::Crowd(std::atoi(argv[2]));
    return 0;
  }
  std::fprintf(stderr, "usage: soak_guest peer|steady|crowd N|killing|hole|publishing|bad\n");
  return 2;
}
