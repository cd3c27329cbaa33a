// SPDX-License-Identifier: Apache-2.0
// The floor under every notified call: a supervisor that receives and sends and does nothing else.
//
//   floor [--affinity free|same|split|pin-supervisor|pin-target] [--sync] [--call getppid|connect]
//         [--count N] [--warmup N] [--pause-us N] [--target-only] [--poll]
//         [--own-session]
//         [--listeners N] [--callers N] [--delay-us N] [--stall-every N --stall-ms N]
//
// A child installs a filter that traps one cheap call and times that call; the parent blocks in RECV and
// answers each notification with the value 0. With --poll it sleeps in poll(2) and not in RECV, as whoever
// serves more than one listener has to. The child checks every answer, so a call that was not trapped cannot
// be measured as one that was. --sync asks for synchronous wake-ups (kernel 6.6); --pause-us spins
// between calls as a program that computes would. --target-only installs no filter and expects no answer: it
// times the call as whatever filter it already runs under makes it (none: the native price; under shunt:
// shunt's).
//
// --own-session puts the child into a session of its own. To the scheduler each session is a group
// (autogroup), as each control group with a share of its own is, and a switch between two groups costs more.
// A container of a runtime is in another one than whoever answers its calls.
//
// --listeners makes that many children, each with a filter and a listener of its own; one supervisor serves
// them all, sleeping in epoll_wait(2). --callers of them call at the same time, each --count times; the
// others are only there. bench/listeners measures the same under an agent.
//
// --delay-us has the supervisor work that long for each call before it answers, and --stall-every N
// --stall-ms M for M milliseconds instead at every Nth call: delays that are known, to try out what measures
// them.
//
// Affinity: free (both may move), same (both on the first allowed CPU), split (supervisor on the second,
// target on the first), pin-supervisor, pin-target (the other may move).
//
// Prints one JSON object, times in nanoseconds. Exit status 77 and one line when the kernel or the machine
// lacks what was asked for.

#include <getopt.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
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
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <new>
#include <string>
#include <vector>

#include "bench/clock.h"
#include "bench/cpus.h"
#include "bench/histogram.h"
#include "bench/notify_filter.h"

namespace shunt::bench {
namespace {

constexpr int kNotAvailable = 77;

struct Options {
  std::string affinity = "free";
  std::string call = "getppid";
  bool sync = false;
  bool poll = false;
  bool own_session = false;
  bool target_only = false;
  int64_t count = 20'000;
  int64_t warmup = 2'000;
  int64_t pause_us = 0;
  int listeners = 1;
  int callers = 1;
  int64_t delay_us = 0;
  int64_t stall_every = 0;
  int64_t stall_ms = 0;
};

constexpr int kMostListeners = 10'000;
constexpr int kMostCallers = 256;

// What parent and children share.
struct Shared {
  // Of the child that was made last: its listener's number; -1: not yet; below that: a negated errno minus
  // one.
  std::atomic<int> listener{-1};
  std::atomic<bool> supervised{false};
  std::atomic<int64_t> wrong_answers{0};
  std::array<Histogram, kMostCallers> calls;  // of each caller
};

[[noreturn]] void Die(int status, const char* what) {
  std::fprintf(stderr, "floor: %s: %s\n", what, std::strerror(errno));
  std::exit(status);
}

int CallNumber(const std::string& call) {
  return call == "connect" ? SYS_connect : SYS_getppid;
}

// The call that is timed. connect() on no descriptor fails natively at once with EBADF.
long TimedCall(int number) {
  return syscall(number, -1, nullptr, 0);
}

void Pin(size_t index, pid_t pid) {
  if (PinTo(index, pid)) return;
  if (errno != ENODEV) Die(1, "sched_setaffinity");
  std::fprintf(stderr, "floor: this affinity needs %zu CPUs and this process may use fewer\n", index + 1);
  std::exit(kNotAvailable);
}

// All are pinned by the parent, before the first timed call; the parent itself goes last, since its own mask
// is what "the allowed CPUs" means.
void PinTargets(const std::string& affinity, const std::vector<pid_t>& children) {
  if (affinity != "same" && affinity != "split" && affinity != "pin-target") return;
  for (const pid_t child : children) Pin(0, child);
}

void PinSupervisor(const std::string& affinity) {
  if (affinity == "same") Pin(0, 0);
  if (affinity == "split" || affinity == "pin-supervisor") Pin(1, 0);
}

void Spin(int64_t microseconds) {
  if (microseconds == 0) return;
  for (const int64_t until = Now() + microseconds * 1000; Now() < until;) {
  }
}

void TimeCalls(const Options& options, Shared& shared, int caller) {
  const int number = CallNumber(options.call);
  for (int64_t i = -options.warmup; i < options.count; ++i) {
    const int64_t begin = Now();
    const long answer = TimedCall(number);
    const int64_t took = Now() - begin;
    if (!options.target_only && answer != 0) ++shared.wrong_answers;
    if (i >= 0) shared.calls[static_cast<size_t>(caller)].Add(took);
    Spin(options.pause_us);
  }
}

[[noreturn]] void RunTarget(const Options& options, Shared& shared, int child) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (options.own_session) setsid();
  const int listener = NotifyOf({CallNumber(options.call)});
  shared.listener = listener >= 0 ? listener : -1 - errno;
  if (listener < 0) _exit(1);
  if (child >= options.callers) {
    for (;;) pause();
  }
  // Mapped here as well, so that no page fault comes between two calls.
  madvise(&shared, sizeof shared, MADV_POPULATE_WRITE);
  while (!shared.supervised) sched_yield();
  close(listener);
  TimeCalls(options, shared, child);
  _exit(0);
}

// The listener that the child has just made, as a descriptor of ours.
int TakeListener(pid_t child, Shared& shared) {
  int theirs;
  while ((theirs = shared.listener) == -1) sched_yield();
  if (theirs < -1) {
    errno = -1 - theirs;
    Die(kNotAvailable, "seccomp(NEW_LISTENER)");
  }
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
  const int ours = static_cast<int>(syscall(SYS_pidfd_getfd, pidfd, theirs, 0));
  if (ours < 0) Die(kNotAvailable, "pidfd_getfd");
  close(pidfd);
  shared.listener = -1;
  return ours;
}

// Waits for a notification, where RECV alone will not do.
class Waiter {
 public:
  Waiter(const std::vector<int>& listeners, bool poll_first) : first_(listeners[0]), poll_first_(poll_first) {
    if (listeners.size() == 1) return;
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    for (const int listener : listeners) {
      epoll_event event{.events = EPOLLIN, .data = {.fd = listener}};
      if (epoll_ctl(epoll_, EPOLL_CTL_ADD, listener, &event) != 0) Die(1, "epoll_ctl");
    }
  }

