// SPDX-License-Identifier: Apache-2.0

#include "handlers/traps.h"

#include <gtest/gtest.h>
#include <linux/audit.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "net/socket_options.h"
#include "tests/support/bpf_interpreter.h"

namespace shunt {
namespace {

using ::shunt::testing::BpfOutcome;
using ::shunt::testing::RunBpf;

constexpr uint64_t kJunk =
    0xdeadbeef00000000;  // what a caller may leave in the upper half of an int's register

std::vector<sock_filter> Program(const TrapNeeds& needs = {}) {
  absl::StatusOr<std::vector<sock_filter>> program = BuildFilter(Traps(needs), Denies(needs));
  EXPECT_TRUE(program.ok()) << program.status();
  return *std::move(program);
}

BpfOutcome Outcome(const std::vector<sock_filter>& program, const SyscallNumber& number,
                   const std::vector<uint64_t>& args) {
  seccomp_data call = {};
  call.arch = number.audit_arch;
  call.nr = static_cast<int>(number.number);
  std::copy(args.begin(), args.end(), call.args);
  return RunBpf(program, call);
}

// True if it notifies in every interface that has the call, false if in none; anything else fails the test.
bool Notifies(const std::vector<sock_filter>& program, const char* syscall,
              const std::vector<uint64_t>& args = {}) {
  const std::vector<SyscallNumber> numbers = NumbersOf(syscall);
  EXPECT_FALSE(numbers.empty()) << syscall;
  size_t notified = 0;
  for (const SyscallNumber& number : numbers) {
    notified += Outcome(program, number, args).action == SECCOMP_RET_USER_NOTIF ? 1 : 0;
  }
  EXPECT_TRUE(notified == 0 || notified == numbers.size()) << syscall << " differs between the interfaces";
  return notified > 0;
}

TEST(Traps, SetsockoptNotifiesExactlyForTheRareAndTheUnreadableOptions) {
  const std::vector<sock_filter> program = Program();
  int trapped = 0;
  for (int level = 0; level <= 50; ++level) {
    for (int name = 0; name <= 100; ++name) {
      const net::SocketOption* option = net::FindSocketOption(level, name);
      const bool expected = option != nullptr && option->use != net::OptionUse::kHot;
      for (const uint64_t junk : {uint64_t{0}, kJunk}) {
        const std::vector<uint64_t> args = {3, junk + static_cast<uint32_t>(level),
                                            junk + static_cast<uint32_t>(name), 0, 4};
        ASSERT_EQ(Notifies(program, "setsockopt", args), expected) << "level " << level << " name " << name;
      }
      trapped += expected ? 1 : 0;
    }
  }
  EXPECT_GT(trapped, 80);
  for (const uint64_t odd : {uint64_t{0x7fffffff}, uint64_t{0x80000000}, uint64_t{0xffffffff}}) {
    EXPECT_FALSE(Notifies(program, "setsockopt", {3, odd, 15}));
    EXPECT_FALSE(Notifies(program, "setsockopt", {3, 1, odd}));
  }
}

TEST(Traps, TheCommonOptionsAreNeverTrapped) {
  const std::vector<sock_filter> program = Program();
  struct Pair {
    int level;
    int name;
  };
  // SO_REUSEADDR SO_SNDBUF SO_RCVBUF SO_KEEPALIVE SO_LINGER SO_PASSCRED SO_RCVTIMEO SO_SNDTIMEO
  // and their new numbers, TCP_NODELAY TCP_CORK TCP_KEEP* TCP_QUICKACK, IPV6_V6ONLY.
  for (const Pair& pair : {Pair{1, 2},
                           {1, 7},
                           {1, 8},
                           {1, 9},
                           {1, 13},
                           {1, 16},
                           {1, 20},
                           {1, 21},
                           {1, 66},
                           {1, 67},
                           {6, 1},
                           {6, 3},
                           {6, 4},
                           {6, 5},
                           {6, 6},
                           {6, 12},
                           {41, 26}}) {
    EXPECT_FALSE(Notifies(program, "setsockopt",
                          {3, static_cast<uint64_t>(pair.level), static_cast<uint64_t>(pair.name)}))
        << pair.level << " " << pair.name;
  }
}

TEST(Traps, ASetsockoptThatIsNoneOfOurBusinessCostsAtMostThirtyInstructions) {
  const std::vector<sock_filter> program = Program({.renumbered = true});
  int longest = 0;
  for (const SyscallNumber& number : NumbersOf("setsockopt")) {
    for (uint64_t level = 0; level <= 50; ++level) {
      for (uint64_t name = 0; name <= 100; ++name) {
        longest = std::max(longest, Outcome(program, number, {3, level, name}).instructions);
      }
    }
  }
  RecordProperty("longest", longest);
  EXPECT_LE(longest, 30);
}

TEST(Traps, SendsAreTrappedOnlyIfTheyConnect) {
  const std::vector<sock_filter> program = Program();
  for (const uint64_t others :
       {uint64_t{0}, uint64_t{MSG_NOSIGNAL | MSG_DONTWAIT}, uint64_t{0xdfffffff}, kJunk}) {
    const uint64_t fast_open = others | MSG_FASTOPEN;
    EXPECT_FALSE(Notifies(program, "sendto", {3, 0, 0, others}));
    EXPECT_TRUE(Notifies(program, "sendto", {3, 0, 0, fast_open}));
    EXPECT_FALSE(Notifies(program, "sendmsg", {3, 0, others, ~uint64_t{0}}));
    EXPECT_TRUE(Notifies(program, "sendmsg", {3, 0, fast_open}));
    EXPECT_FALSE(Notifies(program, "sendmmsg", {3, 0, ~uint64_t{0}, others}));
    EXPECT_TRUE(Notifies(program, "sendmmsg", {3, 0, 1, fast_open}));
  }
}

TEST(Traps, WhatMayMoveASocketAndEpollCreationAreAlwaysTrapped) {
  const std::vector<sock_filter> program = Program({.renumbered = false});
  EXPECT_TRUE(Notifies(program, "bind"));
  EXPECT_TRUE(Notifies(program, "listen"));
  EXPECT_TRUE(Notifies(program, "connect"));
  EXPECT_TRUE(Notifies(program, "epoll_create"));
  EXPECT_TRUE(Notifies(program, "epoll_create1"));
}

TEST(Traps, GetsocknameIsTrappedIfAPortIsPublishedUnderAnotherNumber) {
  EXPECT_FALSE(Notifies(Program({.renumbered = false}), "getsockname"));
  EXPECT_TRUE(Notifies(Program({.renumbered = true}), "getsockname"));
}

TEST(Traps, SocketcallNotifiesForTheSameCallsAsTheDirectWay) {
  const auto trapped = [](const TrapNeeds& needs) {
    const std::vector<sock_filter> program = Program(needs);
    std::set<uint64_t> calls;
    for (uint64_t call = 0; call <= 64; ++call) {
      // The registers behind the first are no arguments here and must not matter.
      if (Notifies(program, "socketcall", {kJunk + call, 1, 15, MSG_FASTOPEN})) calls.insert(call);
    }
    return calls;
  };
  EXPECT_EQ(trapped({.renumbered = true}), (std::set<uint64_t>{2, 3, 4, 6, 14}));
  EXPECT_EQ(trapped({.renumbered = false}), (std::set<uint64_t>{2, 3, 4, 14}));
}

TEST(Traps, IoUringIsAnsweredAsByAKernelWithoutIt) {
  const std::vector<sock_filter> program = Program();
  for (const SyscallNumber& number : NumbersOf("io_uring_setup")) {
    EXPECT_EQ(Outcome(program, number, {}).action, SECCOMP_RET_ERRNO | ENOSYS);
  }
}

TEST(Traps, NothingElseIsTrappedInAnyInterface) {
  const std::vector<sock_filter> program = Program({.renumbered = true});
  std::set<std::pair<uint32_t, uint32_t>> ours;
  for (const char* name : {"connect", "bind", "listen", "epoll_create", "epoll_create1", "sendto", "sendmsg",
                           "sendmmsg", "setsockopt", "getsockname", "socketcall", "io_uring_setup"}) {
    for (const SyscallNumber& number : NumbersOf(name)) ours.emplace(number.audit_arch, number.number);
  }
  for (const uint32_t arch : std::initializer_list<uint32_t>{AUDIT_ARCH_X86_64, AUDIT_ARCH_I386}) {
    for (const uint32_t base : {0u, 0x40000000u}) {
      for (uint32_t number = base; number < base + 1024; ++number) {
        if (ours.count({arch, number}) > 0) continue;
        for (const uint64_t arg : {uint64_t{0}, uint64_t{3}, ~uint64_t{0}}) {
          ASSERT_EQ(Outcome(program, {arch, number}, std::vector<uint64_t>(6, arg)).action, SECCOMP_RET_ALLOW)
              << number;
        }
      }
    }
  }
}

TEST(Traps, EveryInstructionOfTheFilterIsReached) {
  const std::vector<sock_filter> program = Program({.renumbered = true});
  std::set<size_t> visited;
  const auto run = [&](uint32_t arch, uint32_t number, const std::vector<uint64_t>& args) {
    seccomp_data call = {};
    call.arch = arch;
    call.nr = static_cast<int>(number);
    std::copy(args.begin(), args.end(), call.args);
    RunBpf(program, call, &visited);
  };
  for (const uint32_t arch :
       std::initializer_list<uint32_t>{AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64}) {
    for (const uint32_t base : {0u, 0x40000000u}) {
      for (uint32_t number = base; number < base + 1024; ++number) {
        run(arch, number, {});
        run(arch, number, std::vector<uint64_t>(6, MSG_FASTOPEN));
      }
    }
  }
  for (const SyscallNumber& number : NumbersOf("setsockopt")) {
    for (uint64_t level = 0; level <= 50; ++level) {
      for (uint64_t name = 0; name <= 100; ++name) run(number.audit_arch, number.number, {3, level, name});
    }
  }
  for (uint64_t call = 0; call < 32; ++call) run(AUDIT_ARCH_I386, 102, {call});
  for (size_t at = 0; at < program.size(); ++at) {
    // Between trapped calls with adjacent numbers (i386: bind, connect, listen) no number is left that would
    // miss them, so a far jump for the misses may lie idle.
    if (program[at].code == (BPF_JMP | BPF_JA)) continue;
    EXPECT_TRUE(visited.count(at) > 0)
        << "instruction " << at << ": code " << program[at].code << " k " << program[at].k;
  }
}

}  // namespace
}  // namespace shunt
