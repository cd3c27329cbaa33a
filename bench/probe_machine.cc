// SPDX-License-Identifier: Apache-2.0
// What `shunt bench probe` needs to time, or to try, that Python cannot: clocks, lost time, wake-ups, the
// kernel's features.
//
//   probe_machine [--spin-ms N] [--longest-ms M]
//
// Features are tried, not concluded from a version. Each CPU that this process may use spins for N
// milliseconds (200 if not given), one after the other, and for less where all of them together would take
// more than M (eight times N if not given): what a loop that does nothing but look at the clock has missed,
// somebody else had. A wake-up is half of what it takes a thread to wake another one and to be woken by it,
// and is tried the less often the more CPUs there are. Prints one JSON object.

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "bench/notify_filter.h"

// Debian 12's headers lack the first one (kernel 5.19).
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif
#ifndef SECCOMP_ADDFD_FLAG_SEND
#define SECCOMP_ADDFD_FLAG_SEND (1UL << 1)
#endif

namespace {

// As many as any kernel knows. A cpu_set_t holds 1,024, and the kernel refuses a mask that is smaller than
// its own.
constexpr int kMostCpus = 8192;
constexpr size_t kUnhurriedCpus = 8;  // of which each is watched, and woken, as often as was asked for

class CpuSet {
 public:
  CpuSet() { CPU_ZERO_S(sizeof sets_, sets_); }
  cpu_set_t* get() { return sets_; }
  static constexpr size_t size() { return sizeof sets_; }

