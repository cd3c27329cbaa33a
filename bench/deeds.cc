// SPDX-License-Identifier: Apache-2.0
// What a call costs that is done on a container's behalf, or refused, on a tmpfs.
//
//   deeds [--deed mkdir|mknod|device|proc|chmod] --arm native|inside|refused|bare|alone [--count N]
//         [--threads N] [--affinity pin|float] [--suffix TEXT]
//
// native   a container under the same filter, which does not trap the call
// inside   an engine of this process's traps it, and a worker does it
// refused  the engine refuses it (mkdir)
// bare     no engine: a loop of poll, RECV and SEND in this process refuses it, as soon as can be (mkdir)
// alone    this process does it, in a mount namespace of its own, under the agent that it was started under
//          (bench/notified), which has to append --suffix to directories, and to refuse chmod with EBADMSG
//
// mkdir    of a directory; inside it gets another name
// mknod    of a device in its place, in a container without a user namespace of its own; as root
// device   the same in one that has one: a mount (there is no native call that could)
// proc     a mount of a proc with eight masks, into a user namespace; natively, and alone, with none
// chmod    refused, alone
//
// device and proc with a millisecond between one and the next, as nobody mounts without an end.
// Each thread warms up first (kWarmup), which does not count.
// Prints one JSON object, times in nanoseconds. Exit status 0; 1 and one line if it could not be measured.

#include <fcntl.h>
#include <getopt.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <barrier>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "bench/clock.h"
#include "bench/cpus.h"
#include "bench/histogram.h"
#include "bench/notify_filter.h"
#include "tests/support/guest_container.h"
#include "tests/support/seccomp_child.h"

