// SPDX-License-Identifier: Apache-2.0

#include "core/filter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>
#include <set>

#include "tests/support/bpf_interpreter.h"

namespace shunt {
namespace {

using ::shunt::testing::BpfOutcome;
using ::shunt::testing::RunBpf;
using ::testing::HasSubstr;

constexpr uint32_t kX32 = 0x40000000;

std::vector<sock_filter> Build(const std::vector<Trap>& traps, const std::vector<Deny>& denies = {}) {
  absl::StatusOr<std::vector<sock_filter>> program = BuildFilter(traps, denies);
  EXPECT_TRUE(program.ok()) << program.status();
  return *std::move(program);
}

seccomp_data Call(uint32_t arch, uint32_t number, const std::vector<uint64_t>& args = {}) {
  seccomp_data call = {};
  call.arch = arch;
  call.nr = static_cast<int>(number);
  std::copy(args.begin(), args.end(), call.args);
  return call;
}

uint32_t ActionOf(const std::vector<sock_filter>& program, uint32_t arch, uint32_t number,
                  const std::vector<uint64_t>& args = {}) {
  return RunBpf(program, Call(arch, number, args)).action;
}

TEST(Filter, NotifiesAboutATrappedCallInEachOfTheThreeX86Interfaces) {
  const std::vector<sock_filter> program = Build({{"connect", {}}, {"setsockopt", {}}});
  // Numbers from the kernel's tables: x32 has its own setsockopt.
  EXPECT_EQ(ActionOf(program, AUDIT_ARCH_X86_64, 42), SECCOMP_RET_USER_NOTIF);
  EXPECT_EQ(ActionOf(program, AUDIT_ARCH_X86_64, kX32 + 42), SECCOMP_RET_USER_NOTIF);
  EXPECT_EQ(ActionOf(program, AUDIT_ARCH_I386, 362), SECCOMP_RET_USER_NOTIF);
  EXPECT_EQ(ActionOf(program, AUDIT_ARCH_X86_64, 54), SECCOMP_RET_USER_NOTIF);
  EXPECT_EQ(ActionOf(program, AUDIT_ARCH_X86_64, kX32 + 541), SECCOMP_RET_USER_NOTIF);
  EXPECT_EQ(ActionOf(program, AUDIT_ARCH_I386, 366), SECCOMP_RET_USER_NOTIF);
}

TEST(Filter, AllowsEveryOtherNumberWhateverItsArgumentsAre) {
  const std::vector<sock_filter> program =
      Build({{"connect", {}}, {"sendto", {ArgCondition::FlagSet(3, 0x20000000)}}, {"socketcall", {}}});
  std::set<std::pair<uint32_t, uint32_t>> trapped;
  for (const char* name : {"connect", "sendto", "socketcall"}) {
    for (const auto& [arch, number] : NumbersOf(name)) trapped.emplace(arch, number);
  }
  ASSERT_EQ(trapped.size(), 7u);  // socketcall exists on i386 alone
  const std::vector<uint64_t> args(6, ~uint64_t{0});
  for (const uint32_t arch : std::initializer_list<uint32_t>{AUDIT_ARCH_X86_64, AUDIT_ARCH_I386}) {
    for (const uint32_t base : {0u, kX32, 0xfffff000u}) {
      for (uint32_t offset = 0; offset < 0x1000; ++offset) {
        const uint32_t number = base + offset;
        const uint32_t expected =
            trapped.count({arch, number}) > 0 ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_ALLOW;
        ASSERT_EQ(ActionOf(program, arch, number, args), expected) << "arch " << arch << " number " << number;
      }
    }
  }
}

TEST(Filter, KillsACallOfAnInterfaceThatThisMachineDoesNotHave) {
  const std::vector<sock_filter> program = Build({{"connect", {}}});
  EXPECT_EQ(ActionOf(program, AUDIT_ARCH_AARCH64, 203), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(ActionOf(program, 0, 0), SECCOMP_RET_KILL_PROCESS);
}

TEST(Filter, RefusesADeniedCallEvenIfItIsTrappedToo) {
  const std::vector<sock_filter> program = Build({{"io_uring_setup", {}}}, {{"io_uring_setup", ENOSYS}});
  EXPECT_EQ(ActionOf(program, AUDIT_ARCH_X86_64, 425), SECCOMP_RET_ERRNO | ENOSYS);
  EXPECT_EQ(ActionOf(program, AUDIT_ARCH_X86_64, kX32 + 425), SECCOMP_RET_ERRNO | ENOSYS);
  EXPECT_EQ(ActionOf(program, AUDIT_ARCH_I386, 425), SECCOMP_RET_ERRNO | ENOSYS);
}

// The kernel evaluates a filter's verdict for a number once, when it is installed, and never runs it for that
// number if it reads no argument. That, not the length of the program, makes read and close free.
TEST(Filter, DecidesAnUntrappedCallByItsNumberAlone) {
  std::vector<Trap> traps = {{"connect", {}}, {"setsockopt", {ArgCondition::IntEquals(1, 6)}},
                             {"bind", {}},    {"sendto", {ArgCondition::FlagSet(3, 0x20000000)}},
                             {"listen", {}},  {"epoll_create1", {}}};
  const std::vector<sock_filter> program = Build(traps);
  for (const uint32_t number :
       {SYS_read, SYS_write, SYS_close, SYS_fcntl, SYS_exit, SYS_recvfrom, SYS_getsockopt}) {
    std::set<size_t> visited;
    const BpfOutcome outcome = RunBpf(program, Call(AUDIT_ARCH_X86_64, number), &visited);
    EXPECT_EQ(outcome.action, SECCOMP_RET_ALLOW);
    EXPECT_LE(outcome.instructions, 10) << number;
    for (const size_t at : visited) {
      const sock_filter& instruction = program[at];
      if (BPF_CLASS(instruction.code) == BPF_LD) {
        EXPECT_LT(instruction.k, offsetof(seccomp_data, instruction_pointer)) << number;
      }
    }
  }
}

bool Holds(const Trap& trap, const seccomp_data& call) {
  return std::all_of(trap.all_of.begin(), trap.all_of.end(), [&](const ArgCondition& condition) {
    return (call.args[condition.index] & condition.mask) == condition.value;
  });
}

uint64_t Pick(std::mt19937_64& random, std::initializer_list<uint64_t> values) {
  return *(values.begin() + random() % values.size());
}

// Random alternatives of random conditions against their plain meaning. Few distinct indices, masks and
// values, so that alternatives share beginnings, contradict each other, and hit the edges of words.
TEST(Filter, MeansWhatItsConditionsSay) {
  std::mt19937_64 random(20240607);
  for (int round = 0; round < 300; ++round) {
    std::vector<Trap> traps;
    const size_t alternatives = 1 + random() % 40;
    for (size_t i = 0; i < alternatives; ++i) {
      Trap trap{"setsockopt", {}};
      const size_t conditions = random() % 40 == 0 ? 0 : 1 + random() % 3;
      for (size_t j = 0; j < conditions; ++j) {
        const uint64_t mask =
            Pick(random, {0xffffffff, 0xffffffff, ~uint64_t{0}, 0x20000000, 0xf0, uint64_t{1} << 40});
        const uint64_t value =
            Pick(random, {0, 1, 2, 31, 32, 33, 63, 64, 0x7f, 0xffffffff, 0x20000000, uint64_t{1} << 32,
                          (uint64_t{1} << 40) + 5, ~uint64_t{0}, random() % 128});
        trap.all_of.push_back({static_cast<int>(random() % 3), mask, value & mask});
      }
      traps.push_back(trap);
    }
    const std::vector<sock_filter> program = Build(traps);
    for (int probe = 0; probe < 2000; ++probe) {
      seccomp_data call = Call(AUDIT_ARCH_X86_64, SYS_setsockopt);
      for (auto& arg : call.args) {
        arg = Pick(random, {0, 1, 2, 31, 32, 33, 63, 64, 0xffffffff, uint64_t{1} << 32, uint64_t{1} << 40,
                            random() % 128, random(), ~uint64_t{0}});
      }
      const Trap& near = traps[random() % traps.size()];  // half of the probes fulfil one alternative
      for (const ArgCondition& condition : near.all_of) {
        if (probe % 2 == 0)
          call.args[condition.index] = (call.args[condition.index] & ~condition.mask) | condition.value;
      }
      const bool expected =
          std::any_of(traps.begin(), traps.end(), [&](const Trap& trap) { return Holds(trap, call); });
      ASSERT_EQ(RunBpf(program, call).action, expected ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_ALLOW)
          << "round " << round << " args " << call.args[0] << " " << call.args[1] << " " << call.args[2];
    }
  }
}

TEST(Filter, ComparesTheUpperHalfTooWhereTheMaskCoversIt) {
  std::vector<Trap> traps;
  for (const uint64_t value : {3, 5, 40}) traps.push_back({"connect", {{1, ~uint64_t{0}, value}}});
  const std::vector<sock_filter> program = Build(traps);
  for (const uint64_t value : {3, 5, 40}) {
    EXPECT_EQ(ActionOf(program, AUDIT_ARCH_X86_64, 42, {0, value}), SECCOMP_RET_USER_NOTIF);
    EXPECT_EQ(ActionOf(program, AUDIT_ARCH_X86_64, 42, {0, value + (uint64_t{1} << 32)}), SECCOMP_RET_ALLOW);
  }
}

TEST(Filter, JumpsAcrossMoreInstructionsThanAConditionalJumpReaches) {
  std::vector<Trap> traps;
  for (const char* name : {"connect", "bind", "setsockopt", "sendto", "read", "write", "mmap"}) {
    for (uint64_t value = 0; value < 30; ++value) {
      traps.push_back({name, {ArgCondition::IntEquals(0, 7), {1, ~uint64_t{0}, value << 31}}});
    }
  }
  const std::vector<sock_filter> program = Build(traps);
  ASSERT_GT(program.size(), 2000u);
  for (const char* name : {"connect", "bind", "setsockopt", "sendto", "read", "write", "mmap"}) {
    for (const auto& [arch, number] : NumbersOf(name)) {
      for (uint64_t value = 0; value < 30; ++value) {
        ASSERT_EQ(ActionOf(program, arch, number, {7, value << 31}), SECCOMP_RET_USER_NOTIF) << name << value;
        ASSERT_EQ(ActionOf(program, arch, number, {8, value << 31}), SECCOMP_RET_ALLOW) << name << value;
        ASSERT_EQ(ActionOf(program, arch, number, {7, (value << 31) + 1}), SECCOMP_RET_ALLOW)
            << name << value;
      }
    }
  }
  EXPECT_EQ(ActionOf(program, AUDIT_ARCH_X86_64, SYS_close, {7, 0}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(ActionOf(program, AUDIT_ARCH_AARCH64, SYS_close, {7, 0}), SECCOMP_RET_KILL_PROCESS);
}

TEST(Filter, NamesWhatIsWrongWithATrap) {
  const auto message = [](const std::vector<Trap>& traps, const std::vector<Deny>& denies = {}) {
    return std::string(BuildFilter(traps, denies).status().message());
  };
  EXPECT_THAT(message({{"moutn", {}}}), HasSubstr("moutn"));
  EXPECT_THAT(message({{"connect", {ArgCondition::IntEquals(6, 0)}}}), HasSubstr("arguments 0 to 5, not 6"));
  EXPECT_THAT(message({{"connect", {{0, 0xf0, 0x01}}}}), HasSubstr("can never be 0x1 under the mask 0xf0"));
  EXPECT_THAT(message({}, {{"nonsense", EPERM}}), HasSubstr("nonsense"));
  EXPECT_THAT(message({}, {{"connect", 4096}}), HasSubstr("4096 is no errno"));
  std::vector<Trap> endless;
  for (uint64_t i = 0; i < 2000; ++i) endless.push_back({"connect", {{0, ~uint64_t{0}, i << 33}}});
  EXPECT_THAT(message(endless), HasSubstr("the kernel takes 4096"));
}

// A child that installs `program` and then makes one socket and one call of setsockopt(fd, level, name).
struct Child {
  pid_t pid;
  Fd listener;  // invalid: installation failed
};

Fd ReceiveFd(int socket) {
  char byte;
  iovec data = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message = {
      .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1) return Fd();
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr) return Fd();
  int fd;
  std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return Fd(fd);
}

void SendFd(int socket, int fd) {
  char byte = 0;
  iovec data = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {
      .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  sendmsg(socket, &message, 0);
}

// The child exits with the result of getsockopt-like probes: 0 if the trapped call returned what the parent
// answers.
Child StartTrappedChild(const std::vector<sock_filter>& program, FilterWait wait, int answer) {
  int pair[2];
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  const Fd ours(pair[0]);
  const Fd theirs(pair[1]);
  const pid_t pid = fork();
  if (pid == 0) {
    alarm(20);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) _exit(101);
    Result<Fd> listener = InstallFilter(program, wait);
    if (!listener.has_value()) _exit(102);
    if (InstallFilter(program, wait).has_value() || errno != EBUSY) _exit(103);
    SendFd(theirs.get(), listener->get());
    listener->reset();
    if (getpid() <= 0 || close(-1) != -1 || errno != EBADF) _exit(104);  // not trapped: nobody has to answer
    _exit(syscall(SYS_epoll_create1, 0) == answer ? 0 : 105);
  }
  return {pid, ReceiveFd(ours.get())};
}

void AnswerOne(const Child& child, int answer) {
  pollfd readable = {child.listener.get(), POLLIN, 0};
  ASSERT_EQ(poll(&readable, 1, 20000), 1);
  ASSERT_TRUE((readable.revents & POLLIN) != 0);
  seccomp_notif notification = {};
  ASSERT_EQ(ioctl(child.listener.get(), SECCOMP_IOCTL_NOTIF_RECV, &notification), 0);
  EXPECT_EQ(notification.data.nr, SYS_epoll_create1);
  EXPECT_EQ(static_cast<pid_t>(notification.pid), child.pid);
  seccomp_notif_resp response = {.id = notification.id, .val = answer, .error = 0, .flags = 0};
  ASSERT_EQ(ioctl(child.listener.get(), SECCOMP_IOCTL_NOTIF_SEND, &response), 0);
}

int WaitFor(pid_t pid) {
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(Filter, TheKernelTakesItAndGivesItsListener) {
  const std::vector<sock_filter> program = Build({{"epoll_create1", {}}}, {{"io_uring_setup", ENOSYS}});
  const Child child = StartTrappedChild(program, FilterWait::kInterruptible, 4711);
  ASSERT_TRUE(child.listener.valid()) << WaitFor(child.pid);
  AnswerOne(child, 4711);
  EXPECT_EQ(WaitFor(child.pid), 0);
}

TEST(Filter, CanMakeTargetsWaitForFatalSignalsOnly) {
  if (!HasWaitKillable())
    GTEST_SKIP() << "this kernel has no SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (Linux 5.19)";
  const std::vector<sock_filter> program = Build({{"epoll_create1", {}}});
  const Child child = StartTrappedChild(program, FilterWait::kWaitKillable, 815);
  ASSERT_TRUE(child.listener.valid()) << WaitFor(child.pid);
  AnswerOne(child, 815);
  EXPECT_EQ(WaitFor(child.pid), 0);
}

TEST(Filter, TellsTheErrnoOfAFailedInstallation) {
  const std::vector<sock_filter> nothing;
  const Result<Fd> listener = InstallFilter(nothing, FilterWait::kInterruptible);
  ASSERT_FALSE(listener.has_value());
  EXPECT_EQ(listener.error(), Errno{EINVAL});
}

}  // namespace
}  // namespace shunt
