// SPDX-License-Identifier: Apache-2.0
// Many idle containers for one agent: hands over a seccomp listener for each, as an OCI runtime does.
//
//   listeners SOCKET COUNT [--callers K [--count N] [--warmup N]]
//
// Each "container" is a process in a user and network namespace of its own, under a filter that traps connect
// and bind. It is handed to the agent at SOCKET and then makes one trapped call, so that a listener counts
// only when it is really served. Prints "ready" when all are served; ends the containers and itself at the
// end of its standard input. An error is one line and exit status 1.
//
// With --callers so many of the containers then make N calls each, at the same time and one after the other,
// which the agent answers at once (connect() on no descriptor), and a line of JSON says how long these took.
// The floor under that, with as many listeners and callers and any CPU for each:
//
//   floor --call connect --sync --listeners COUNT --callers K [--affinity ...]

#include <getopt.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "bench/clock.h"
#include "bench/hand_over.h"
#include "bench/histogram.h"
#include "bench/notify_filter.h"

namespace shunt::bench {
namespace {

constexpr int kMostCallers = 256;

struct Options {
  const char* socket = nullptr;
  int containers = 0;
  int callers = 0;
  int64_t count = 20'000;
  int64_t warmup = 2'000;
};

// What callers leave, in memory that they share with us.
struct Calls {
  Histogram times;
  int64_t wrong_answers = 0;
};

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "listeners: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}

int TrappedCall() {
  return connect(-1, nullptr, 0) == 0 ? 0 : errno;
}

void TimeCalls(const Options& options, Calls& calls) {
  for (int64_t i = -options.warmup; i < options.count; ++i) {
    const int64_t begin = Now();
    const int error = TrappedCall();
    const int64_t took = Now() - begin;
    if (error != EBADF) ++calls.wrong_answers;
    if (i >= 0) calls.times.Add(took);
  }
}

// The container: tells its listener's number, waits for a byte, makes the trapped call, tells that it came
// back, sleeps. A caller makes its calls after the next byte, and tells again.
[[noreturn]] void RunContainer(int channel, const Options& options, Calls* calls) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  int listener = unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 ? NotifyOf({SYS_connect, SYS_bind}) : -1;
  if (listener < 0) listener = -errno;
  char go;
  if (write(channel, &listener, sizeof listener) != sizeof listener || read(channel, &go, 1) != 1) _exit(1);
  close(listener);
  const int error = TrappedCall();
  if (write(channel, &error, sizeof error) != sizeof error) _exit(1);
  if (calls != nullptr) {
    madvise(calls, sizeof *calls, MADV_POPULATE_WRITE);
    if (read(channel, &go, 1) != 1) _exit(1);
    TimeCalls(options, *calls);
    if (write(channel, &error, sizeof error) != sizeof error) _exit(1);
  }
  close(channel);
  for (;;) pause();
}

// Waits for a number from the container.
int ReadNumber(int channel, const std::string& what, int timeout_ms = 10'000) {
  pollfd waiting{channel, POLLIN, 0};
  int number = 0;
  errno = ETIMEDOUT;
  if (poll(&waiting, 1, timeout_ms) != 1 || read(channel, &number, sizeof number) != sizeof number) Die(what);
  return number;
}

struct Container {
  pid_t pid = -1;
  int channel = -1;  // of a caller
};

// `calls` is where a caller counts; nullptr: it is none.
Container StartContainer(const Options& options, int index, Calls* calls) {
  int channel[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) != 0) Die("socketpair");
  const pid_t pid = fork();
  if (pid < 0) Die("fork");
  if (pid == 0) RunContainer(channel[1], options, calls);
  close(channel[1]);
  const int theirs = ReadNumber(channel[0], "container " + std::to_string(index) + " did not start");
  errno = -theirs;
  if (theirs < 0) Die("a namespace with a seccomp listener");
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  const int listener = static_cast<int>(syscall(SYS_pidfd_getfd, pidfd, theirs, 0));
  if (listener < 0) Die("pidfd_getfd");
  close(pidfd);
  const int connection = ConnectToAgent(options.socket);
  if (connection < 0) Die(options.socket);
  if (!HandOver(connection, "idle-" + std::to_string(index), pid, "", listener)) Die("sendmsg");
  close(connection);
  close(listener);
  if (write(channel[0], "", 1) != 1) Die("write to the container");
  const int error = ReadNumber(channel[0], "the agent does not serve container " + std::to_string(index));
  errno = error;
  if (error != EBADF) Die("connect() on no descriptor, under the agent, must fail with EBADF");
  if (calls != nullptr) return {pid, channel[0]};
  close(channel[0]);
  return {pid, -1};
}