  // The listener that has one; -1: somebody is gone.
  int Next() {
    if (epoll_ >= 0) {
      epoll_event event{};
      if (epoll_wait(epoll_, &event, 1, -1) != 1) return -1;
      // One that has ended is heard of for ever.
      if ((event.events & EPOLLIN) == 0 && epoll_ctl(epoll_, EPOLL_CTL_DEL, event.data.fd, nullptr) == 0)
        return Next();
      return event.data.fd;
    }
    pollfd readable{.fd = first_, .events = POLLIN, .revents = 0};
    if (poll_first_ && (poll(&readable, 1, -1) != 1 || (readable.revents & POLLIN) == 0)) return -1;
    return first_;
  }

 private:
  const int first_;
  const bool poll_first_;
  int epoll_ = -1;
};

// The loop that is measured. Ends when all calls are answered, or a target is gone.
void Supervise(const std::vector<int>& listeners, const Options& options) {
  seccomp_notif_sizes sizes{};
  if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) != 0)
    Die(kNotAvailable, "seccomp(GET_NOTIF_SIZES)");
  std::vector<uint64_t> request(sizes.seccomp_notif / 8 + 1);
  std::vector<uint64_t> reply(sizes.seccomp_notif_resp / 8 + 1);
  auto* notification = reinterpret_cast<seccomp_notif*>(request.data());
  auto* answer = reinterpret_cast<seccomp_notif_resp*>(reply.data());
  Waiter waiter(listeners, options.poll);
  const int64_t calls = (options.warmup + options.count) * options.callers;
  for (int64_t i = 1; i <= calls; ++i) {
    const int listener = waiter.Next();
    std::memset(notification, 0, sizes.seccomp_notif);
    if (listener < 0 || ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, notification) != 0) return;
    answer->id = notification->id;
    const bool stalls = options.stall_every > 0 && i % options.stall_every == 0;
    Spin(stalls ? options.stall_ms * 1000 : options.delay_us);
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, answer) != 0) return;
  }
}

bool IsOneOf(const std::string& text, std::initializer_list<const char*> choices) {
  for (const char* choice : choices) {
    if (text == choice) return true;
  }
  return false;
}

