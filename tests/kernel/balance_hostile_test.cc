// SPDX-License-Identifier: Apache-2.0
// Programs that work against the engine while it connects them to a service: it waits for nobody, and no
// connect goes to the service's own address.

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <functional>
#include <iterator>
#include <thread>

#include "core/clock.h"
#include "core/limits.h"
#include "tests/kernel/service_stage.h"
#include "tests/support/guest_container.h"
#include "tests/support/shared.h"

namespace shunt {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

// What one program does to its own socket while the engine connects it: `attack` runs in a process of its
// own, which may wait for ever, again and again, while somebody else in the same container connects to
// `calm`. True if that one waits for seconds.
bool KeepsOthersWaiting(const std::string& calm, const std::function<void()>& attack) {
  int64_t longest = 0;
  for (int i = 0; i < 60; ++i) {
    const pid_t attacker = fork();
    if (attacker == 0) {
      attack();
      _exit(0);
    }
    for (const int64_t enough = MonotonicNow() + kSecond / 50; MonotonicNow() < enough;) {
      const int64_t begin = MonotonicNow();
      if (ConnectOnce(calm) != 0) return true;
      longest = std::max(longest, MonotonicNow() - begin);
    }
    kill(attacker, SIGKILL);
    waitpid(attacker, nullptr, 0);
  }
  return longest > 3 * kSecond;
}

// Connects, and lets another thread do something to the socket all the time: until the process ends, which is
// when the connect is over, because that thread uses what is here.
void ConnectAnd(const std::string& address, const std::function<void(int fd)>& meanwhile) {
  const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
  std::atomic<bool> begun = false;
  std::thread([&] {
    for (begun = true; true;) meanwhile(fd.get());
  }).detach();
  while (!begun) sched_yield();
  Connect(fd.get(), address);
  _exit(0);
}

void ClearNonblock(int fd) {
  fcntl(fd, F_SETFL, 0);
}

void DisconnectALittleLater(int fd) {
  const timespec pause{.tv_sec = 0, .tv_nsec = 1'000'000};
  nanosleep(&pause, nullptr);
  const sockaddr nowhere{.sa_family = AF_UNSPEC};
  connect(fd, &nowhere, sizeof(nowhere));
}

// In each of the networks that a service may be in.
void ExpectNobodyWaitsBeside(void (*meanwhile)(int fd)) {
  const Full silent, silent_too;
  const Backend calm;
  for (const net::ServiceNetwork network : {net::ServiceNetwork::kHost, net::ServiceNetwork::kContainer}) {
    net::ServiceSpec service = ServiceOf({silent.address(), silent_too.address()});
    service.network = network;
    GuestContainer container({.meanwhile = [&](pid_t) { calm.Arrived(); }, .services = {service}});
    EXPECT_EQ(container.Run([&] {
      return KeepsOthersWaiting(calm.address().ToString(), [&] { ConnectAnd(kServiceAddress, meanwhile); });
    }),
              0)
        << container.error();
  }
}

TEST(BalanceHostile, NobodyWaitsForAProgramThatClearsNonblock) {
  ExpectNobodyWaitsBeside(ClearNonblock);
}

TEST(BalanceHostile, NobodyWaitsForAProgramThatDisconnectsDuringAnAttempt) {
  ExpectNobodyWaitsBeside(DisconnectALittleLater);
}

TEST(BalanceHostile, NobodyWaitsForAProgramThatClearsNonblockOfAPlainConnect) {
  const Full silent;
  const Backend calm;
  GuestContainer container({.meanwhile = [&](pid_t) { calm.Arrived(); }});
  EXPECT_EQ(container.Run([&] {
    return KeepsOthersWaiting(calm.address().ToString(),
                              [&] { ConnectAnd(silent.address().ToString(), ClearNonblock); });
  }),
            0)
      << container.error();
}

// The sockets of the calling network that connect, or are connected, to the service's own address; -1: not
// known.
int SocketsToTheService() {
  std::ifstream table("/proc/thread-self/net/tcp");
  const std::string text((std::istreambuf_iterator<char>(table)), std::istreambuf_iterator<char>());
  if (text.find("local_address") == std::string::npos) return -1;
  int count = 0;
  for (size_t at = 0; (at = text.find(" 0A00600A:0050 ", at)) != std::string::npos; ++at) ++count;
  return count;
}

TEST(BalanceHostile, AConnectThatIsRestartedAgainAndAgainGoesToABackend) {
  const Closed closed;
  const Backend backend;
  int astray = 0;  // in the host's network
  GuestContainer container({.meanwhile =
                                [&](pid_t) {
                                  backend.Arrived();
                                  astray = std::max(astray, SocketsToTheService());
                                },
                            .services = {ServiceOf({closed.address(), backend.address()})}});
  Shared<std::atomic<int>> calls;
  EXPECT_EQ(container.Run([&] {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, nullptr);
    for (const int64_t end = MonotonicNow() + 2 * kSecond; MonotonicNow() < end; ++*calls) {
      const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
      const itimerval soon{.it_interval = {}, .it_value = {.tv_sec = 0, .tv_usec = 1 + *calls % 1500}};
      setitimer(ITIMER_REAL, &soon, nullptr);
      if (const int error = Connect(fd.get()); error != 0) return error;
    }
    return 0;
  }),
            0)
      << container.error();
  EXPECT_GT(*calls, 100);
  EXPECT_EQ(astray, 0);
}

// The service has an address of the container's own loopback, on which somebody listens who shall hear of
// nobody.
TEST(BalanceHostile, WhenTaskSlotsAreUsedUpNoConnectGoesToTheServicesOwnAddress) {
  static constexpr char kOwn[] = "127.0.0.99:8080";
  const Full silent, silent_too;
  net::ServiceSpec service = ServiceOf({silent.address(), silent_too.address()});
  service.addresses = {{.network = *net::ParseSubnet("127.0.0.99"), .first_port = 8080, .last_port = 8080}};
  GuestContainer container({.services = {service}});
  EXPECT_EQ(container.Run([] {
    const Fd own(socket(AF_INET, SOCK_STREAM, 0));
    const net::SockAddr address = Address(kOwn);
    if (bind(own.get(), address.data(), address.size()) != 0 || listen(own.get(), 1024) != 0) return 200;
    // Sockets that an epoll watches take a task to be moved.
    const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
    std::vector<std::thread> threads;
    for (size_t i = 0; i < 2 * limits::kTaskSlotsPerListener; ++i) {
      threads.emplace_back([&] {
        const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
        const timeval bound{.tv_sec = 1, .tv_usec = 0};
        setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof(bound));
        epoll_event event{.events = EPOLLHUP, .data = {}};
        epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd.get(), &event);
        Connect(fd.get(), kOwn);
      });
    }
    for (std::thread& thread : threads) thread.join();
    pollfd astray{.fd = own.get(), .events = POLLIN};
    int count = 0;
    for (; poll(&astray, 1, 0) == 1; ++count) close(accept(own.get(), nullptr, nullptr));
    return std::min(count, 100);
  }),
            0)
      << container.error();
}

}  // namespace
}  // namespace shunt
