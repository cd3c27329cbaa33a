// SPDX-License-Identifier: Apache-2.0
// Connects to services on the real kernel: which backend they reach, and what happens when one does not
// answer. The arena's host network has the backends; the containers have no ordinary network at all, so who
// arrives has been moved, but where a test says that the backends are inside.

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <atomic>
#include <chrono>
#include <set>

#include "tests/kernel/service_stage.h"
#include "tests/support/guest_container.h"
#include "tests/support/shared.h"

namespace shunt {
namespace {

using std::chrono::milliseconds;

int ErrorOf(int fd) {
  int error = -1;
  socklen_t size = sizeof(error);
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

ino_t InodeOf(int fd) {
  struct stat status {};
  fstat(fd, &status);
  return status.st_ino;
}

TEST(Balance, AConnectToAServiceReachesItsBackend) {
  const Backend backend;
  GuestContainer container({.services = {ServiceOf({backend.address()})}});
  EXPECT_EQ(container.Run([&] {
    const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
    if (const int error = Connect(fd.get()); error != 0) return error;
    sockaddr_in peer{};
    socklen_t size = sizeof(peer);
    getpeername(fd.get(), reinterpret_cast<sockaddr*>(&peer), &size);
    return ntohs(peer.sin_port) == backend.address().port() ? 0 : 200;
  }),
            0)
      << container.error();
  EXPECT_EQ(backend.Arrived().size(), 1u);
  EXPECT_EQ(container.Counted(Counter::balanced), 1u);
  EXPECT_EQ(container.Counted(Counter::accelerated), 1u) << container.locks();
  ASSERT_EQ(container.services().size(), 1u);
  EXPECT_EQ(container.services()[0].backends.at(0).picks, 1u);
  EXPECT_EQ(container.services()[0].backends.at(0).connected, 1u);
}

TEST(Balance, ARefusedAttemptIsFollowedByAnotherBackendInTheSameCall) {
  const Closed closed, closed_too;
  const Backend backend;
  GuestContainer container(
      {.services = {ServiceOf({closed.address(), closed_too.address(), backend.address()})}});
  EXPECT_EQ(container.Run([&] { return ConnectOnce(); }), 0) << container.error();
  EXPECT_EQ(backend.Arrived().size(), 1u);
  EXPECT_EQ(container.Counted(Counter::failed_over), 2u);
  EXPECT_EQ(container.services().at(0).backends.at(0).failed, 1u);
}

TEST(Balance, NoMoreThanTheAttemptsThereMayBe) {
  const Closed one, two, three;
  const Backend backend;
  net::ServiceSpec service = ServiceOf({one.address(), two.address(), three.address(), backend.address()});
  service.connect.attempts = 3;
  GuestContainer container({.services = {service}});
  EXPECT_EQ(container.Run([&] { return ConnectOnce(); }), ECONNREFUSED) << container.error();
  EXPECT_EQ(backend.Arrived().size(), 0u);
  EXPECT_EQ(container.Counted(Counter::failed_over), 2u);
}

TEST(Balance, ANonblockingConnectFailsOverWhenTheAnswerIsThereAtOnce) {
  const Closed closed;
  const Backend backend;
  GuestContainer container({.services = {ServiceOf({closed.address(), backend.address()})}});
  EXPECT_EQ(container.Run([&] {
    const Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    if (const int error = Connect(fd.get()); error != EINPROGRESS) return error == 0 ? 200 : error;
    pollfd writable{.fd = fd.get(), .events = POLLOUT};
    if (poll(&writable, 1, 5000) != 1) return 201;
    return ErrorOf(fd.get());
  }),
            0)
      << container.error();
  EXPECT_EQ(backend.Arrived().size(), 1u);
}

TEST(Balance, ANonblockingConnectIsNotHeld) {
  const Full full;
  const Backend backend;
  GuestContainer container({.services = {ServiceOf({full.address(), backend.address()})}});
  EXPECT_EQ(container.Run([&] {
    const Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    const auto begun = std::chrono::steady_clock::now();
    if (Connect(fd.get()) != EINPROGRESS) return 1;
    return std::chrono::steady_clock::now() - begun < milliseconds(250) ? 0 : 2;
  }),
            0)
      << container.error();
  EXPECT_EQ(container.Counted(Counter::failover_missed), 1u);
  EXPECT_EQ(backend.Arrived().size(), 0u);
}

TEST(Balance, AnAttemptWithoutAnswerIsFollowedByAnotherBackend) {
  const Full full;
  const Backend backend;
  GuestContainer container({.services = {ServiceOf({full.address(), backend.address()})}});
  EXPECT_EQ(container.Run([&] { return ConnectOnce(); }), 0) << container.error();
  EXPECT_EQ(backend.Arrived().size(), 1u);
  EXPECT_EQ(container.Counted(Counter::failed_over), 1u);
}

TEST(Balance, TheSourcePortThatWasBoundSurvivesAFailover) {
  const Closed closed;
  const Full full;
  const Backend backend;
  GuestContainer container({.services = {ServiceOf({closed.address(), full.address(), backend.address()})}});
  constexpr uint16_t kSource = 34567;
  EXPECT_EQ(container.Run([&] {
    const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
    const net::SockAddr source = Address("0.0.0.0:34567");
    if (bind(fd.get(), source.data(), source.size()) != 0) return 200;
    return Connect(fd.get());
  }),
            0)
      << container.error();
  EXPECT_EQ(backend.Arrived(), std::vector<uint16_t>{kSource});
}

TEST(Balance, InsideTheContainersNetworkTheVerySocketIsConnected) {
  net::ServiceSpec service = ServiceOf({Address("127.0.0.1:7001"), Address("127.0.0.1:7002")});
  GuestContainer container({.services = {service}});
  EXPECT_EQ(container.Run([&] {
    const Fd listener(socket(AF_INET, SOCK_STREAM, 0));
    const net::SockAddr at = Address("127.0.0.1:7002");
    if (bind(listener.get(), at.data(), at.size()) != 0 || listen(listener.get(), 8) != 0) return 200;
    for (const int nonblock : {0, static_cast<int>(SOCK_NONBLOCK)}) {
      const Fd fd(socket(AF_INET, SOCK_STREAM | nonblock, 0));
      const ino_t before = InodeOf(fd.get());
      const Fd copy(dup(fd.get()));
      const Fd epoll(epoll_create1(0));
      epoll_event event{.events = EPOLLOUT, .data = {.u32 = 7}};
      epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd.get(), &event);
      if (const int error = Connect(fd.get()); error != (nonblock != 0 ? EINPROGRESS : 0)) return 201;
      if (InodeOf(fd.get()) != before) return 202;
      epoll_event seen{};
      if (epoll_wait(epoll.get(), &seen, 1, 5000) != 1 || (seen.events & EPOLLERR) != 0) return 203;
      if (((fcntl(fd.get(), F_GETFL) & O_NONBLOCK) != 0) != (nonblock != 0)) return 204;
      const Fd accepted(accept(listener.get(), nullptr, nullptr));
      if (write(copy.get(), "x", 1) != 1) return 205;
      char byte = 0;
      if (read(accepted.get(), &byte, 1) != 1 || byte != 'x') return 206;
    }
    return 0;
  }),
            0)
      << container.error();
  EXPECT_EQ(container.Counted(Counter::accelerated), 0u);
  EXPECT_EQ(container.Counted(Counter::failed_over), 2u);
}

TEST(Balance, ABackendOnLoopbackIsTheContainersOwn) {
  const Backend on_the_hosts_loopback("127.0.0.1");
  GuestContainer container({.services = {ServiceOf({on_the_hosts_loopback.address()})}});
  EXPECT_EQ(container.Run([&] { return ConnectOnce(); }), ECONNREFUSED) << container.error();
  EXPECT_EQ(on_the_hosts_loopback.Arrived().size(), 0u);
}

TEST(Balance, ConnectedDatagramsGoToABackendOfTheContainersNetwork) {
  net::ServiceSpec service = ServiceOf({Address("127.0.0.1:7001")});
  service.addresses[0].transport = net::Transport::kUdp;
  GuestContainer container({.services = {service}});
  EXPECT_EQ(container.Run([&] {
    const Fd server(socket(AF_INET, SOCK_DGRAM, 0));
    const net::SockAddr at = Address("127.0.0.1:7001");
    if (bind(server.get(), at.data(), at.size()) != 0) return 200;
    const Fd fd(socket(AF_INET, SOCK_DGRAM, 0));
    if (const int error = Connect(fd.get()); error != 0) return error;
    if (send(fd.get(), "x", 1, 0) != 1) return 201;
    char byte = 0;
    return recv(server.get(), &byte, 1, 0) == 1 && byte == 'x' ? 0 : 202;
  }),
            0)
      << container.error();
}

TEST(Balance, SendTimeoutsHoldForAllAttemptsTogether) {
  const Full full, full_too;
  net::ServiceSpec service = ServiceOf({full.address(), full_too.address()});
  service.connect.attempt_timeout = std::chrono::seconds(30);
  GuestContainer container({.services = {service}});
  EXPECT_EQ(container.Run([&] {
    const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
    const timeval timeout{.tv_sec = 0, .tv_usec = 300'000};
    setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    return Connect(fd.get());
  }),
            EINPROGRESS)
      << container.error();
}

// A connect that waits for an attempt without an end, under an alarm.
int ConnectUnderAlarm(int handler_flags) {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  action.sa_flags = handler_flags;
  sigaction(SIGALRM, &action, nullptr);
  const itimerval soon{.it_interval = {}, .it_value = {.tv_sec = 0, .tv_usec = 100'000}};
  setitimer(ITIMER_REAL, &soon, nullptr);
  return ConnectOnce();
}

TEST(Balance, ASignalInterruptsAnAttemptAsItDoesNatively) {
  const Full full, full_too;
  net::ServiceSpec service = ServiceOf({full.address(), full_too.address()});
  service.connect.attempt_timeout = std::chrono::seconds(30);
  for (const bool wait_killable : {false, true}) {
    GuestContainer container({.wait_killable = wait_killable, .services = {service}});
    EXPECT_EQ(container.Run([&] { return ConnectUnderAlarm(0); }), EINTR)
        << container.error() << " killable " << wait_killable;
  }
}

TEST(Balance, ARestartedConnectStillFailsOver) {
  const Full full;
  const Backend backend;
  GuestContainer container({.services = {ServiceOf({full.address(), backend.address()})}});
  EXPECT_EQ(container.Run([&] { return ConnectUnderAlarm(SA_RESTART); }), 0) << container.error();
  EXPECT_EQ(backend.Arrived().size(), 1u);
}

TEST(Balance, AnEngineThatDiesInTheMiddleOfAnAttemptFailsNoConnect) {
  const Full full;
  const Backend backend;
  const Shared<std::atomic<bool>> connecting;
  for (const char* const network : {"host", "container"}) {
    net::ServiceSpec service = ServiceOf({full.address(), backend.address()});
    if (network == std::string("container")) {
      service.backends = {{.address = Address("127.0.0.1:7001")}, {.address = Address("127.0.0.1:7002")}};
    }
    *connecting = false;
    bool killed = false;
    int turns = 0;
    GuestContainer container({.engine_dies =
                                  [&] {
                                    // Some milliseconds after it was received: the attempt is under way.
                                    if (killed || !*connecting || ++turns < 20) return false;
                                    killed = true;
                                    return true;
                                  },
                              .services = {service}});
    EXPECT_EQ(container.Run([&] {
      Fd full_inside(socket(AF_INET, SOCK_STREAM, 0)), good(socket(AF_INET, SOCK_STREAM, 0));
      const net::SockAddr first = Address("127.0.0.1:7001"), second = Address("127.0.0.1:7002");
      bind(full_inside.get(), first.data(), first.size());
      listen(full_inside.get(), 0);
      bind(good.get(), second.data(), second.size());
      listen(good.get(), 8);
      std::vector<Fd> fillers;
      for (int i = 0; i < 4; ++i) {
        fillers.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
        Connect(fillers.back().get(), "127.0.0.1:7001");
      }
      *connecting = true;
      const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
      if (const int error = Connect(fd.get()); error != 0) return error;
      return (fcntl(fd.get(), F_GETFL) & O_NONBLOCK) == 0 ? 0 : 200;
    }),
              0)
        << container.error() << " " << network;
    EXPECT_TRUE(killed);
  }
}

TEST(Balance, AnIPv6SocketReachesBackendsOfBothFamilies) {
  const Backend v4;
  const Backend v6("fd00:113::1");
  net::ServiceSpec service = ServiceOf({v4.address()});
  service.addresses.push_back(
      {.network = *net::ParseSubnet("fd00:96::10"), .first_port = 80, .last_port = 80});
  const auto run = [&](const net::ServiceSpec& spec, const std::string& to) {
    GuestContainer container({.services = {spec}});
    const int result = container.Run([&] { return ConnectOnce(to, AF_INET6); });
    EXPECT_EQ(container.error(), "");
    return result;
  };
  EXPECT_EQ(run(service, "[::ffff:10.96.0.10]:80"), 0);
  EXPECT_EQ(run(service, "[fd00:96::10]:80"), 0);
  EXPECT_EQ(v4.Arrived().size(), 2u);
  service.backends.push_back({.address = v6.address()});
  EXPECT_EQ(run(service, "[fd00:96::10]:80"), 0);
  EXPECT_EQ(v6.Arrived().size(), 1u);
}

TEST(Balance, AffinityKeepsAContainerAndAProcessAtOneBackend) {
  const Backend one, two, three, four;
  net::ServiceSpec service = ServiceOf({one.address(), two.address(), three.address(), four.address()},
                                       net::PickPolicy::kRoundRobin);
  const auto reached = [&] {
    int backends = 0;
    for (const Backend* backend : {&one, &two, &three, &four}) backends += !backend->Arrived().empty();
    return backends;
  };
  const auto forks = [] {
    for (int child = 0; child < 24; ++child) {
      const pid_t pid = fork();
      if (pid == 0) {
        for (int i = 0; i < 4; ++i) {
          if (ConnectOnce() != 0) _exit(1);
        }
        _exit(0);
      }
      int status = 0;
      if (waitpid(pid, &status, 0) != pid || status != 0) return 1;
    }
    return 0;
  };
  for (const net::AffinityKey by : {net::AffinityKey::kNone, net::AffinityKey::kContainer,
                                    net::AffinityKey::kUser, net::AffinityKey::kProcess}) {
    service.affinity = by;
    GuestContainer container({.services = {service}});
    EXPECT_EQ(container.Run(forks), 0) << container.error();
    const bool together = by == net::AffinityKey::kContainer || by == net::AffinityKey::kUser;
    EXPECT_EQ(reached(), together ? 1 : 4) << static_cast<int>(by);
  }
}

TEST(Balance, AProcessStaysAtOneBackend) {
  const Backend one, two, three, four;
  net::ServiceSpec service = ServiceOf({one.address(), two.address(), three.address(), four.address()},
                                       net::PickPolicy::kRoundRobin);
  service.affinity = net::AffinityKey::kProcess;
  GuestContainer container({.services = {service}});
  EXPECT_EQ(container.Run([] {
    for (int i = 0; i < 16; ++i) {
      if (const int error = ConnectOnce(); error != 0) return error;
    }
    return 0;
  }),
            0);
  int backends = 0;
  for (const Backend* backend : {&one, &two, &three, &four}) backends += !backend->Arrived().empty();
  EXPECT_EQ(backends, 1);
}

TEST(Balance, AnAffinityWithATimeoutOutlivesTheEngineWhateverThePolicy) {
  const Backend one, two, three, four;
  net::ServiceSpec service = ServiceOf({one.address(), two.address(), three.address(), four.address()},
                                       net::PickPolicy::kRoundRobin);
  service.affinity = net::AffinityKey::kContainer;
  service.affinity_timeout = std::chrono::hours(3);
  const auto reached = [&] {
    int backends = 0;
    for (const Backend* backend : {&one, &two, &three, &four}) backends += !backend->Arrived().empty();
    return backends;
  };
  const auto memory = net::AffinityMemory::Create();
  ASSERT_TRUE(memory.ok()) << memory.status();
  const Shared<std::atomic<bool>> half, next_engine;
  bool killed = false;
  AcceleratorOptions accelerator;
  accelerator.affinities = memory->get();
  GuestContainer container({.meanwhile = [&](pid_t) { *next_engine = killed; },
                            .engine_dies =
                                [&] {
                                  if (killed || !*half) return false;
                                  return killed = true;
                                },
                            .accelerator = accelerator,
                            .services = {service}});
  EXPECT_EQ(container.Run([&] {
    for (int i = 0; i < 16; ++i) {
      if (i == 8) {
        *half = true;
        while (!*next_engine) usleep(1000);
      }
      const pid_t pid = fork();
      if (pid == 0) _exit(ConnectOnce());
      int status = 0;
      if (waitpid(pid, &status, 0) != pid || status != 0) return 1;
    }
    return 0;
  }),
            0)
      << container.error();
  EXPECT_TRUE(killed);
  EXPECT_EQ(reached(), 1);
  // Without a memory to go by, they are in turn.
  GuestContainer forgetful({.services = {service}});
  EXPECT_EQ(forgetful.Run([] {
    for (int i = 0; i < 4; ++i) {
      if (ConnectOnce() != 0) return 1;
    }
    return 0;
  }),
            0);
  EXPECT_EQ(reached(), 4);
}

// The name of the peer as text, with as much room for it as is given.
std::string PeerOf(int fd, socklen_t room = sizeof(sockaddr_in)) {
  sockaddr_in name{};
  socklen_t size = room;
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) return strerror(errno);
  if (size != sizeof(name)) return "wrong size";
  const Result<net::SockAddr> parsed =
      net::SockAddr::Parse({reinterpret_cast<const std::byte*>(&name), sizeof(name)});
  return parsed ? parsed->ToString() : "no name";
}

TEST(Balance, TheServiceIsShownWhereTheOperatorWantsIt) {
  const Backend backend;
  net::ServiceSpec service = ServiceOf({backend.address()});
  for (const net::PeerName shown : {net::PeerName::kBackend, net::PeerName::kService}) {
    service.peer_name = shown;
    GuestContainer container({.traps = {{"getpeername", {}}}, .services = {service}});
    EXPECT_EQ(container.Run([&] {
      const Fd fd(socket(AF_INET, SOCK_STREAM, 0)), direct(socket(AF_INET, SOCK_STREAM, 0));
      if (PeerOf(fd.get()) != strerror(ENOTCONN)) return 200;
      if (const int error = Connect(fd.get()); error != 0) return error;
      const bool service_shown = shown == net::PeerName::kService;
      if (PeerOf(fd.get()) != (service_shown ? kServiceAddress : backend.address().ToString())) return 201;
      if (getpeername(fd.get(), nullptr, nullptr) == 0 || errno != EFAULT) return 202;
      // Who has connected to the backend itself sees that.
      if (Connect(direct.get(), backend.address().ToString()) != 0) return 203;
      return PeerOf(direct.get()) == backend.address().ToString() ? 0 : 204;
    }),
              0)
        << container.error() << " " << static_cast<int>(shown);
  }
}

TEST(Balance, AServiceWithoutBackendsRefuses) {
  net::ServiceSpec service = ServiceOf({Address("203.0.113.1:9")});
  service.backends[0].weight = 0;
  GuestContainer container({.services = {service}});
  EXPECT_EQ(container.Run([&] { return ConnectOnce(); }), ECONNREFUSED) << container.error();
  EXPECT_EQ(container.Counted(Counter::no_backend), 1u);
}

TEST(Balance, AConnectedSocketSaysSo) {
  const Backend backend;
  GuestContainer container({.services = {ServiceOf({backend.address()})}});
  EXPECT_EQ(container.Run([&] {
    const Fd fd(socket(AF_INET, SOCK_STREAM, 0));
    if (const int error = Connect(fd.get()); error != 0) return error;
    return Connect(fd.get());
  }),
            EISCONN)
      << container.error();
}

TEST(Balance, AnErrorThatIsDueComesFirst) {
  const Closed closed;
  const Backend backend;
  net::ServiceSpec service = ServiceOf({backend.address()});
  GuestContainer container({.services = {service}});
  EXPECT_EQ(container.Run([&] {
    const Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    // An ordinary connect that is refused, whose error nobody takes.
    if (Connect(fd.get(), closed.address().ToString()) != EINPROGRESS) return 200;
    pollfd failed{.fd = fd.get(), .events = POLLOUT};
    if (poll(&failed, 1, 5000) != 1) return 201;
    if (Connect(fd.get()) != ECONNREFUSED) return 202;
    return Connect(fd.get()) == EINPROGRESS ? 0 : 203;
  }),
            0)
      << container.error();
}

}  // namespace
}  // namespace shunt
