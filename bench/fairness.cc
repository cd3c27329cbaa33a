// SPDX-License-Identifier: Apache-2.0
// What one container's connects cost while another container floods the engine that both share.
//
//   fairness --address ADDRESS --port PORT [--flood KIND] [--calm-epoll] [--flood-nice N] [--count N]
//   [--threads N]
//            [--reactors N]
//
// Starts an engine and two containers, each a process in a user and network namespace of its own under
// shunt's filter. The calm one connects to ADDRESS and PORT, closes, sleeps a millisecond, and so on, COUNT
// times; only connect() is timed. With --calm-epoll its sockets are watched by an epoll. The other one does,
// from before the first to after the last of these:
//   none      nothing
//   connects  connects from 64 threads, one after the other, without a pause
//   waits     the same with a send timeout to a peer that does not answer: takes every slot it can get
//   epolls    the same with sockets that an epoll watches: each takes the engine's slow path
//   tables    the same from a process with thousands of descriptors, which the slow path has to look at
//   starved   connects from threads of the lowest priority, beside threads that take every CPU: what the
//             kernel has to do in the caller takes long
//   hogs      no call at all, only the threads that take every CPU, for comparison with the last
//   mappings  connects from 4 threads, beside 4 threads that map and unmap 256 MiB each without a pause: the
//             memory of a program whose mappings change cannot be read
//   mappers   no call at all, only the threads that map and unmap, for comparison with the last
// --flood-nice is the priority (nice value) of the other one's threads: at 19 they leave the CPUs to whoever
// wants them, and what is left of the difference is the engine's doing. Prints one JSON object (times in
// nanoseconds). Exit status 0; 1 and one line if it could not be measured.

#include <arpa/inet.h>
#include <fcntl.h>
#include <getopt.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "bench/clock.h"
#include "bench/histogram.h"
#include "core/filter.h"
#include "handlers/accelerator.h"
#include "handlers/traps.h"

namespace shunt::bench {
namespace {

constexpr size_t kMostConnects = 200'000;
constexpr uint16_t kRefusedPort = 9;
constexpr int kMappers = 4;  // and as many that connect beside them

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "fairness: %s\n", what.c_str());
  std::exit(1);
}

void Need(bool done, const char* what) {
  if (!done) Die(std::string(what) + ": " + std::strerror(errno));
}

struct Options {
  std::string_view flood = "none";
  sockaddr_in peer{};
  size_t count = 3000;
  int threads = 64;
  int reactors = 0;
  bool calm_epoll = false;
  int flood_nice = 0;
};

// What the processes tell each other.
struct Shared {
  std::atomic<bool> measured{false};
  std::atomic<uint64_t> flood_calls{0};
  std::atomic<size_t> errors{0};
  Histogram calm;
};

Fd Tcp(int type = 0) {
  Fd fd(socket(AF_INET, SOCK_STREAM | type, 0));
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  return fd;
}

int Connect(const Fd& fd, const sockaddr_in& to) {
  return connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0 ? 0 : errno;
}

void Watch(const Fd& epoll, const Fd& fd) {
  epoll_event event{.events = EPOLLOUT, .data = {}};
  epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd.get(), &event);
}

void Calm(const Options& options, Shared& shared) {
  constexpr size_t kWarmUp = 100;
  const Fd epoll(options.calm_epoll ? epoll_create1(0) : -1);
  for (size_t i = 0; i < options.count + kWarmUp; ++i) {
    const Fd fd = Tcp();
    if (epoll.valid()) Watch(epoll, fd);
    const int64_t begin = Now();
    const int error = Connect(fd, options.peer);
    const int64_t took = Now() - begin;
    if (i >= kWarmUp && error == 0) shared.calm.Add(took);
    if (error != 0) ++shared.errors;
    const timespec pause{.tv_sec = 0, .tv_nsec = 1'000'000};
    nanosleep(&pause, nullptr);
  }
}

// ---- the other container

void TakeEveryCpu(std::vector<std::thread>& threads) {
  for (long i = 0; i < sysconf(_SC_NPROCESSORS_ONLN); ++i) {
    threads.emplace_back([] {
      for (;;) {
      }
    });
  }
}

void MapAndUnmap(std::vector<std::thread>& threads) {
  for (int i = 0; i < kMappers; ++i) {
    threads.emplace_back([] {
      for (;;) {
        constexpr size_t kBytes = size_t{256} << 20;
        void* const memory =
            mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (memory != MAP_FAILED) munmap(memory, kBytes);
      }
    });
  }
}