void Measure(const Options& options, const std::vector<Container>& containers, const Calls* calls) {
  const auto callers = static_cast<size_t>(options.callers);
  for (size_t i = 0; i < callers; ++i) {
    if (write(containers[i].channel, "", 1) != 1) Die("write to the container");
  }
  Histogram all;
  int64_t wrong = 0;
  for (size_t i = 0; i < callers; ++i) {
    ReadNumber(containers[i].channel, "container " + std::to_string(i) + " does not get on", 600'000);
    all.Merge(calls[i].times);
    wrong += calls[i].wrong_answers;
  }
  if (wrong != 0) {
    errno = 0;
    Die(std::to_string(wrong) + " calls did not fail with EBADF");
  }
  std::printf("{\"listeners\": %d, \"callers\": %d, \"overhead_ns\": %lld, %s}\n", options.containers,
              options.callers, static_cast<long long>(ClockOverhead()), all.JsonFields().c_str());
  std::fflush(stdout);
}

// Returns what is wrong, or nullptr.
const char* ParseOptions(int argc, char** argv, Options& options) {
  const option kLong[] = {{"callers", required_argument, nullptr, 'k'},
                          {"count", required_argument, nullptr, 'n'},
                          {"warmup", required_argument, nullptr, 'w'},
                          {nullptr, 0, nullptr, 0}};
  for (int letter; (letter = getopt_long(argc, argv, "", kLong, nullptr)) != -1;) {
    if (letter == 'k') options.callers = std::atoi(optarg);
    if (letter == 'n') options.count = std::atoll(optarg);
    if (letter == 'w') options.warmup = std::atoll(optarg);
    if (letter == '?') return "see the first lines of bench/listeners.cc";
  }
  if (optind + 2 != argc) return "usage: listeners SOCKET COUNT [--callers K [--count N] [--warmup N]]";
  options.socket = argv[optind];
  options.containers = std::atoi(argv[optind + 1]);
  if (options.containers < 1 || options.containers > 100'000) return "COUNT must be 1 to 100000";
  if (options.callers < 0 || options.callers > std::min(options.containers, kMostCallers))
    return "--callers must be at most 256, and not more than there are containers";
  if (options.count < 1 || options.warmup < 0) return "--count must be at least 1, --warmup not negative";
  return nullptr;
}

}  // namespace
}  // namespace shunt::bench

int main(int argc, char** argv) {
  using namespace shunt::bench;
  Options options;
  if (const char* wrong = ParseOptions(argc, argv, options)) {
    std::fprintf(stderr, "listeners: %s\n", wrong);
    return 2;
  }
  const size_t bytes = sizeof(Calls) * kMostCallers;
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) Die("mmap");
  Calls* const calls = static_cast<Calls*>(memory);
  for (int i = 0; i < options.callers; ++i) new (calls + i) Calls();
  std::vector<Container> containers;
  for (int i = 0; i < options.containers; ++i)
    containers.push_back(StartContainer(options, i, i < options.callers ? calls + i : nullptr));
  std::printf("ready\n");
  std::fflush(stdout);
  if (options.callers > 0) Measure(options, containers, calls);
  char byte;
  while (read(STDIN_FILENO, &byte, 1) > 0) {
  }
  for (const Container& container : containers) kill(container.pid, SIGKILL);
  for (const Container& container : containers) waitpid(container.pid, nullptr, 0);
}
