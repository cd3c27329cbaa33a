// SPDX-License-Identifier: Apache-2.0
// A reactor never touches the heap: this program's malloc and free abort on a reactor's thread, and
// containers send the engine down all its paths, the slow ones included.
//
// Freeing counts as well. It takes the same locks, and what a reactor frees the control thread has allocated,
// so the two would wait for each other.

#include <execinfo.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "handlers/request_times.h"
#include "handlers/traps.h"
#include "net/balancer/affinity_memory.h"
#include "net/balancer/service.h"
#include "net/socket_options.h"
#include "tests/endure/guest_sockets.h"
#include "tests/support/fleet.h"

extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* old, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void* memory);
}

namespace {

thread_local bool t_frozen = false;

void Touch(const char* what) {
  if (!t_frozen) [[likely]]
    return;
  t_frozen = false;
  const std::array<const char*, 3> text{"frozen heap: ", what, " on a reactor's thread:\n"};
  for (const char* part : text) (void)!write(STDERR_FILENO, part, strlen(part));
  std::array<void*, 32> frames;
  backtrace_symbols_fd(frames.data(), backtrace(frames.data(), static_cast<int>(frames.size())),
                       STDERR_FILENO);
  abort();
}

}  // namespace

extern "C" {
void* malloc(size_t bytes) {
  Touch("malloc");
  return __libc_malloc(bytes);
}
void* calloc(size_t count, size_t bytes) {
  Touch("calloc");
  return __libc_calloc(count, bytes);
}
void* realloc(void* old, size_t bytes) {
  Touch("realloc");
  return __libc_realloc(old, bytes);
}
void* memalign(size_t alignment, size_t bytes) {
  Touch("memalign");
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(size_t alignment, size_t bytes) {
  Touch("aligned_alloc");
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void** memory, size_t alignment, size_t bytes) {
  Touch("posix_memalign");
  *memory = __libc_memalign(alignment, bytes);
  return *memory != nullptr ? 0 : ENOMEM;
}
void free(void* memory) {
  Touch("free");
  __libc_free(memory);
}
}

namespace shunt {
namespace {

constexpr uint16_t kPublishedPort = 8080, kHostPort = 8180, kLimitedPort = 4322;

// What goes wrong inside a container is told by the number of the line, modulo a byte.
#define NEED(condition) \
  if (!(condition)) return __LINE__ % 200 + 1

int Ordinary() {
  NEED(Connect(Tcp().get(), To(kHost, kPort)) == 0);
  NEED(Connect(Tcp(AF_INET6).get(), To(kHost6, kPort)) == 0);
  NEED(Connect(Tcp().get(), To(kHost, kRefusedPort)) == ECONNREFUSED);
  const Fd later = Tcp(AF_INET, SOCK_NONBLOCK);
  NEED(Connect(later.get(), To(kHost, kPort)) == EINPROGRESS);
  pollfd writable{.fd = later.get(), .events = POLLOUT};
  NEED(poll(&writable, 1, 5000) == 1);
  NEED(Connect(later.get(), To(kHost, kPort)) == 0);  // tells of the success
  NEED(Connect(later.get(), To(kHost, kPort)) == EISCONN);
  const Address nowhere{.storage = {.ss_family = AF_UNSPEC}, .size = sizeof(sockaddr)};
  NEED(Connect(later.get(), nowhere) == 0);
  return 0;
}

int Watched() {
  const Fd epoll(epoll_create1(0));
  const Fd fd = Tcp(AF_INET, SOCK_NONBLOCK);
  epoll_event event{.events = EPOLLOUT, .data = {.u64 = 7}};
  NEED(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd.get(), &event) == 0);
  NEED(Connect(fd.get(), To(kHost, kPort)) == EINPROGRESS);
  for (int round = 0; round < 100; ++round) {
    NEED(epoll_wait(epoll.get(), &event, 1, 5000) == 1);
    if ((event.events & EPOLLOUT) != 0) return 0;
  }
  return __LINE__ % 200 + 1;
}

int Shared() {
  const Fd fd = Tcp();
  const Fd copy(dup(fd.get()));
  NEED(Connect(fd.get(), To(kHost, kPort)) == ENETUNREACH);  // on the ordinary path, which leads nowhere
  return 0;
}

int GoesHome() {
  const Fd listener = Tcp();
  Address inside = To("127.0.0.1", 0);
  NEED(bind(listener.get(), inside.get(), inside.size) == 0 && listen(listener.get(), 64) == 0);
  NEED(getsockname(listener.get(), inside.get(), &inside.size) == 0);
  // More than there are sockets in store.
  for (int i = 0; i < 12; ++i) {
    const Fd fd = Tcp();
    NEED(Connect(fd.get(), To(kHost, kRefusedPort)) == ECONNREFUSED);
    NEED(Connect(fd.get(), inside) == 0);
  }
  const Fd bound = Tcp();
  NEED(Connect(bound.get(), To(kHost, kRefusedPort)) == ECONNREFUSED);
  NEED(bind(bound.get(), To("127.0.0.1", 0).get(), inside.size) == 0);
  const Fd listening = Tcp();
  NEED(Connect(listening.get(), To(kHost, kRefusedPort)) == ECONNREFUSED);
  NEED(listen(listening.get(), 5) == 0);
  const Fd connected = Tcp();
  NEED(Connect(connected.get(), To(kHost, kPort)) == 0);
  NEED(bind(connected.get(), To("127.0.0.1", 0).get(), inside.size) == -1 && errno == EINVAL);
  return 0;
}

int Timed() {
  const Fd fd = Tcp();
  SetSendTimeout(fd.get(), 20);
  NEED(Connect(fd.get(), To(kNobody, kPort)) == EINPROGRESS);
  return 0;
}

int WaitsForEver() {
  const Fd fd = Tcp();
  SetSendTimeout(fd.get(), 3'600'000);
  Connect(fd.get(), To(kNobody, kPort));
  pause();
  return 0;
}

int Publishes() {
  Address any = To("0.0.0.0", kPublishedPort);
  for (const int reuse : {0, 1}) {
    const Fd one = Tcp(), other = Tcp();
    for (const Fd* fd : {&one, &other}) {
      setsockopt(fd->get(), SOL_SOCKET, reuse != 0 ? SO_REUSEPORT : SO_REUSEADDR, &any.size, sizeof(int));
    }
    NEED(bind(one.get(), any.get(), any.size) == 0 && listen(one.get(), 8) == 0);
    Address name;
    name.size = sizeof(name.storage);
    NEED(getsockname(one.get(), name.get(), &name.size) == 0);
    NEED(reinterpret_cast<sockaddr_in*>(&name.storage)->sin_port == htons(kPublishedPort));
    NEED((bind(other.get(), any.get(), any.size) == 0) == (reuse != 0));
  }
  return 0;
}

int SetsEveryOption() {
  for (const net::SocketOption& option : net::kSocketOptions) {
    // Nonblocking: with some of them a connection takes its time (SO_MAX_PACING_RATE).
    const Fd fd = Tcp(option.level == net::kLevelIp6 ? AF_INET6 : AF_INET, SOCK_NONBLOCK);
    const std::array<int, 4> value{1, 0, 0, 0};
    (void)setsockopt(fd.get(), option.level, option.name, value.data(), sizeof(int));
    Connect(fd.get(), option.level == net::kLevelIp6 ? To(kHost6, kRefusedPort) : To(kHost, kRefusedPort));
  }
  return 0;
}

int Nonsense() {
  const Address to = To(kHost, kPort);
  const Fd file(open("/dev/null", O_RDWR));
  for (const int number : {-1, 999, file.get()}) {
    NEED(Connect(number, to) != 0);
    NEED(bind(number, to.get(), to.size) != 0);
    NEED(listen(number, 1) != 0);
  }
  for (const int size : {-1, 0, 1, 2, 15, 128, 129, 1 << 30}) {
    connect(Tcp().get(), to.get(), static_cast<socklen_t>(size));
    bind(Tcp().get(), to.get(), static_cast<socklen_t>(size));
  }
  NEED(connect(Tcp().get(), reinterpret_cast<sockaddr*>(8), 16) == -1 && errno == EFAULT);
  NEED(sendto(Tcp().get(), "x", 1, MSG_FASTOPEN, to.get(), to.size) == -1);
  NEED(Connect(Fd(socket(AF_INET, SOCK_DGRAM, 0)).get(), to) == ENETUNREACH);
  return 0;
}

int Forbidden() {
  NEED(syscall(SYS_acct, nullptr) == -1 && errno == EBADMSG);
  NEED(chmod("/", 0755) == -1 && errno == EXDEV);
  char* const nothing = nullptr;
  NEED(execve("/nonexistent", &nothing, &nothing) == -1 && errno == ENOENT);
  NEED(execve("/delayed", &nothing, &nothing) == -1 && errno == ENOENT);
  return 0;
}

int Condemned() {
  syscall(SYS_acct, nullptr);
  return 0;
}

// One service for each path that a connect to a service can take, by its port.
enum ServicePort : uint16_t { kFailsOver = 80, kTimesOut, kRaces, kIsLimited, kRemembers, kByHash, kOfUdp };

net::ServiceSpec ServiceAt(uint16_t port, const std::vector<std::pair<const char*, uint16_t>>& backends) {
  net::ServiceSpec service;
  service.name = std::to_string(port);
  service.addresses = {{.network = *net::ParseSubnet("10.96.0.10"), .first_port = port, .last_port = port}};
  service.policy = net::PickPolicy::kFirst;
  for (const auto& [ip, its_port] : backends)
    service.backends.push_back({.address = net::SockAddr(*net::IpAddress::Parse(ip), its_port)});
  return service;
}

std::vector<net::ServiceSpec> Services() {
  using std::chrono::milliseconds;
  std::vector<net::ServiceSpec> services = {
      ServiceAt(kFailsOver, {{kHost, kRefusedPort}, {kHost, kPort}}),
      ServiceAt(kTimesOut, {{kNobody, kPort}, {kHost, kPort}}),
      ServiceAt(kRaces, {{kNobody, kPort}, {kHost, kPort}}),
      // A limit is of all connections to a backend: this one is nobody else's.
      ServiceAt(kIsLimited, {{kHost, kLimitedPort}}),
      ServiceAt(kRemembers, {{kHost, kPort}, {kHost, kRefusedPort}}),
      ServiceAt(kByHash, {{kHost, kPort}, {kHost, kRefusedPort}}), ServiceAt(kOfUdp, {{"127.0.0.1", kPort}})};
  for (net::ServiceSpec& service : services) service.connect.attempt_timeout = milliseconds(50);
  services[2].connect.attempt_timeout = milliseconds(5000);
  services[2].connect.race_after = milliseconds(100);
  services[3].limits = {.max_connections = 1, .queue = 4, .queue_timeout = milliseconds(5000)};
  services[4].affinity = net::AffinityKey::kProcess;
  services[4].affinity_timeout = std::chrono::hours(1);
  services[5].policy = net::PickPolicy::kMaglev;
  services[6].addresses[0].transport = net::Transport::kUdp;
  services[6].network = net::ServiceNetwork::kContainer;
  return services;
}

int Balanced() {
  const auto at = [](uint16_t port) { return To("10.96.0.10", port); };
  for (const uint16_t port : {kFailsOver, kTimesOut, kRaces, kRemembers, kRemembers, kByHash})
    NEED(Connect(Tcp().get(), at(port)) == 0);
  NEED(Connect(Tcp(AF_INET, SOCK_NONBLOCK).get(), at(kFailsOver)) == EINPROGRESS);
  NEED(Connect(Fd(socket(AF_INET, SOCK_DGRAM, 0)).get(), at(kOfUdp)) == 0);
  Fd first = Tcp();
  NEED(Connect(first.get(), at(kIsLimited)) == 0);
  NEED(Connect(Tcp(AF_INET, SOCK_NONBLOCK).get(), at(kIsLimited)) == ECONNREFUSED);
  // That it has ended the kernel says when it is asked next: until then this one waits in the queue.
  Reset(std::move(first));
  NEED(Connect(Tcp().get(), at(kIsLimited)) == 0);
  return 0;
}

#undef NEED

FleetOptions Frozen(std::vector<std::function<int()>> bodies, std::atomic<int>* started,
                    std::atomic<int>* stopped, bool publish = false) {
  FleetOptions options{.bodies = std::move(bodies)};
  if (publish) options.publish = {{.host_port = kHostPort, .port = kPublishedPort}};
  options.accelerator.on_reactor_start = [started] {
    started->fetch_add(1);
    t_frozen = true;
  };
  options.accelerator.on_reactor_stop = [stopped] {
    if (t_frozen) stopped->fetch_add(1);
    t_frozen = false;
  };
  return options;
}

// Accepts nothing: connections complete in its backlog.
class Listener {
 public:
  explicit Listener(const char* ip, uint16_t port = kPort) : fd_(Tcp(To(ip, 0).family())) {
    const Address address = To(ip, port);
    const int on = 1;
    setsockopt(fd_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    ok = bind(fd_.get(), address.get(), address.size) == 0 && listen(fd_.get(), 4096) == 0;
  }
  bool ok = false;

 private:
  Fd fd_;
};

// Where a body has stopped: NEED's line is modulo 200, plus one.
class FrozenHeap : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::array<void*, 1> warm_up;  // the first backtrace loads a library
    backtrace(warm_up.data(), 1);
  }
  void SetUp() override { ASSERT_TRUE(v4_.ok && v6_.ok) << strerror(errno); }

  Listener v4_{kHost}, v6_{kHost6};
  std::atomic<int> started_{0}, stopped_{0};
};

using FrozenHeapDeathTest = FrozenHeap;

TEST_F(FrozenHeapDeathTest, NoticesEveryKindOfAllocation) {
  // Through volatile pointers: the compiler knows what malloc and free are, and leaves them out in pairs.
  void* (*volatile allocate)(size_t) = malloc;
  void (*volatile release)(void*) = free;
  void* const memory = allocate(8);
  EXPECT_DEATH((t_frozen = true, allocate(8)), "frozen heap: malloc");
  EXPECT_DEATH((t_frozen = true, release(memory)), "frozen heap: free");
  EXPECT_DEATH((t_frozen = true, ::operator new(8)), "frozen heap: malloc");
  EXPECT_DEATH((t_frozen = true, ::operator new(64, std::align_val_t(64))), "frozen heap: aligned_alloc");
  release(memory);
}

TEST_F(FrozenHeap, StaysUntouchedOnEveryPath) {
  const std::vector<std::function<int()>> bodies{Ordinary, Watched,         Shared,  GoesHome,
                                                 Timed,    SetsEveryOption, Nonsense};
  Fleet fleet(Frozen(bodies, &started_, &stopped_));
  ASSERT_EQ(fleet.Start(), "");
  for (size_t body = 0; body < bodies.size(); ++body) {
    const pid_t pid = fleet.Launch(body);
    ASSERT_GT(pid, 0) << fleet.error();
    EXPECT_EQ(fleet.Join(pid), 0) << "body " << body << ": line modulo 200, plus one";
  }
  EXPECT_GT(fleet.Counted(Counter::accelerated), 0u);
  EXPECT_GT(fleet.Counted(Counter::epolls_migrated), 0u);
  EXPECT_GT(fleet.Counted(Counter::kept_shared), 0u);
  EXPECT_GE(fleet.Counted(Counter::returned_home), 14u);
  EXPECT_GT(fleet.Counted(Counter::waits_begun), 0u);
}

TEST_F(FrozenHeap, StaysUntouchedByAPolicy) {
  FleetOptions options = Frozen({Forbidden}, &started_, &stopped_);
  options.traps = Traps({.handlers = {"exec"}, .calls = {"acct", "chmod"}});
  options.policy.default_action = DefaultAction::kFail;
  options.policy.default_error = EBADMSG;
  options.policy.errors = {{"chmod", EXDEV}};
  options.policy.exec_pattern = "/delayed";
  options.policy.exec_delay = std::chrono::milliseconds(250);
  Fleet fleet(options);
  ASSERT_EQ(fleet.Start(), "");
  const pid_t pid = fleet.Launch(0);
  ASSERT_GT(pid, 0) << fleet.error();
  EXPECT_EQ(fleet.Join(pid), 0) << "line modulo 200, plus one";
  EXPECT_EQ(fleet.Counted(Counter::continued), 2u);
  EXPECT_EQ(fleet.Counted(Counter::waits_begun), 1u);
}

TEST_F(FrozenHeap, StaysUntouchedWhenCallsAreTimed) {
  FleetOptions options = Frozen({Forbidden, Ordinary, Timed}, &started_, &stopped_);
  options.traps = Traps({.handlers = {"exec"}, .calls = {"acct", "chmod"}});
  options.policy.default_action = DefaultAction::kFail;
  options.policy.default_error = EBADMSG;
  options.policy.errors = {{"chmod", EXDEV}};
  options.policy.exec_pattern = "/delayed";
  options.policy.exec_delay = std::chrono::milliseconds(250);
  options.policy.middleware = {kPrometheus};
  options.policy.identity.pod_namespace = "shop";
  options.accelerator.reactors = 2;
  RequestTimes times(2);
  options.accelerator.request_times = &times;
  Fleet fleet(options);
  ASSERT_EQ(fleet.Start(), "");
  for (size_t body = 0; body < options.bodies.size(); ++body) {
    const pid_t pid = fleet.Launch(body);
    ASSERT_GT(pid, 0) << fleet.error();
    EXPECT_EQ(fleet.Join(pid), 0) << "body " << body << ": line modulo 200, plus one";
  }
  const auto read = times.Read();
  const auto count = [&read](const char* syscall, int error) {
    const auto found = read.find({"shop", syscall, error});
    if (found == read.end()) return uint64_t{0};
    return std::accumulate(found->second.counts.begin(), found->second.counts.end(), uint64_t{0});
  };
  EXPECT_EQ(count("acct", EBADMSG), 1u);
  EXPECT_EQ(count("chmod", EXDEV), 1u);
  EXPECT_EQ(count("execve", 0), 2u);
  EXPECT_GE(read.at({"shop", "execve", 0}).nanoseconds, 250'000'000u) << "the time that a task waits counts";
  EXPECT_GE(count("connect", 0), 3u);
  EXPECT_EQ(count("connect", EINPROGRESS), 2u)
      << "of a socket that does not block, and of one with a time limit";
  uint64_t timed = times.Overflowed();
  for (const auto& [labels, histogram] : read) timed += count(labels.syscall.c_str(), labels.error);
  EXPECT_EQ(timed, fleet.Counted(Counter::answered)) << "each call that was answered, once";
}

TEST_F(FrozenHeap, StaysUntouchedByServices) {
  const Listener limited(kHost, kLimitedPort);
  ASSERT_TRUE(limited.ok) << strerror(errno);
  const auto affinities = net::AffinityMemory::Create();
  ASSERT_TRUE(affinities.ok()) << affinities.status();
  FleetOptions options = Frozen({Balanced}, &started_, &stopped_);
  options.accelerator.balances = true;
  options.accelerator.affinities = affinities->get();
  Fleet fleet(std::move(options));
  ASSERT_EQ(fleet.Start(), "");
  fleet.accelerator().Balance(Services(), /*zone=*/"", /*at_once=*/true);
  const pid_t pid = fleet.Launch(0);
  ASSERT_GT(pid, 0) << fleet.error();
  EXPECT_EQ(fleet.Join(pid), 0) << "line modulo 200, plus one";
  EXPECT_GE(fleet.Counted(Counter::failed_over), 3u) << "refused, timed out, overtaken";
  for (const net::ServiceReport& service : fleet.accelerator().DescribeServices()) {
    if (service.limited) EXPECT_GE(service.waited, 1u) << service.name;
  }
}

TEST_F(FrozenHeap, StaysUntouchedWhenAContainerIsKilled) {
  FleetOptions options = Frozen({Condemned}, &started_, &stopped_);
  options.traps = Traps({.calls = {"acct"}});
  options.policy.default_action = DefaultAction::kKillContainer;
  Fleet fleet(options);
  ASSERT_EQ(fleet.Start(), "");
  const pid_t pid = fleet.Launch(0);
  ASSERT_GT(pid, 0) << fleet.error();
  EXPECT_EQ(fleet.Join(pid), Fleet::kKilled);
}

TEST_F(FrozenHeap, StaysUntouchedWhenAPortIsPublished) {
  Fleet fleet(Frozen({Publishes}, &started_, &stopped_, /*publish=*/true));
  ASSERT_EQ(fleet.Start(), "");
  if (!fleet.accelerator().CanPublish()) GTEST_SKIP() << fleet.accelerator().LocksInForce();
  const pid_t pid = fleet.Launch(0);
  ASSERT_GT(pid, 0) << fleet.error();
  EXPECT_EQ(fleet.Join(pid), 0) << "line modulo 200, plus one";
  EXPECT_GE(fleet.Counted(Counter::published), 3u);
}

TEST_F(FrozenHeap, StaysUntouchedWhenTheContainerIsUnknownAtFirst) {
  FleetOptions options = Frozen({Ordinary}, &started_, &stopped_);
  options.tell_pid = false;
  options.bodies = {[] {
    Connect(Tcp().get(), To(kHost, kPort));  // introduces it
    return Ordinary();
  }};
  Fleet fleet(std::move(options));
  ASSERT_EQ(fleet.Start(), "");
  const pid_t pid = fleet.Launch(0);
  ASSERT_GT(pid, 0) << fleet.error();
  EXPECT_EQ(fleet.Join(pid), 0) << "line modulo 200, plus one";
}

TEST_F(FrozenHeap, StaysUntouchedWhenAContainerEndsInTheMiddleOfACall) {
  Fleet fleet(Frozen({WaitsForEver}, &started_, &stopped_));
  ASSERT_EQ(fleet.Start(), "");
  const pid_t pid = fleet.Launch(0);
  ASSERT_GT(pid, 0) << fleet.error();
  while (fleet.Counted(Counter::waits_begun) == 0) fleet.HandleEvents();
  kill(pid, SIGKILL);
  EXPECT_EQ(fleet.Join(pid), Fleet::kKilled);
  EXPECT_EQ(fleet.Counted(Counter::waits_ended), 1u);
}

TEST_F(FrozenHeap, IsFrozenOnEveryReactorUntilItStops) {
  FleetOptions options = Frozen({Ordinary}, &started_, &stopped_);
  options.accelerator.reactors = 3;
  {
    Fleet fleet(std::move(options));
    ASSERT_EQ(fleet.Start(), "");
  }
  EXPECT_EQ(started_, 3);
  EXPECT_EQ(stopped_, 3);
}

}  // namespace
}  // namespace shunt