void FloodOnce(std::string_view kind, const sockaddr_in& refused, const sockaddr_in& silent) {
  const bool watched = kind == "epolls" || kind == "tables";
  const Fd fd = Tcp(watched || kind == "mappings" ? SOCK_NONBLOCK : 0);
  const Fd epoll(watched ? epoll_create1(0) : -1);
  if (watched) Watch(epoll, fd);
  if (kind == "waits") {
    const timeval timeout{.tv_sec = 0, .tv_usec = 200'000};
    setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
  }
  Connect(fd, kind == "waits" ? silent : refused);
}

// Fewer than WatcherSearch gives up at, with what else the process has open.
constexpr int kManyDescriptors = 3500;

std::vector<Fd> ManyDescriptors(int count) {
  rlimit most{};
  getrlimit(RLIMIT_NOFILE, &most);
  most.rlim_cur = most.rlim_max;
  setrlimit(RLIMIT_NOFILE, &most);
  std::vector<Fd> descriptors;
  for (int i = 0; i < count; ++i) descriptors.emplace_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
  return descriptors;
}

void Flood(const Options& options, Shared& shared) {
  if (options.flood == "none") return;
  sockaddr_in refused = options.peer, silent = options.peer;
  refused.sin_port = htons(kRefusedPort);
  silent.sin_addr.s_addr = htonl((ntohl(silent.sin_addr.s_addr) & ~0xffU) | 77);  // nobody, on the same link
  if (options.flood_nice != 0) (void)nice(options.flood_nice);
  const std::vector<Fd> descriptors = ManyDescriptors(options.flood == "tables" ? kManyDescriptors : 0);
  std::vector<std::thread> threads;
  const bool starved = options.flood == "starved";
  if (starved || options.flood == "hogs") TakeEveryCpu(threads);
  const bool maps = options.flood == "mappings";
  if (maps || options.flood == "mappers") MapAndUnmap(threads);
  const bool calls = options.flood != "hogs" && options.flood != "mappers";
  const int callers = maps ? kMappers : options.threads;
  for (int i = 0; i < callers && calls; ++i) {
    threads.emplace_back([&, starved] {
      const sched_param none{};
      if (starved) sched_setscheduler(0, SCHED_IDLE, &none);
      for (;;) {
        FloodOnce(options.flood, refused, silent);
        shared.flood_calls.fetch_add(1, std::memory_order_relaxed);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// ---- containers

void WriteText(const char* path, const std::string& text) {
  const Fd file(open(path, O_WRONLY | O_CLOEXEC));
  Need(write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()), path);
}

struct Guest {
  pid_t pid = -1;
  Fd listener;
  Fd go;
  bool ended = false;
};

// Runs `body` in a container when it has been told to go. Before there are threads.
Guest StartGuest(const std::vector<sock_filter>& program, const std::function<void()>& body) {
  std::array<int, 2> down, up;
  Need(pipe2(down.data(), O_CLOEXEC) == 0 && pipe2(up.data(), O_CLOEXEC) == 0, "pipe");
  Guest guest;
  guest.pid = fork();
  Need(guest.pid >= 0, "fork");
  if (guest.pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const std::string uid = std::to_string(geteuid()), gid = std::to_string(getegid());
    Need(unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0, "unshare");
    WriteText("/proc/self/setgroups", "deny");
    WriteText("/proc/self/uid_map", "0 " + uid + " 1");
    WriteText("/proc/self/gid_map", "0 " + gid + " 1");
    prctl(PR_SET_DUMPABLE, 1);
    Result<Fd> listener = InstallFilter(program, FilterWait::kInterruptible);
    Need(listener.has_value(), "seccomp");
    const int number = listener->get();
    char byte;
    Need(write(up[1], &number, sizeof(number)) == sizeof(number), "write");
    if (read(down[0], &byte, 1) != 1) _exit(1);
    listener->reset();
    body();
    _exit(0);
  }
  close(down[0]);
  close(up[1]);
  const Fd from_guest(up[0]);
  guest.go = Fd(down[1]);
  int number = -1;
  Need(read(from_guest.get(), &number, sizeof(number)) == sizeof(number), "a container does not start");
  const Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, guest.pid, 0)));
  guest.listener = Fd(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd.get(), number, 0)));
  Need(guest.listener.valid(), "pidfd_getfd");
  return guest;
}

void Serve(Accelerator& engine, Guest& guest) {
  const auto served =
      engine.Serve(std::move(guest.listener), {.name = "guest", .pid = guest.pid, .exact_traps = true},
                   [&guest] { guest.ended = true; });
  if (!served.ok()) Die(std::string(served.status().message()));
  if (!served->empty()) Die("not accelerated: " + *served);
  Need(write(guest.go.get(), "", 1) == 1, "a container is gone");
}