// Returns what is wrong, or nullptr.
const char* ParseOptions(int argc, char** argv, Options& options) {
  const option kLong[] = {{"affinity", required_argument, nullptr, 'a'},
                          {"call", required_argument, nullptr, 'c'},
                          {"sync", no_argument, nullptr, 's'},
                          {"count", required_argument, nullptr, 'n'},
                          {"warmup", required_argument, nullptr, 'w'},
                          {"pause-us", required_argument, nullptr, 'p'},
                          {"target-only", no_argument, nullptr, 't'},
                          {"poll", no_argument, nullptr, 'o'},
                          {"own-session", no_argument, nullptr, 'g'},
                          {"listeners", required_argument, nullptr, 'l'},
                          {"callers", required_argument, nullptr, 'k'},
                          {"delay-us", required_argument, nullptr, 'd'},
                          {"stall-every", required_argument, nullptr, 'e'},
                          {"stall-ms", required_argument, nullptr, 'm'},
                          {nullptr, 0, nullptr, 0}};
  int letter;
  while ((letter = getopt_long(argc, argv, "", kLong, nullptr)) != -1) {
    switch (letter) {
      case 'a':
        options.affinity = optarg;
        break;
      case 'c':
        options.call = optarg;
        break;
      case 's':
        options.sync = true;
        break;
      case 'n':
        options.count = std::atoll(optarg);
        break;
      case 'w':
        options.warmup = std::atoll(optarg);
        break;
      case 'p':
        options.pause_us = std::atoll(optarg);
        break;
      case 'l':
        options.listeners = std::atoi(optarg);
        break;
      case 'k':
        options.callers = std::atoi(optarg);
        break;
      case 'd':
        options.delay_us = std::atoll(optarg);
        break;
      case 'e':
        options.stall_every = std::atoll(optarg);
        break;
      case 'm':
        options.stall_ms = std::atoll(optarg);
        break;
      case 'o':
        options.poll = true;
        break;
      case 'g':
        options.own_session = true;
        break;
      case 't':
        options.target_only = true;
        break;
      default:
        return "unknown option";
    }
  }
  if (optind != argc) return "unexpected argument";
  if (!IsOneOf(options.affinity, {"free", "same", "split", "pin-supervisor", "pin-target"})) {
    return "--affinity is free, same, split, pin-supervisor or pin-target";
  }
  if (!IsOneOf(options.call, {"getppid", "connect"})) return "--call is getppid or connect";
  if (options.count < 1 || options.count > 100'000'000) return "--count must be 1 to 100000000";
  if (options.warmup < 0 || options.pause_us < 0 || options.delay_us < 0 || options.stall_every < 0 ||
      options.stall_ms < 0)
    return "numbers must not be negative";
  if (options.listeners < 1 || options.listeners > kMostListeners) return "--listeners must be 1 to 10000";
  if (options.callers < 1 || options.callers > std::min(options.listeners, kMostCallers))
    return "--callers must be 1 to 256, and not more than there are listeners";
  return nullptr;
}

// For more listeners than a process may usually have descriptors.
void AllowManyDescriptors() {
  rlimit most{};
  getrlimit(RLIMIT_NOFILE, &most);
  most.rlim_cur = most.rlim_max;
  setrlimit(RLIMIT_NOFILE, &most);
}

void RunSupervised(const Options& options, Shared& shared) {
  AllowManyDescriptors();
  std::vector<pid_t> children;
  std::vector<int> listeners;
  for (int i = 0; i < options.listeners; ++i) {
    const pid_t child = fork();
    if (child < 0) Die(1, "fork");
    if (child == 0) RunTarget(options, shared, i);
    children.push_back(child);
    listeners.push_back(TakeListener(child, shared));
    if (options.sync && !WakeSynchronously(listeners.back())) {
      Die(kNotAvailable, "synchronous wake-ups (kernel 6.6 has them)");
    }
  }
  PinTargets(options.affinity, children);
  PinSupervisor(options.affinity);
  shared.supervised = true;
  Supervise(listeners, options);
  int failed = 0;
  for (int i = 0; i < options.listeners; ++i) {
    const pid_t child = children[static_cast<size_t>(i)];
    if (i >= options.callers) kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    if (i < options.callers && status != 0) failed = status;
  }
  if (failed != 0 || shared.wrong_answers != 0) {
    std::fprintf(stderr, "floor: a target ended with wait status %d, and there were %lld wrong answers\n",
                 failed, static_cast<long long>(shared.wrong_answers));
    std::exit(1);
  }
}

}  // namespace
}  // namespace shunt::bench

int main(int argc, char** argv) {
  using namespace shunt::bench;
  Options options;
  if (const char* wrong = ParseOptions(argc, argv, options)) {
    std::fprintf(stderr, "floor: %s\n", wrong);
    return 2;
  }
  void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) Die(1, "mmap");
  Shared& shared = *new (memory) Shared();
  if (options.target_only) {
    madvise(memory, sizeof shared, MADV_POPULATE_WRITE);
    TimeCalls(options, shared, 0);
  } else {
    RunSupervised(options, shared);
  }
  Histogram all;
  for (const Histogram& one : shared.calls) all.Merge(one);
  std::printf(
      "{\"supervised\": %s, \"affinity\": \"%s\", \"sync\": %s, \"call\": \"%s\", \"pause_us\": %lld, "
      "\"listeners\": %d, \"callers\": %d, \"delay_us\": %lld, \"overhead_ns\": %lld, %s}\n",
      options.target_only ? "false" : "true", options.affinity.c_str(), options.sync ? "true" : "false",
      options.call.c_str(), static_cast<long long>(options.pause_us), options.listeners, options.callers,
      static_cast<long long>(options.delay_us), static_cast<long long>(ClockOverhead()),
      all.JsonFields().c_str());
  return 0;
}
