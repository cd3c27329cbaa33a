// SPDX-License-Identifier: Apache-2.0
// Programs that begin later, on the real kernel.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/guest_container.h"
#include "tests/support/int80.h"
#include "tests/support/shared.h"

namespace shunt {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr char kTrue[] = "/bin/true";
constexpr char kFalse[] = "/bin/false";

GuestOptions Delaying(milliseconds delay, milliseconds start = {}) {
  GuestOptions options;
  options.traps = {{"execve", {}}, {"execveat", {}}, {"acct", {}}};
  options.policy.exec_pattern = kTrue;
  options.policy.exec_delay = delay;
  options.policy.start_delay = start;
  return options;
}

int Exec(const char* path) {
  std::array<char*, 2> argv{const_cast<char*>(path), nullptr};
  std::array<char*, 1> envp{};
  return static_cast<int>(syscall(SYS_execve, path, argv.data(), envp.data()));
}

int ExecAt(const char* path) {
  std::array<char*, 2> argv{const_cast<char*>(path), nullptr};
  std::array<char*, 1> envp{};
  return static_cast<int>(syscall(SYS_execveat, AT_FDCWD, path, argv.data(), envp.data(), 0));
}

pid_t Spawn(int (*exec)(const char*), const char* path) {
  const pid_t pid = fork();
  if (pid != 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  exec(path);
  _exit(99);
}

int StatusOf(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

TEST(Exec, DelaysTheProgramOfThePatternAndNoOther) {
  for (const bool killable : {false, true}) {
    GuestOptions options = Delaying(milliseconds(300));
    options.wait_killable = killable;
    GuestContainer container(options);
    const int result = container.Run([] {
      const auto start = Clock::now();
      if (StatusOf(Spawn(Exec, kFalse)) != 1) return 1;
      if (StatusOf(Spawn(Exec, kTrue)) != 0) return 2;
      if (StatusOf(Spawn(ExecAt, kTrue)) != 0) return 3;
      return Clock::now() - start >= milliseconds(600) ? 0 : 4;
    });
    EXPECT_EQ(result, 0) << container.error();
    EXPECT_EQ(container.Counted(Counter::waits_begun), 2u);
  }
}

TEST(Exec, DelaysNothingElseOfTheContainerNorEachOther) {
  GuestContainer container(Delaying(milliseconds(2000)));
  const int result = container.Run([] {
    const auto start = Clock::now();
    std::array<pid_t, 4> delayed{};
    for (pid_t& pid : delayed) pid = Spawn(Exec, kTrue);
    std::vector<std::thread> threads;
    std::atomic<int> answered = 0;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&answered] {
        for (int call = 0; call < 100; ++call) {
          syscall(SYS_acct, nullptr);
          ++answered;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    if (answered != 400) return 1;
    for (const pid_t pid : delayed) {
      if (waitpid(pid, nullptr, WNOHANG) != 0) return 2;  // all of that has overtaken them
    }
    for (const pid_t pid : delayed) {
      if (StatusOf(pid) != 0) return 3;
    }
    const auto took = Clock::now() - start;
    return took >= milliseconds(2000) && took < milliseconds(4000) ? 0 : 4;
  });
  EXPECT_EQ(result, 0) << container.error();
  EXPECT_EQ(container.Counted(Counter::waits_begun), 4u);
}

TEST(Exec, WaitsForWhatIsLeftWhenASignalHasInterruptedIt) {
  GuestContainer container(Delaying(milliseconds(1000)));
  const int result = container.Run([] {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &action, nullptr);
    const auto start = Clock::now();
    const pid_t delayed = Spawn(Exec, kTrue);
    int sent = 0;
    while (waitpid(delayed, nullptr, WNOHANG) == 0) {
      // Not near the end: the program that it becomes has no handler.
      if (Clock::now() - start < milliseconds(800)) {
        kill(delayed, SIGUSR1);
        ++sent;
      }
      usleep(20'000);  // the pace of the signals
    }
    const auto took = Clock::now() - start;
    if (sent < 10) return 1;
    return took >= milliseconds(1000) && took < milliseconds(1700) ? 0 : 2;
  });
  EXPECT_EQ(result, 0) << container.error();
  EXPECT_GT(container.Counted(Counter::waits_begun), 10u);
}

TEST(Exec, BeginsAnewForTheNextProgramOfTheSameProcess) {
  GuestContainer container(Delaying(milliseconds(300)));
  const int result = container.Run([] {
    // The kernel refuses the first one after its wait: no arguments can be read at this address.
    const auto start = Clock::now();
    if (syscall(SYS_execve, kTrue, 8, nullptr) != -1 || errno != EFAULT) return 1;
    if (StatusOf(Spawn(Exec, kTrue)) != 0) return 2;
    if (syscall(SYS_execve, kTrue, 8, nullptr) != -1 || errno != EFAULT) return 3;
    return Clock::now() - start >= milliseconds(900) ? 0 : 4;
  });
  EXPECT_EQ(result, 0) << container.error();
}

TEST(Exec, HoldsTheFirstProgramUntilTheContainerIsOldEnough) {
  GuestContainer container(Delaying({}, milliseconds(1500)));
  const auto start = Clock::now();
  const int result = container.Run([] {
    const auto begin = Clock::now();
    if (StatusOf(Spawn(Exec, kFalse)) != 1) return 1;
    if (Clock::now() - begin > milliseconds(1000)) return 2;  // it is not the first process
    Exec(kTrue);
    return 99;
  });
  EXPECT_EQ(result, 0) << container.error();
  EXPECT_GE(Clock::now() - start, milliseconds(1500));
  EXPECT_EQ(container.Counted(Counter::waits_begun), 1u);
}

TEST(Exec, LeavesWhatCannotBeReadToTheKernel) {
  GuestContainer container(Delaying(milliseconds(60'000)));
  const int result = container.Run([] {
    if (Exec(nullptr) != -1 || errno != EFAULT) return 1;
    if (Exec(reinterpret_cast<const char*>(8)) != -1 || errno != EFAULT) return 2;
    char* const pages =
        static_cast<char*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    munmap(pages + 4096, 4096);
    memcpy(pages + 4096 - 9, kTrue, 9);  // no NUL before the page ends
    if (Exec(pages + 4096 - 9) != -1 || errno != EFAULT) return 3;
    const std::string longest(5000, 'x');
    if (Exec(longest.c_str()) != -1 || errno != ENAMETOOLONG) return 4;
    return Exec("") == -1 && errno == ENOENT ? 0 : 5;
  });
  EXPECT_EQ(result, 0) << container.error();
  EXPECT_EQ(container.Counted(Counter::waits_begun), 0u);
}

TEST(Exec, ReadsAPathThatCrossesAPage) {
  GuestContainer container(Delaying(milliseconds(50)));
  const int result = container.Run([] {
    char* const pages =
        static_cast<char*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    memcpy(pages + 4096 - 4, kTrue, sizeof(kTrue));
    return StatusOf(Spawn(Exec, pages + 4096 - 4));
  });
  EXPECT_EQ(result, 0) << container.error();
  EXPECT_EQ(container.Counted(Counter::waits_begun), 1u);
}

// A container that is told when one of its calls waits in the engine.
class Observed {
 public:
  explicit Observed(milliseconds delay) {
    GuestOptions options = Delaying(delay);
    options.meanwhile = [this](pid_t) {
      if (container->Counted(Counter::waits_begun) > 0) *waits_ = true;
    };
    container.emplace(std::move(options));
  }

  // Inside.
  void UntilItWaits() const {
    while (!*waits_) sched_yield();
  }

  std::optional<GuestContainer> container;

 private:
  Shared<std::atomic<bool>> waits_;
};

// The program that the kernel runs is the one that is there afterwards: it was free to run that anyway.
TEST(Exec, RunsWhatIsThereWhenTheDelayIsOver) {
  Observed observed(milliseconds(300));
  const int result = observed.container->Run([&observed] {
    char* const path =
        static_cast<char*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    strcpy(path, kTrue);
    const auto start = Clock::now();
    const pid_t pid = Spawn(Exec, path);
    observed.UntilItWaits();
    strcpy(path, kFalse);
    if (StatusOf(pid) != 1) return 1;
    return Clock::now() - start >= milliseconds(300) ? 0 : 2;
  });
  EXPECT_EQ(result, 0) << observed.container->error();
}

TEST(Exec, EndsItsWaitsWithTheContainer) {
  Observed observed(milliseconds(3'600'000));
  const int result = observed.container->Run([&observed] {
    const pid_t pid = Spawn(Exec, kTrue);
    observed.UntilItWaits();
    kill(pid, SIGKILL);
    return StatusOf(pid) == 128 ? 0 : 1;
  });
  EXPECT_EQ(result, 0) << observed.container->error();
  EXPECT_EQ(observed.container->Counted(Counter::waits_begun), 1u);
  EXPECT_EQ(observed.container->Counted(Counter::waits_ended), 1u);
}

TEST(Exec, WaitsForWhatIsLeftWhenItsEngineHasDied) {
  for (const bool signals : {false, true}) {
    GuestOptions options = Delaying(milliseconds(1000));
    const auto start = Clock::now();
    bool died = false;
    options.engine_dies = [&] { return !died && (died = Clock::now() - start > milliseconds(500)); };
    GuestContainer container(options);
    const int result = container.Run([&] {
      struct sigaction action {};
      action.sa_handler = [](int) {};
      action.sa_flags = SA_RESTART;
      sigaction(SIGUSR1, &action, nullptr);
      const auto begin = Clock::now();
      const pid_t delayed = Spawn(Exec, kTrue);
      while (signals && Clock::now() - begin < milliseconds(800)) {
        usleep(20'000);
        kill(delayed, SIGUSR1);
      }
      if (StatusOf(delayed) != 0) return 1;
      const auto took = Clock::now() - begin;
      return took >= milliseconds(1000) && took < milliseconds(1450) ? 0 : 2;
    });
    EXPECT_EQ(result, 0) << container.error();
    EXPECT_TRUE(died);
  }
}

#ifdef __x86_64__
// Through the other two interfaces of the machine. What the kernel makes of it afterwards depends on its
// configuration; that it comes to us does not.
TEST(Exec, DelaysTheProgramsOfI386AndX32) {
  if (!HasInt80()) GTEST_SKIP() << "this machine has no int 0x80";
  GuestContainer container(Delaying(milliseconds(200)));
  const int result = container.Run([] {
    char* const low = static_cast<char*>(
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0));
    strcpy(low, kTrue);
    const auto start = Clock::now();
    long returned = 11;
    asm volatile("int $0x80"
                 : "+a"(returned)
                 : "b"(low), "c"(8), "d"(0)
                 : "memory", "r8", "r9", "r10", "r11");
    if (returned != -EFAULT && returned != -ENOSYS) return 1;
    syscall(0x40000000 + 520, low, 8, nullptr);
    return Clock::now() - start >= milliseconds(400) ? 0 : 2;
  });
  EXPECT_EQ(result, 0) << container.error();
  EXPECT_EQ(container.Counted(Counter::waits_begun), 2u);
}
#endif

}  // namespace
}  // namespace shunt