void HandleEvents(Accelerator& engine, int timeout_ms) {
  pollfd event{.fd = engine.event_fd(), .events = POLLIN, .revents = 0};
  if (poll(&event, 1, timeout_ms) == 1) engine.HandleEvents();
}

int Measure(const Options& options) {
  const absl::StatusOr<std::vector<sock_filter>> program =
      BuildFilter(Traps({.renumbered = false}), Denies({}));
  if (!program.ok()) Die(std::string(program.status().message()));
  void* const memory =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  Need(memory != MAP_FAILED, "mmap");
  Shared& shared = *new (memory) Shared();
  Guest flood = StartGuest(*program, [&] { Flood(options, shared); });
  Guest calm = StartGuest(*program, [&] { Calm(options, shared); });
  const auto engine = Accelerator::Start({.reactors = options.reactors});
  if (!engine.ok()) Die(std::string(engine.status().message()));
  Serve(**engine, flood);
  const int64_t begin = Now();
  while (Now() < begin + 200'000'000) HandleEvents(**engine, 10);
  const uint64_t calls_before = shared.flood_calls;
  const int64_t measured_from = Now();
  Serve(**engine, calm);
  while (!calm.ended && Now() < begin + 60'000'000'000) HandleEvents(**engine, 100);
  const double seconds = static_cast<double>(Now() - measured_from) / 1e9;
  const uint64_t calls = shared.flood_calls - calls_before;
  kill(flood.pid, SIGKILL);
  kill(calm.pid, SIGKILL);
  while (waitpid(-1, nullptr, 0) > 0) {
  }
  if (!calm.ended) Die("the calm container did not get on");
  std::printf("{\"flood\": \"%s\", \"flood_per_second\": %.1f, \"errors\": %zu, \"overhead_ns\": %lld, %s}\n",
              std::string(options.flood).c_str(), static_cast<double>(calls) / seconds, shared.errors.load(),
              static_cast<long long>(ClockOverhead()), shared.calm.JsonFields().c_str());
  return 0;
}

// Returns what is wrong, or nullptr.
const char* ParseOptions(int argc, char** argv, Options& options) {
  const option kLong[] = {{"address", required_argument, nullptr, 'a'},
                          {"port", required_argument, nullptr, 'p'},
                          {"flood", required_argument, nullptr, 'f'},
                          {"count", required_argument, nullptr, 'n'},
                          {"threads", required_argument, nullptr, 't'},
                          {"reactors", required_argument, nullptr, 'r'},
                          {"calm-epoll", no_argument, nullptr, 'e'},
                          {"flood-nice", required_argument, nullptr, 'i'},
                          {nullptr, 0, nullptr, 0}};
  options.peer.sin_family = AF_INET;
  int letter;
  while ((letter = getopt_long(argc, argv, "", kLong, nullptr)) != -1) {
    switch (letter) {
      case 'a':
        if (inet_pton(AF_INET, optarg, &options.peer.sin_addr) != 1)
          return "--address must be an IPv4 address";
        break;
      case 'p':
        options.peer.sin_port = htons(static_cast<uint16_t>(std::atoi(optarg)));
        break;
      case 'f':
        options.flood = optarg;
        break;
      case 'n':
        options.count = static_cast<size_t>(std::atol(optarg));
        break;
      case 't':
        options.threads = std::atoi(optarg);
        break;
      case 'r':
        options.reactors = std::atoi(optarg);
        break;
      case 'e':
        options.calm_epoll = true;
        break;
      case 'i':
        options.flood_nice = std::atoi(optarg);
        break;
      default:
        return "see the first lines of bench/fairness.cc";
    }
  }
  constexpr std::string_view kFloods[] = {"none",    "connects", "waits",    "epolls", "tables",
                                          "starved", "hogs",     "mappings", "mappers"};
  if (std::find(std::begin(kFloods), std::end(kFloods), options.flood) == std::end(kFloods))
    return "--flood is none, connects, waits, epolls, tables, starved, hogs, mappings or mappers";
  if (options.count < 1 || options.count > kMostConnects) return "--count must be 1 to 200000";
  if (options.threads < 1 || options.threads > 1024) return "--threads must be 1 to 1024";
  if (options.peer.sin_port == 0 || options.peer.sin_addr.s_addr == 0)
    return "--address and --port are needed";
  return nullptr;
}

}  // namespace
}  // namespace shunt::bench

int main(int argc, char** argv) {
  shunt::bench::Options options;
  if (const char* wrong = shunt::bench::ParseOptions(argc, argv, options)) {
    std::fprintf(stderr, "fairness: %s\n", wrong);
    return 2;
  }
  return shunt::bench::Measure(options);
}
