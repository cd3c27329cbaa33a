// SPDX-License-Identifier: Apache-2.0
// Somebody has taken over the engine, or the keeper: what he can still call. As root and as an ordinary user.
//
// Each attack runs in a process of its own that confines itself first. That the call would be one without
// that is not shown for all: many need root.

#include "core/confinement.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <latch>
#include <thread>

#include "core/fd.h"
#include "tests/support/int80.h"
#include "tests/support/sanitized.h"

namespace shunt {
namespace {

using testing::ExitedWithCode;
using testing::HasSubstr;
using testing::KilledBySignal;

enum class Process { kEngine, kKeeper, kCgroupOpener };

// Confines the calling process, and ends it if that does not work.
void Confine(Process what) {
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  const absl::StatusOr<std::string> done = what == Process::kEngine   ? ConfineEngine()
                                           : what == Process::kKeeper ? ConfineKeeper()
                                                                      : ConfineCgroupOpener();
  if (!done.ok()) _exit(99);
}

// Ends the process with the errno that `call` leaves, 0 if it has worked.
[[noreturn]] void ExitWithErrno(const std::function<long()>& call) {
  errno = 0;
  _exit(call() < 0 ? errno : 0);
}

#define EXPECT_FAILS_WITH(process, error, call)       \
  EXPECT_EXIT(                                        \
      {                                               \
        Confine(process);                             \
        ExitWithErrno([]() -> long { return call; }); \
      },                                              \
      ExitedWithCode(error), "")                      \
      << #call
#define EXPECT_KILLED(call)                           \
  EXPECT_EXIT(                                        \
      {                                               \
        Confine(Process::kEngine);                    \
        ExitWithErrno([]() -> long { return call; }); \
      },                                              \
      KilledBySignal(SIGSYS), "")                     \
      << #call

class ConfinementTest : public testing::Test {
  void SetUp() override {
    if (kSanitized) GTEST_SKIP() << "sanitized builds are confined less";
  }
};

TEST_F(ConfinementTest, AnEngineThatCallsWhatOnlyAnIntruderCallsIsKilled) {
  static char name[] = "/bin/true";
  static char* const arguments[] = {name, nullptr};
  EXPECT_KILLED(execve(name, arguments, nullptr));
  EXPECT_KILLED(syscall(SYS_execveat, AT_FDCWD, name, arguments, nullptr, 0));
  EXPECT_KILLED(ptrace(PTRACE_TRACEME, 0, nullptr, nullptr));
  EXPECT_KILLED(mount("none", "/mnt", "tmpfs", 0, nullptr));
  EXPECT_KILLED(unshare(CLONE_NEWUSER));
  EXPECT_KILLED(chroot("/tmp"));
  EXPECT_KILLED(syscall(SYS_kexec_load, 0, 0, nullptr, 0));
  EXPECT_KILLED(syscall(SYS_finit_module, 0, "", 0));
  EXPECT_KILLED(syscall(SYS_keyctl, 0, 0, 0, 0, 0));
  EXPECT_KILLED(syscall(SYS_userfaultfd, 0));
  EXPECT_KILLED(setuid(0));
  static io_uring_params params{};
  EXPECT_KILLED(syscall(SYS_io_uring_setup, 1, &params));
}

#ifdef __x86_64__
void GetPidAs32Bit() {
  long result = 20;
  asm volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
}

TEST_F(ConfinementTest, TheCallsOfOtherArchitecturesAreNoWayRound) {
  constexpr long kX32 = 0x40000000;
  EXPECT_KILLED(syscall(kX32 | SYS_getpid));
  if (!HasInt80()) GTEST_SKIP() << "this machine has no int 0x80";
  EXPECT_EXIT(
      {
        Confine(Process::kEngine);
        GetPidAs32Bit();
        _exit(0);
      },
      KilledBySignal(SIGSYS), "");
}
#endif

TEST_F(ConfinementTest, WhoOpensCgroupsCanDoNextToNothingElse) {
  constexpr Process kOpener = Process::kCgroupOpener;
  EXPECT_FAILS_WITH(kOpener, ENOENT, open("/nonexistent", kCgroupOpenerFlags));
  EXPECT_FAILS_WITH(kOpener, ENOSYS, open("/etc/passwd", O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  EXPECT_FAILS_WITH(kOpener, ENOSYS, open("/dev/shm/shunt-intruder", kCgroupOpenerFlags | O_CREAT, 0600));
  EXPECT_FAILS_WITH(kOpener, ENOSYS, open("/dev/null", kCgroupOpenerFlags | O_TRUNC));
  EXPECT_FAILS_WITH(kOpener, ENOSYS, write(1, "", 0));
  EXPECT_FAILS_WITH(kOpener, ENOSYS, fork());
  EXPECT_FAILS_WITH(kOpener, ENOSYS, kill(1, 0));
  EXPECT_FAILS_WITH(kOpener, ENOSYS, socket(AF_UNIX, SOCK_STREAM, 0));
  static char name[] = "/bin/true";
  static char* const arguments[] = {name, nullptr};
  EXPECT_FAILS_WITH(kOpener, ENOSYS, execve(name, arguments, nullptr));
}

TEST_F(ConfinementTest, AnEngineWritesNoFileAndMakesNoCode) {
  EXPECT_FAILS_WITH(Process::kEngine, 0, open("/etc/passwd", O_RDONLY | O_CLOEXEC));
  EXPECT_FAILS_WITH(Process::kEngine, ENOSYS, open("/etc/passwd", O_RDWR | O_CLOEXEC));
  EXPECT_FAILS_WITH(Process::kEngine, ENOSYS, open("/dev/shm/shunt-intruder", O_RDONLY | O_CREAT, 0600));
  EXPECT_FAILS_WITH(Process::kEngine, ENOSYS, syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", nullptr, 0));
  EXPECT_FAILS_WITH(Process::kEngine, ENOSYS, rename("/dev/shm/shunt-intruder", "/dev/shm/shunt-other"));
  // Memory to hand on, yes: but what it writes there, nobody executes (below, and execve above).
  EXPECT_FAILS_WITH(Process::kKeeper, ENOSYS, syscall(SYS_memfd_create, "code", 0));
  EXPECT_FAILS_WITH(
      Process::kEngine, ENOSYS,
      (mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) ? -1
                                                                                                     : 0);
  EXPECT_FAILS_WITH(Process::kEngine, ENOSYS,
                    syscall(SYS_mprotect, uintptr_t{0}, 4096, PROT_READ | PROT_EXEC));
}

TEST_F(ConfinementTest, AnEngineForksButMakesNoNamespacesAndEntersOnlyNetworks) {
  EXPECT_EXIT(
      {
        Confine(Process::kEngine);
        const pid_t child = fork();
        if (child == 0) _exit(0);
        int status = 1;
        _exit(child > 0 && waitpid(child, &status, 0) == child ? status : 1);
      },
      ExitedWithCode(0), "");
  EXPECT_FAILS_WITH(Process::kEngine, ENOSYS, syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
  EXPECT_FAILS_WITH(Process::kEngine, ENOSYS, syscall(SYS_clone3, nullptr, 0));
  EXPECT_FAILS_WITH(Process::kEngine, ENOSYS, setns(0, CLONE_NEWNS));
  EXPECT_FAILS_WITH(Process::kEngine, ENOSYS, setns(0, 0));  // whatever the descriptor is
}

TEST_F(ConfinementTest, AnEngineHasNoSocketsButThoseOfItsWork) {
  for (const int family : {AF_INET, AF_INET6, AF_UNIX, AF_NETLINK}) {
    EXPECT_EXIT(
        {
          Confine(Process::kEngine);
          ExitWithErrno([family]() -> long { return socket(family, SOCK_DGRAM, 0); });
        },
        ExitedWithCode(0), "")
        << family;
  }
  EXPECT_FAILS_WITH(Process::kEngine, ENOSYS, socket(AF_PACKET, SOCK_RAW, 0));
  EXPECT_FAILS_WITH(Process::kEngine, ENOSYS, socket(AF_ALG, SOCK_SEQPACKET, 0));
  EXPECT_FAILS_WITH(Process::kEngine, ENOSYS, socket(AF_VSOCK, SOCK_STREAM, 0));
}

TEST_F(ConfinementTest, AnEngineWatchesDirectoriesAndNothingElseOfFiles) {
  EXPECT_FAILS_WITH(Process::kEngine, 0, inotify_init1(IN_CLOEXEC));
  EXPECT_FAILS_WITH(Process::kEngine, 0, inotify_add_watch(inotify_init1(IN_CLOEXEC), "/etc", IN_MOVED_TO));
  EXPECT_FAILS_WITH(Process::kEngine, EINVAL, inotify_rm_watch(inotify_init1(IN_CLOEXEC), 1));
  // Fanotify can watch whole file systems, and hold up those who open files.
  EXPECT_KILLED(fanotify_init(FAN_CLASS_CONTENT, O_RDONLY));
  EXPECT_FAILS_WITH(Process::kEngine, ENOSYS, fanotify_mark(0, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, "/etc"));
  EXPECT_FAILS_WITH(Process::kKeeper, ENOSYS, inotify_init1(IN_CLOEXEC));
}

TEST_F(ConfinementTest, OfBpfAnEngineHasOnlyLoading) {
  static bpf_attr attributes{};
  EXPECT_FAILS_WITH(Process::kEngine, ENOSYS,
                    syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof(attributes)));
  // The kernel refuses an empty program; the filter would say ENOSYS.
  EXPECT_EXIT(
      {
        Confine(Process::kEngine);
        ExitWithErrno([] { return syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof(attributes)); });
      },
      [](int status) { return ExitedWithCode(E2BIG)(status) || ExitedWithCode(EPERM)(status); }, "");
}

TEST_F(ConfinementTest, AKeeperCanDoNextToNothing) {
  static uint64_t id = 0;
  EXPECT_FAILS_WITH(Process::kKeeper, 0, poll(nullptr, 0, 0));
  EXPECT_FAILS_WITH(Process::kKeeper, 0, write(STDERR_FILENO, "", 0));
  EXPECT_FAILS_WITH(Process::kKeeper, 0, kill(getpid(), 0));
  EXPECT_FAILS_WITH(Process::kKeeper, ENOTSOCK, accept4(STDIN_FILENO, nullptr, nullptr, SOCK_CLOEXEC));
  EXPECT_FAILS_WITH(Process::kKeeper, ENOSYS, accept(STDIN_FILENO, nullptr, nullptr));
  EXPECT_FAILS_WITH(Process::kKeeper, ENOTTY, ioctl(STDIN_FILENO, SECCOMP_IOCTL_NOTIF_ID_VALID, &id));
  EXPECT_FAILS_WITH(Process::kKeeper, ENOSYS, ioctl(STDIN_FILENO, TIOCSTI, "x"));
  EXPECT_FAILS_WITH(Process::kKeeper, ENOSYS, open("/etc/passwd", O_RDONLY));
  EXPECT_FAILS_WITH(Process::kKeeper, ENOSYS, socket(AF_INET, SOCK_STREAM, 0));
  EXPECT_FAILS_WITH(Process::kKeeper, ENOSYS, fork());
  static char name[] = "/bin/true";
  static char* const arguments[] = {name, nullptr};
  EXPECT_FAILS_WITH(Process::kKeeper, ENOSYS, execve(name, arguments, nullptr));
  EXPECT_FAILS_WITH(Process::kKeeper, ENOSYS, ptrace(PTRACE_TRACEME, 0, nullptr, nullptr));
  EXPECT_FAILS_WITH(Process::kKeeper, ENOSYS, unlink("/dev/shm/shunt-intruder"));
  EXPECT_FAILS_WITH(
      Process::kKeeper, ENOSYS,
      (mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) ? -1
                                                                                                     : 0);
}

// The value of a field of each thread's status, numbers as the kernel writes them.
std::vector<std::string> StatusOfAllThreads(const std::string& field) {
  std::vector<std::string> values;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream status(task.path() / "status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with(field + ":\t")) values.push_back(line.substr(field.size() + 2));
    }
  }
  return values;
}

TEST_F(ConfinementTest, HoldsForThreadsThatWereThereBefore) {
  EXPECT_EXIT(
      {
        std::latch dropped(1);
        std::latch confined(1);
        std::thread reactor([&] {
          KeepCapabilities(EngineThread::kReactor).IgnoreError();
          dropped.count_down();
          confined.wait();
          chroot("/tmp");
        });
        dropped.wait();
        Confine(Process::kEngine);
        confined.count_down();
        reactor.join();
        _exit(0);
      },
      KilledBySignal(SIGSYS), "");
}

TEST_F(ConfinementTest, LeavesNoCapabilityThatIsNotNamedAndNoWayToMore) {
  EXPECT_EXIT(
      {
        Confine(Process::kEngine);
        constexpr uint64_t kMost = (uint64_t{1} << CAP_SYS_PTRACE) | (uint64_t{1} << CAP_SYS_ADMIN) |
                                   (uint64_t{1} << CAP_BPF) | (uint64_t{1} << CAP_KILL);
        for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapAmb"}) {
          for (const std::string& value : StatusOfAllThreads(set)) {
            if ((std::stoull(value, nullptr, 16) & ~kMost) != 0) _exit(1);
          }
        }
        for (const std::string& value : StatusOfAllThreads("NoNewPrivs")) {
          if (value != "1") _exit(2);
        }
        _exit(0);
      },
      ExitedWithCode(0), "");
}

TEST_F(ConfinementTest, AThreadThatHasKeptTooMuchIsReported) {
  if (geteuid() != 0) GTEST_SKIP() << "only root has capabilities to keep";
  EXPECT_EXIT(
      {
        std::latch ended(1);
        std::thread careless([&] { ended.wait(); });
        const absl::StatusOr<std::string> done = ConfineEngine();
        const bool named = !done.ok() && done.status().message().find("capabilities") != std::string::npos;
        ended.count_down();
        careless.join();
        _exit(named ? 0 : 1);
      },
      ExitedWithCode(0), "");
}

}  // namespace
}  // namespace shunt