 private:
  cpu_set_t sets_[kMostCpus / CPU_SETSIZE];
};

int64_t Clock(clockid_t clock = CLOCK_MONOTONIC) {
  timespec now;
  clock_gettime(clock, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

int64_t Resolution(clockid_t clock) {
  timespec step{};
  clock_getres(clock, &step);
  return int64_t{step.tv_sec} * 1'000'000'000 + step.tv_nsec;
}

int64_t Median(std::vector<int64_t> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

std::vector<int> AllowedCpus() {
  CpuSet allowed;
  sched_getaffinity(0, CpuSet::size(), allowed.get());
  std::vector<int> cpus;
  for (int cpu = 0; cpu < kMostCpus; ++cpu) {
    if (CPU_ISSET_S(static_cast<size_t>(cpu), CpuSet::size(), allowed.get())) cpus.push_back(cpu);
  }
  return cpus;
}

// The calling thread.
void PinTo(int cpu) {
  CpuSet one;
  CPU_SET_S(static_cast<size_t>(cpu), CpuSet::size(), one.get());
  sched_setaffinity(0, CpuSet::size(), one.get());
}

// What a measurement of nothing comes to: two looks at the clock and the difference kept, as around a call.
std::string ClockFields() {
  constexpr int kTimes = 20'000;
  std::vector<int64_t> empty(kTimes);
  const int64_t begin = Clock();
  for (int64_t& sample : empty) {
    const int64_t before = Clock();
    sample = Clock() - before;
  }
  const double each = static_cast<double>(Clock() - begin) / (2.0 * kTimes);
  std::vector<int64_t> late(50);
  for (int64_t& sample : late) {
    const timespec pause{0, 50'000};
    const int64_t before = Clock();
    nanosleep(&pause, nullptr);
    sample = Clock() - before - 50'000;
  }
  char text[300];
  std::snprintf(
      text, sizeof text,
      "{\"resolution_ns\": %lld, \"timestamp_ns\": %.1f, \"empty_sample_ns\": %lld, \"tick_ns\": %lld, "
      "\"sleep_late_ns\": %lld}",
      static_cast<long long>(Resolution(CLOCK_MONOTONIC)), each, static_cast<long long>(Median(empty)),
      static_cast<long long>(Resolution(CLOCK_MONOTONIC_COARSE)), static_cast<long long>(Median(late)));
  return text;
}

// One CPU's lost time. A gap is more than ten microseconds between two looks at the clock.
std::string Spin(int cpu, int64_t microseconds) {
  constexpr int64_t kGap = 10'000;
  PinTo(cpu);
  int64_t lost = 0, longest = 0, gaps = 0;
  const int64_t begin = Clock(), end = begin + microseconds * 1'000;
  int64_t before = begin;
  while (before < end) {
    const int64_t now = Clock(), took = now - before;
    before = now;
    longest = std::max(longest, took);
    if (took >= kGap) ++gaps, lost += took;
  }
  char text[200];
  std::snprintf(text, sizeof text,
                "{\"cpu\": %d, \"seconds\": %.6f, \"gaps\": %lld, \"lost_us\": %.1f, \"longest_us\": %.1f}",
                cpu, static_cast<double>(before - begin) / 1e9, static_cast<long long>(gaps),
                static_cast<double>(lost) / 1e3, static_cast<double>(longest) / 1e3);
  return text;
}

// Median of half a round trip between a thread on `from` and one on `to`.
int64_t WakeUp(int from, int to, size_t times) {
  constexpr size_t kWarmup = 20;
  const int ping = eventfd(0, EFD_CLOEXEC), pong = eventfd(0, EFD_CLOEXEC);
  std::thread other([&] {
    PinTo(to);
    uint64_t number;
    for (size_t i = 0; i < times + kWarmup; ++i) {
      if (read(ping, &number, sizeof number) < 0 || write(pong, &number, sizeof number) < 0) return;
    }
  });
  std::vector<int64_t> samples;
  std::thread([&] {
    PinTo(from);
    uint64_t number = 1;
    for (size_t i = 0; i < times + kWarmup; ++i) {
      const int64_t begin = Clock();
      if (write(ping, &number, sizeof number) < 0 || read(pong, &number, sizeof number) < 0) return;
      if (i >= kWarmup) samples.push_back((Clock() - begin) / 2);
    }
  }).join();
  other.join();
  close(ping);
  close(pong);
  return samples.empty() ? -1 : Median(samples);
}

// Whether `attempt` returns true in a process of its own, which takes its consequences along.
bool Works(const std::function<bool()>& attempt) {
  const pid_t child = fork();
  if (child == 0) _exit(attempt() ? 0 : 1);
  int status = 1;
  return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

int Listener(uint64_t flags) {
  sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const sock_fprog program{1, code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
  return static_cast<int>(
      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER | flags, &program));
}

// A kernel that knows the operation and its flags looks for the notification, and finds none.
bool KnowsAddFd(uint32_t flags) {
  const int listener = Listener(0);
  seccomp_notif_addfd request{};
  request.id = ~uint64_t{0};
  request.srcfd = static_cast<uint32_t>(listener);
  request.flags = flags;
  return listener >= 0 && ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &request) != 0 && errno == ENOENT;
}

bool KnowsSynchronousWakeUps() {
  const int listener = Listener(0);
  return listener >= 0 && shunt::bench::WakeSynchronously(listener);
}

bool HasIoUring() {
  alignas(8) char parameters[120]{};  // io_uring_params
  return syscall(SYS_io_uring_setup, 4, parameters) >= 0;
}

std::string FeatureFields() {
  const struct {
    const char* name;
    std::function<bool()> attempt;
  } kFeatures[] = {
      {"notify", [] { return Listener(0) >= 0; }},
      {"addfd", [] { return KnowsAddFd(0); }},
      {"addfd_send", [] { return KnowsAddFd(SECCOMP_ADDFD_FLAG_SEND); }},
      {"wait_killable", [] { return Listener(SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) >= 0; }},
      {"sync_wake_up", KnowsSynchronousWakeUps},
      {"io_uring", HasIoUring},
      {"user_namespaces", [] { return unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0; }},
  };
  std::string fields;
  for (const auto& [name, attempt] : kFeatures) {
    fields +=
        std::string(fields.empty() ? "\"" : ", \"") + name + "\": " + (Works(attempt) ? "true" : "false");
  }
  return fields;
}

std::string Joined(const std::vector<std::string>& objects) {
  std::string list;
  for (const std::string& object : objects) list += (list.empty() ? "" : ", ") + object;
  return "[" + list + "]";
}

}  // namespace

int main(int argc, char** argv) {
  int64_t spin_ms = 200, longest_ms = 0;
  bool understood = argc % 2 == 1;
  for (int i = 1; understood && i < argc; i += 2) {
    const bool is_spin = std::strcmp(argv[i], "--spin-ms") == 0;
    understood = is_spin || std::strcmp(argv[i], "--longest-ms") == 0;
    int64_t& value = is_spin ? spin_ms : longest_ms;
    value = std::atoll(argv[i + 1]);
    understood = understood && value >= 1 && value <= 8 * 60'000;
  }
  if (!understood || spin_ms > 60'000) {
    std::fprintf(stderr, "usage: probe_machine [--spin-ms N] [--longest-ms M]   (N 1 to 60000)\n");
    return 2;
  }
  if (longest_ms == 0) longest_ms = spin_ms * int64_t{kUnhurriedCpus};
  // Nobody else would end a long watch that nobody waits for any more. Who started this may have gone before
  // the kernel knew: then nobody reads what is written here.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  pollfd reader{.fd = STDOUT_FILENO};
  if (poll(&reader, 1, 0) == 1 && (reader.revents & POLLERR) != 0) return 1;
  const std::string features = FeatureFields();  // before there are threads
  const std::vector<int> cpus = AllowedCpus();
  if (cpus.empty()) {
    std::fprintf(stderr, "probe_machine: the kernel does not say which CPUs there are\n");
    return 1;
  }
  const int64_t spin_us = std::min(spin_ms * 1000, longest_ms * 1000 / static_cast<int64_t>(cpus.size()));
  const size_t wake_ups = std::max<size_t>(20, 1000 * kUnhurriedCpus / std::max(kUnhurriedCpus, cpus.size()));
  std::vector<std::string> spins, wakes;
  for (const int cpu : cpus) {
    std::string spin;
    std::thread([&] { spin = Spin(cpu, std::max<int64_t>(spin_us, 1)); }).join();
    spins.push_back(spin);
    wakes.push_back("{\"from\": " + std::to_string(cpus[0]) + ", \"to\": " + std::to_string(cpu) +
                    ", \"ns\": " + std::to_string(WakeUp(cpus[0], cpu, wake_ups)) + "}");
  }
  std::printf("{\"clock\": %s, \"spin\": %s, \"wake_ups\": %s, \"features\": {%s}}\n", ClockFields().c_str(),
              Joined(spins).c_str(), Joined(wakes).c_str(), features.c_str());
}