namespace shunt::bench {
namespace {

constexpr int kRefusal = EBADMSG;
constexpr size_t kWarmup = 256, kSlowWarmup = 20;

struct Options {
  std::string deed = "mkdir";
  std::string arm = "native";
  size_t count = 20'000;
  size_t threads = 1;
  bool pin = true;
  std::string suffix = "-x";  // that whoever makes directories for it appends
};

// What the container's process tells.
struct Shared {
  int64_t elapsed_ns;
  Histogram deeds;
};

// What is measured, and how it is undone.
struct Work {
  int (*act)(const char* name);
  void (*undo)(const char* name);
};

constexpr unsigned kZero = 1 << 8 | 5;  // c 1:5

Work WorkOf(const Options& options) {
  if (options.deed == "proc") {
    return {[](const char*) { return mount("proc", "/tmp/place", "proc", 0, nullptr); },
            [](const char*) { umount2("/tmp/place", MNT_DETACH); }};
  }
  if (options.deed == "chmod") {
    return {[](const char*) { return chmod("/tmp", 0700); }, [](const char*) {}};
  }
  if (options.deed != "mkdir") {
    return {[](const char* name) { return mknod(name, S_IFCHR | 0600, kZero); },
            [](const char* name) {
              umount2(name, MNT_DETACH);
              unlink(name);
            }};
  }
  return {[](const char* name) { return mkdir(name, 0700); }, [](const char* name) { rmdir(name); }};
}

// Whether somebody makes directories for it, under other names than it says.
bool IsRenamed(const Options& options) {
  return options.deed == "mkdir" && (options.arm == "inside" || options.arm == "alone");
}

bool IsRefused(const Options& options) {
  return options.arm == "refused" || options.arm == "bare" || options.deed == "chmod";
}

// Of all threads together: what counts begins when each is warm.
struct NoteTime {
  int64_t* begin_ns;
  void operator()() noexcept { *begin_ns = Now(); }
};
using Start = std::barrier<NoteTime>;

// One thread's part: names of its own, so many at a time that the tmpfs stays as it is.
bool Do(const Options& options, size_t thread, bool refused, Start& start, Histogram& deeds,
        int64_t& busy_ns) {
  const size_t batch = options.deed == "mkdir" ? 64 : 1;
  const bool slow = options.deed == "device" || options.deed == "proc";
  const size_t warmup = slow ? kSlowWarmup : kWarmup;
  const Work work = WorkOf(options);
  const std::string home = "/tmp/t" + std::to_string(thread);
  std::vector<std::string> names;
  for (size_t i = 0; i < batch; ++i) names.push_back(home + "-" + std::to_string(i));
  const auto act = [&](size_t i, bool counts) {
    const std::string& name = names[i % batch];
    const int64_t begin = Now();
    const int result = work.act(name.c_str());
    const int64_t end = Now();
    if (refused ? result == 0 || errno != kRefusal : result != 0) return false;
    if (counts) {
      deeds.Add(end - begin);
      busy_ns += end - begin;
    }
    if (refused || i % batch != batch - 1) return true;
    for (const std::string& said : names)
      work.undo((IsRenamed(options) ? said + options.suffix : said).c_str());
    if (slow) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return true;
  };
  for (size_t i = 0; i < warmup; ++i) {
    if (act(i, false)) continue;
    start.arrive_and_drop();
    return false;
  }
  start.arrive_and_wait();
  const size_t end = warmup + options.count / options.threads;
  for (size_t i = warmup; i < end; ++i) {
    if (!act(i, true)) return false;
  }
  // Under its own name only the kernel has made it, by itself.
  return !IsRenamed(options) || access(names[0].c_str(), F_OK) != 0;
}

// The rest happens in a pid namespace of its own, as that of who mounts a proc.
int InPidNamespace(const std::function<int()>& body) {
  if (unshare(CLONE_NEWPID) != 0) return 3;
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 1;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 4;
}

int InContainer(const Options& options, Shared& shared) {
  // With a type, which the kernel ignores here: of mounts that are trapped, some agents know none without.
  if (options.arm != "bare" && (mount("none", "/", "none", MS_REC | MS_PRIVATE, nullptr) != 0 ||
                                mount("tmpfs", "/tmp", "tmpfs", 0, nullptr) != 0))
    return 1;
  if (options.deed == "proc" && mkdir("/tmp/place", 0700) != 0) return 1;
  const bool refused = IsRefused(options);
  std::vector<std::thread> threads;
  std::vector<int64_t> busy(options.threads);
  std::vector<char> fine(options.threads);
  std::vector<Histogram> deeds(options.threads);
  int64_t begin = 0;
  Start start(static_cast<ptrdiff_t>(options.threads), NoteTime{&begin});
  for (size_t i = 0; i < options.threads; ++i)
    threads.emplace_back([&, i] { fine[i] = Do(options, i, refused, start, deeds[i], busy[i]); });
  for (std::thread& thread : threads) thread.join();
  for (const Histogram& one : deeds) shared.deeds.Merge(one);
  shared.elapsed_ns = options.threads == 1 ? busy[0] : Now() - begin;
  for (const char one : fine) {
    if (one == 0) return 2;
  }
  return 0;
}

int RunBare(const Options& options, Shared& shared) {
  testing_support::SeccompChild child({SYS_mkdir}, [&] { return InContainer(options, shared); });
  if (!child.ok()) return -1;
  if (options.pin && !PinTo(0, 0)) return -1;
  WakeSynchronously(child.listener());  // where the kernel can
  seccomp_notif call;
  for (;;) {
    pollfd readable{child.listener(), POLLIN, 0};
    if (poll(&readable, 1, 10'000) != 1 || (readable.revents & POLLIN) == 0) break;
    std::memset(&call, 0, sizeof(call));
    if (ioctl(child.listener(), SECCOMP_IOCTL_NOTIF_RECV, &call) == 0) child.Answer(call, 0, kRefusal);
  }
  return child.Wait();
}

constexpr const char* kMasked[] = {"/proc/acpi",       "/proc/bus",  "/proc/fs",         "/proc/irq",
                                   "/proc/interrupts", "/proc/keys", "/proc/timer_list", "/proc/sys/kernel"};

std::vector<Trap> TrapsOf(const std::string& deed) {
  if (deed == "proc") return {{"mount", {}}, {"umount2", {}}};
  if (deed == "mkdir") return {{"mkdir", {}}};
  return {{"mknod", {}}, {"mknodat", {}}};
}

int RunEngine(const Options& options, Shared& shared) {
  GuestOptions guest;
  guest.more_namespaces = CLONE_NEWNS;
  guest.accelerator.affinity = options.pin ? Affinity::kPin : Affinity::kFloat;
  guest.own_user_namespace = options.deed != "mknod";
  if (options.arm != "native") guest.traps = TrapsOf(options.deed);
  if (options.arm == "inside" && options.deed == "mkdir") guest.policy.mkdir_suffix = options.suffix;
  guest.policy.devices = {{.major = 1, .minor = 5, .path = "/dev/zero"}};
  guest.policy.mounts.proc = true;
  for (const char* path : kMasked) guest.policy.mounts.masks.push_back({.path = path});
  if (options.arm == "refused") guest.policy.errors = {{"mkdir", kRefusal}};
  GuestContainer container(std::move(guest));
  const auto body = [&] { return InContainer(options, shared); };
  const int result = container.Run([&] { return options.deed == "proc" ? InPidNamespace(body) : body(); });
  if (result != 0)
    std::fprintf(stderr, "deeds: the container ended with %d %s\n", result, container.error().c_str());
  return result;
}

int Run(const Options& options) {
  void* const memory =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || options.threads == 0) return 1;
  Shared& shared = *new (memory) Shared();
  const auto run = options.arm == "bare" ? RunBare : options.arm == "alone" ? InContainer : RunEngine;
  if (run(options, shared) != 0) {
    std::fprintf(stderr, "deeds: a call did not do what it should\n");
    return 1;
  }
  std::printf("{%s, \"overhead_ns\": %lld, \"per_second\": %.0f}\n", shared.deeds.JsonFields().c_str(),
              static_cast<long long>(ClockOverhead()),
              static_cast<double>(shared.deeds.size()) * 1e9 / static_cast<double>(shared.elapsed_ns));
  return 0;
}

}  // namespace
}  // namespace shunt::bench

int main(int argc, char** argv) {
  shunt::bench::Options options;
  const option names[] = {{"deed", required_argument, nullptr, 'd'},
                          {"arm", required_argument, nullptr, 'a'},
                          {"count", required_argument, nullptr, 'c'},
                          {"threads", required_argument, nullptr, 't'},
                          {"affinity", required_argument, nullptr, 'f'},
                          {"suffix", required_argument, nullptr, 's'},
                          {}};
  for (int one; (one = getopt_long(argc, argv, "", names, nullptr)) != -1;) {
    if (one == 'd') options.deed = optarg;
    if (one == 'a') options.arm = optarg;
    if (one == 'c') options.count = std::strtoul(optarg, nullptr, 10);
    if (one == 't') options.threads = std::strtoul(optarg, nullptr, 10);
    if (one == 'f') options.pin = std::string_view(optarg) == "pin";
    if (one == 's') options.suffix = optarg;
    if (one == '?') return 2;
  }
  return shunt::bench::Run(options);
}
