// SPDX-License-Identifier: Apache-2.0
// The seccomp filter of a container: which system calls are trapped, as a classic BPF program, and its
// installation.
//
// libseccomp knows the numbers; the program is our own. Its users pay for every call that the program looks
// at, and libseccomp compares one by one: a setsockopt that is none of our business ran through hundreds of
// comparisons. Here the system calls are found by bisection and sets of option names by one bit test, about
// twenty instructions in the worst case. (A call whose verdict does not depend on arguments, such as read or
// close, runs no instruction at all: the kernel evaluates such verdicts once, at installation.) On i386,
// libseccomp also turns a condition on the arguments of a socket call into a condition on socketcall(2)'s
// unrelated registers; this does not happen here.

#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/fd.h"
#include "core/result.h"

namespace shunt {

// Holds if (argument & mask) == value. Compare an `int` argument under 0xffffffff: the kernel ignores the
// upper half of the register, so a caller may leave anything there.
struct ArgCondition {
  int index;  // 0 to 5
  uint64_t mask;
  uint64_t value;

  static ArgCondition IntEquals(int index, uint32_t value) { return {index, 0xffffffffu, value}; }
  static ArgCondition FlagSet(int index, uint32_t flag) { return {index, flag, flag}; }
  friend bool operator==(const ArgCondition&, const ArgCondition&) = default;
};

// A call to notify about: all conditions hold. Several Traps of one system call mean any of them.
struct Trap {
  std::string syscall;
  std::vector<ArgCondition> all_of;
};

// A call that always fails with `error` (an errno). It wins over a Trap of the same call.
struct Deny {
  std::string syscall;
  int error;
};

// Builds the program for the machine that it runs on. On x86-64 it covers x86-64, i386 and x32; on arm64 also
// 32-bit arm; elsewhere the native interface alone. A system call of any other interface kills the process:
// no such interface exists where the table is complete, and letting one through would open a way around every
// trap.
//
// A call that one of the interfaces does not have is passed over there. Fails on a name that is no system
// call's, on an argument index that does not exist, on a condition that can never hold, and on a program
// longer than the kernel takes.
absl::StatusOr<std::vector<sock_filter>> BuildFilter(const std::vector<Trap>& traps,
                                                     const std::vector<Deny>& denies);

// The pairs (AUDIT_ARCH_..., number) that BuildFilter covers `syscall` with; none if this machine does not
// have it. An x32 number contains kX32Bit.
inline constexpr uint32_t kX32Bit = 0x40000000;
struct SyscallNumber {
  uint32_t audit_arch;
  uint32_t number;
};
std::vector<SyscallNumber> NumbersOf(const std::string& syscall);

// Every call of every interface of this machine that has a name; of several names, any. Takes milliseconds.
struct NamedCall {
  SyscallNumber number;
  std::string name;
};
std::vector<NamedCall> NamedCalls();

// How a target waits for its answer. kWaitKillable: from the moment that the notification has been received,
// only a fatal signal interrupts it (Linux 5.19).
enum class FilterWait : uint8_t { kInterruptible, kWaitKillable };

// True if the running kernel has kWaitKillable. Finds out by trying, without any effect.
bool HasWaitKillable();

// Installs the program for the calling thread, for good, and returns its listener (close-on-exec). The caller
// has CAP_SYS_ADMIN in its user namespace or has set no_new_privs; EACCES otherwise. EBUSY: a filter with a
// listener is already in force. Allocates nothing and takes no lock, so a forked child of a threaded process
// may call it.
Result<Fd> InstallFilter(std::span<const sock_filter> program, FilterWait wait);

}  // namespace shunt
