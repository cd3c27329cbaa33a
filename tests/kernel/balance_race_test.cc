// SPDX-License-Identifier: Apache-2.0
// Races to the backends of a service on the real kernel: which socket the program has in the end, and that
// nothing is left of the others. Stage as in balance_test.cc.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "core/clock.h"
#include "net/balancer/affinity_memory.h"
#include "tests/kernel/service_stage.h"
#include "tests/support/guest_container.h"
#include "tests/support/shared.h"

namespace shunt {
namespace {

constexpr int64_t kRaceSecond = 1'000'000'000;

// Listens with a queue that is full, until it is told to answer: then the next SYN gets through.
class Sleepy {
 public:
  explicit Sleepy(const char* ip = kHostIp) : backend_(ip, SOCK_STREAM, 0) {
    const int family = backend_.address().family();
    for (int i = 0; i < 4; ++i) {
      fillers_.emplace_back(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      connect(fillers_.back().get(), backend_.address().data(), backend_.address().size());
    }
  }
  const net::SockAddr& address() const { return backend_.address(); }
  void Answer() {
    fillers_.clear();
    listen(backend_.fd(), 64);
    backend_.Arrived();
  }

 private:
  Backend backend_;
  std::vector<Fd> fillers_;
};

// An attempt takes long enough for a race to be seen by the time.
net::ServiceSpec RacedService(std::vector<net::SockAddr> backends) {
  net::ServiceSpec service = ServiceOf(std::move(backends));
  service.connect = {
      .attempts = 4, .attempt_timeout = std::chrono::seconds(20), .race_after = milliseconds(100)};
  return service;
}

ino_t RacedInode(int fd) {
  struct stat status {};
  fstat(fd, &status);
  return status.st_ino;
}

// Host byte order; 0: it has none.
uint16_t PeerPort(int fd) {
  sockaddr_in6 peer{};
  socklen_t size = sizeof(peer);
  return getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) == 0 ? ntohs(peer.sin6_port) : 0;
}

int OptionOf(int fd, int level, int option) {
  int value = -1;
  socklen_t size = sizeof(value);
  getsockopt(fd, level, option, &value, &size);
  return value;
}

TEST(BalanceRace, ABackendThatIsSilentIsOvertaken) {
  const Sleepy silent, silent_too;
  const Backend backend;
  GuestContainer container(
      {.services = {RacedService({silent.address(), silent_too.address(), backend.address()})}});
  EXPECT_EQ(container.Run([&] {
    const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
    const int on = 1;
    setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    fcntl(fd.get(), F_SETFD, FD_CLOEXEC);
    const int64_t begun = MonotonicNow();
    if (const int error = Connect(fd.get()); error != 0) return error;
    const int64_t took = MonotonicNow() - begun;
    if (took < kRaceSecond / 5 || took > 10 * kRaceSecond) return 200;
    if (PeerPort(fd.get()) != backend.address().port()) return 201;
    if ((fcntl(fd.get(), F_GETFL) & O_NONBLOCK) != 0) return 202;
    if (OptionOf(fd.get(), IPPROTO_TCP, TCP_NODELAY) != 1) return 203;
    if (OptionOf(fd.get(), SOL_SOCKET, SO_KEEPALIVE) != 1) return 204;
    return (fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0 ? 0 : 205;
  }),
            0)
      << container.error();
  EXPECT_EQ(backend.Arrived().size(), 1u);
  const net::ServiceReport& report = container.services().at(0);
  EXPECT_EQ(report.backends.at(2).connected, 1u);
  EXPECT_EQ(report.backends.at(0).failed, 0u);
  for (const net::BackendReport& one : report.backends) EXPECT_EQ(one.in_flight, 0u);
}

TEST(BalanceRace, TheFirstMayWinAsWell) {
  Sleepy first;
  const Sleepy second;
  GuestContainer* self = nullptr;
  bool answers = false;
  GuestContainer container({.meanwhile =
                                [&](pid_t) {
                                  // The second one has joined.
                                  if (answers || self->Counted(Counter::failed_over) == 0) return;
                                  answers = true;
                                  first.Answer();
                                },
                            .services = {RacedService({first.address(), second.address()})}});
  self = &container;
  EXPECT_EQ(container.Run([&] {
    const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
    if (const int error = Connect(fd.get()); error != 0) return error;
    return PeerPort(fd.get()) == first.address().port() ? 0 : 200;
  }),
            0)
      << container.error();
  EXPECT_EQ(container.services().at(0).backends.at(0).connected, 1u);
}

TEST(BalanceRace, WhoHasWonIsRemembered) {
  Sleepy first;
  const Sleepy second;
  net::ServiceSpec service = RacedService({first.address(), second.address()});
  service.affinity = net::AffinityKey::kContainer;
  service.affinity_timeout = std::chrono::hours(3);
  const auto memory = net::AffinityMemory::Create();
  ASSERT_TRUE(memory.ok()) << memory.status();
  AcceleratorOptions accelerator;
  accelerator.affinities = memory->get();
  GuestContainer* self = nullptr;
  bool answers = false;
  GuestContainer container({.meanwhile =
                                [&](pid_t) {
                                  // The second one has joined.
                                  if (answers || self->Counted(Counter::failed_over) == 0) return;
                                  answers = true;
                                  first.Answer();
                                },
                            .accelerator = accelerator,
                            .services = {service}});
  self = &container;
  EXPECT_EQ(container.Run([&] {
    for (int i = 0; i < 2; ++i) {
      const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
      if (const int error = Connect(fd.get()); error != 0) return error;
      if (PeerPort(fd.get()) != first.address().port()) return 200 + i;
    }
    return 0;
  }),
            0)
      << container.error();
  EXPECT_EQ(container.services().at(0).backends.at(0).picks, 2u);
  EXPECT_EQ(container.services().at(0).backends.at(1).picks, 1u);
}

TEST(BalanceRace, OnlyWhoHasAPlaceJoins) {
  Sleepy silent;
  const Backend backend, full;
  const Fd others(socket(AF_INET, SOCK_STREAM, 0));
  ASSERT_EQ(connect(others.get(), full.address().data(), full.address().size()), 0);
  net::ServiceSpec service = RacedService({silent.address(), full.address(), backend.address()});
  service.policy = net::PickPolicy::kFirst;
  // The connections that fill its queue count as well.
  service.limits.max_connections = 5;
  std::vector<Fd> more;
  for (int i = 0; i < 4; ++i) {
    more.emplace_back(socket(AF_INET, SOCK_STREAM, 0));
    ASSERT_EQ(connect(more.back().get(), full.address().data(), full.address().size()), 0);
  }
  GuestContainer container({.services = {service}});
  EXPECT_EQ(container.Run([&] {
    for (int i = 0; i < 4; ++i) {
      const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
      if (const int error = Connect(fd.get()); error != 0) return error;
      if (PeerPort(fd.get()) != backend.address().port()) return 200 + i;
    }
    return 0;
  }),
            0)
      << container.error();
  EXPECT_EQ(full.Arrived().size(), 5u);  // none of the service's
  const net::ServiceReport& report = container.services().at(0);
  EXPECT_EQ(report.backends.at(2).connected, 4u);
  EXPECT_EQ(report.refused, 0u);
}

TEST(BalanceRace, WhoFailsIsFollowedAtOnce) {
  const Sleepy silent;
  const Closed closed, closed_too;
  const Backend backend;
  GuestContainer container({.services = {RacedService({silent.address(), closed.address(),
                                                       closed_too.address(), backend.address()})}});
  EXPECT_EQ(container.Run([&] { return ConnectOnce(); }), 0) << container.error();
  EXPECT_EQ(backend.Arrived().size(), 1u);
  EXPECT_EQ(container.services().at(0).backends.at(1).failed, 1u);
}

TEST(BalanceRace, IfAllFailTheLastErrorIsTheAnswerAndTheSocketCanBeUsedAgain) {
  const Sleepy silent;
  const Closed closed;
  const Backend direct;
  net::ServiceSpec service = RacedService({silent.address(), closed.address()});
  service.connect.attempts = 3;
  service.connect.attempt_timeout = milliseconds(400);
  // The silent one is given up in time because a third might be tried.
  service.backends.push_back({.address = Address("203.0.113.1:1")});
  GuestContainer container({.services = {service}});
  EXPECT_EQ(container.Run([&] {
    const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
    const timeval timeout{.tv_sec = 2, .tv_usec = 0};
    setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    const int error = Connect(fd.get());
    return error == EINPROGRESS ? 0 : error;  // the first goes on, as the last ones do
  }),
            0)
      << container.error();
  EXPECT_EQ(container.services().at(0).backends.at(1).failed, 1u);
  EXPECT_EQ(container.services().at(0).backends.at(2).failed, 1u);
}

TEST(BalanceRace, AnEpollThatWatchesTheSocketWatchesTheWinner) {
  const Sleepy silent;
  const Backend backend;
  GuestContainer container({.services = {RacedService({silent.address(), backend.address()})}});
  EXPECT_EQ(container.Run([&] {
    const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
    const Fd epoll(epoll_create1(0));
    epoll_event event{.events = EPOLLOUT, .data = {.u64 = 0x123456789}};
    if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) return 200;
    if (const int error = Connect(fd.get()); error != 0) return error;
    epoll_event seen{};
    if (epoll_wait(epoll.get(), &seen, 1, 5000) != 1 || seen.data.u64 != 0x123456789) return 201;
    if ((seen.events & (EPOLLERR | EPOLLHUP)) != 0) return 202;
    event.events = EPOLLIN;
    if (epoll_ctl(epoll.get(), EPOLL_CTL_MOD, fd.get(), &event) != 0) return 203;
    return PeerPort(fd.get()) == backend.address().port() ? 0 : 204;
  }),
            0)
      << container.error();
}

TEST(BalanceRace, ASocketThatSomebodyElseHoldsMeanwhileStaysAndGoesToTheWinnersBackend) {
  const Sleepy silent;
  const Backend backend;
  Shared<std::atomic<bool>> waits;
  GuestContainer* self = nullptr;
  GuestContainer container({.meanwhile =
                                [&](pid_t) {
                                  if (self->Counted(Counter::waits_begun) > 0) *waits = true;
                                },
                            .services = {RacedService({silent.address(), backend.address()})}});
  self = &container;
  EXPECT_EQ(container.Run([&] {
    const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
    Fd copy;
    std::thread other([&] {
      while (!*waits) usleep(200);
      copy = Fd(dup(fd.get()));
    });
    const int error = Connect(fd.get());
    other.join();
    if (error != 0) return error;
    if (RacedInode(copy.get()) != RacedInode(fd.get())) return 200;
    return PeerPort(copy.get()) == backend.address().port() ? 0 : 201;
  }),
            0)
      << container.error();
  EXPECT_EQ(container.Counted(Counter::kept_shared), 1u);
}

TEST(BalanceRace, TheProgramsTimeoutIsForTheWholeRace) {
  const Sleepy one, two, three;
  GuestContainer container({.services = {RacedService({one.address(), two.address(), three.address()})}});
  EXPECT_EQ(container.Run([&] {
    const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
    const timeval timeout{.tv_sec = 0, .tv_usec = 500'000};
    setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    const int64_t begun = MonotonicNow();
    const int error = Connect(fd.get());
    return error == EINPROGRESS && MonotonicNow() - begun < 10 * kRaceSecond ? 0 : 200;
  }),
            0)
      << container.error();
  EXPECT_EQ(container.Counted(Counter::failed_over), 2u);
}

TEST(BalanceRace, ASignalInterruptsARaceAsItDoesAnAttempt) {
  const Sleepy one, two;
  for (const bool wait_killable : {false, true}) {
    GuestContainer container(
        {.wait_killable = wait_killable, .services = {RacedService({one.address(), two.address()})}});
    EXPECT_EQ(container.Run([&] {
      struct sigaction action {};
      action.sa_handler = [](int) {};
      sigaction(SIGALRM, &action, nullptr);
      const itimerval soon{.it_interval = {}, .it_value = {.tv_sec = 0, .tv_usec = 300'000}};
      setitimer(ITIMER_REAL, &soon, nullptr);
      const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
      if (const int error = Connect(fd.get()); error != EINTR) return error == 0 ? 200 : error;
      // It is still connecting, as natively.
      return OptionOf(fd.get(), SOL_SOCKET, SO_ERROR) == 0 && PeerPort(fd.get()) == 0 ? 0 : 201;
    }),
              0)
        << container.error() << " killable " << wait_killable;
  }
}

TEST(BalanceRace, AnEngineThatDiesInARaceFailsNoConnect) {
  const Sleepy silent;
  const Backend backend;
  GuestContainer* self = nullptr;
  bool killed = false;
  net::ServiceSpec service = RacedService({silent.address(), backend.address()});
  service.connect.attempt_timeout = milliseconds(500);  // the next engine fails over
  GuestContainer container({.engine_dies =
                                [&] {
                                  if (killed || self->Counted(Counter::waits_begun) == 0) return false;
                                  return killed = true;
                                },
                            .services = {service}});
  self = &container;
  EXPECT_EQ(container.Run([&] {
    const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
    if (const int error = Connect(fd.get()); error != 0) return error;
    return PeerPort(fd.get()) == backend.address().port() ? 0 : 200;
  }),
            0)
      << container.error();
  EXPECT_TRUE(killed);
}

TEST(BalanceRace, WhoHasBoundAPortDoesNotRaceButFailsOver) {
  const Sleepy silent;
  const Backend backend;
  net::ServiceSpec service = RacedService({silent.address(), backend.address()});
  service.connect.attempt_timeout = milliseconds(700);
  GuestContainer container({.services = {service}});
  EXPECT_EQ(container.Run([&] {
    const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
    const net::SockAddr source = Address("0.0.0.0:20468");
    if (bind(fd.get(), source.data(), source.size()) != 0) return 200;
    const int64_t begun = MonotonicNow();
    if (const int error = Connect(fd.get()); error != 0) return error;
    return MonotonicNow() - begun >= 7 * kRaceSecond / 10 ? 0 : 201;
  }),
            0)
      << container.error();
  EXPECT_EQ(backend.Arrived(), std::vector<uint16_t>{20468});
}

TEST(BalanceRace, ANonblockingConnectDoesNotRace) {
  const Sleepy silent;
  const Backend backend;
  GuestContainer container({.services = {RacedService({silent.address(), backend.address()})}});
  EXPECT_EQ(container.Run([&] {
    const Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    if (Connect(fd.get()) != EINPROGRESS) return 200;
    pollfd ready{.fd = fd.get(), .events = POLLOUT};
    return poll(&ready, 1, 400) == 0 ? 0 : 201;
  }),
            0)
      << container.error();
  EXPECT_EQ(backend.Arrived().size(), 0u);
}

TEST(BalanceRace, AnIPv6SocketTriesTheOtherFamilyNext) {
  const Sleepy silent("fd00:113::1");
  const Sleepy silent_too("fd00:113::1");
  const Backend v4;
  for (const bool only_v6 : {false, true}) {
    net::ServiceSpec service = RacedService({silent.address(), silent_too.address(), v4.address()});
    service.connect.attempts = 2;
    service.addresses = {{.network = *net::ParseSubnet("fd00:96::10"), .first_port = 80, .last_port = 80}};
    GuestContainer container({.services = {service}});
    EXPECT_EQ(container.Run([&] {
      const Fd fd(socket(AF_INET6, SOCK_STREAM, 0));
      const int only = only_v6 ? 1 : 0;
      setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only));
      const timeval timeout{.tv_sec = 1, .tv_usec = 0};
      setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
      const int error = Connect(fd.get(), "[fd00:96::10]:80");
      if (error != 0) return error;
      return PeerPort(fd.get()) == v4.address().port() ? 0 : 200;
    }),
              only_v6 ? EINPROGRESS : 0)
        << container.error();
  }
}

// What the engine, which is in this process, would leave: epolls, and sockets that are connecting.
struct Leavings {
  size_t epolls = 0, connecting = 0;
  friend bool operator==(const Leavings&, const Leavings&) = default;
};
Leavings CountLeavings() {
  Leavings leavings;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    leavings.epolls += std::filesystem::read_symlink(entry, gone) == "anon_inode:[eventpoll]";
  }
  std::ifstream table("/proc/thread-self/net/tcp");
  for (std::string line; std::getline(table, line);)
    leavings.connecting += line.find(" 02 ") != std::string::npos;
  return leavings;
}

TEST(BalanceRace, NothingIsLeftOfThoseThatLoseAndASocketMayRaceAgain) {
  const Sleepy silent, silent_too;
  const Closed closed;
  const Backend backend;
  Shared<std::atomic<int>> step;  // odd: a race is over, and nothing under way
  const Leavings before = CountLeavings();
  std::vector<Leavings> after;
  GuestContainer container(
      {.meanwhile =
           [&](pid_t) {
             backend.Arrived();
             if (*step % 2 == 0) return;
             after.push_back(CountLeavings());
             ++*step;
           },
       .services = {RacedService({silent.address(), silent_too.address(), backend.address()})}});
  EXPECT_EQ(container.Run([&] {
    for (int i = 0; i < 3; ++i) {
      const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
      // It is a twin already, and has failed once.
      if (Connect(fd.get(), closed.address().ToString()) != ECONNREFUSED) return 200;
      if (const int error = Connect(fd.get()); error != 0) return error;
      if (PeerPort(fd.get()) != backend.address().port()) return 201;
      ++*step;
      while (*step % 2 != 0) usleep(200);
    }
    return 0;
  }),
            0)
      << container.error();
  ASSERT_EQ(after.size(), 3u);
  EXPECT_GT(before.connecting, 0u) << "what keeps queues full";
  for (const Leavings& left : after) {
    EXPECT_EQ(left.connecting, before.connecting);
    EXPECT_EQ(left.epolls, after[0].epolls);
  }
}

}  // namespace
}  // namespace shunt
