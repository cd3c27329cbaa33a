// SPDX-License-Identifier: Apache-2.0

#include "core/filter.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace shunt {
namespace {

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

// One system call interface of this machine.
struct Abi {
  uint32_t audit_arch;
  uint32_t scmp_arch;
};

#if defined(__x86_64__)
constexpr Abi kAbis[] = {{AUDIT_ARCH_X86_64, SCMP_ARCH_X86_64},
                         {AUDIT_ARCH_X86_64, SCMP_ARCH_X32},
                         {AUDIT_ARCH_I386, SCMP_ARCH_X86}};
#elif defined(__aarch64__)
constexpr Abi kAbis[] = {{AUDIT_ARCH_AARCH64, SCMP_ARCH_AARCH64}, {AUDIT_ARCH_ARM, SCMP_ARCH_ARM}};
#else
// libseccomp's tokens are the kernel's AUDIT_ARCH values, but for x32.
const Abi kAbis[] = {{seccomp_arch_native(), seccomp_arch_native()}};
#endif

// libseccomp answers these with a number of its own on i386, where socketcall(2) is the older way to them.
constexpr std::pair<const char*, uint32_t> kI386SocketCalls[] = {
    {"sendmmsg", 345},    {"recvmmsg", 337},    {"socket", 359},  {"socketpair", 360}, {"bind", 361},
    {"connect", 362},     {"listen", 363},      {"accept4", 364}, {"getsockopt", 365}, {"setsockopt", 366},
    {"getsockname", 367}, {"getpeername", 368}, {"sendto", 369},  {"sendmsg", 370},    {"recvfrom", 371},
    {"recvmsg", 372},     {"shutdown", 373}};

// Calls that Debian 12's libseccomp does not know. Those of the last years have one number everywhere.
constexpr std::pair<const char*, uint32_t> kNewerCalls[] = {{"fchmodat2", 452},     {"setxattrat", 463},
                                                            {"getxattrat", 464},    {"listxattrat", 465},
                                                            {"removexattrat", 466}, {"open_tree_attr", 467}};

std::optional<uint32_t> NumberOf(const std::string& syscall, const Abi& abi) {
  if (abi.scmp_arch == SCMP_ARCH_X86) {
    for (const auto& [name, number] : kI386SocketCalls) {
      if (syscall == name) return number;
    }
  }
  const int number = seccomp_syscall_resolve_name_arch(abi.scmp_arch, syscall.c_str());
  if (number >= 0) return static_cast<uint32_t>(number);
  for (const auto& [name, common] : kNewerCalls) {
    if (syscall == name) return common | (abi.scmp_arch == SCMP_ARCH_X32 ? kX32Bit : 0);
  }
  return std::nullopt;
}

// True for the name of a system call, even of one that this machine does not have (socketcall on arm64).
bool IsSyscallName(const std::string& syscall) {
  return seccomp_syscall_resolve_name_arch(kAbis[0].scmp_arch, syscall.c_str()) != __NR_SCMP_ERROR ||
         std::any_of(std::begin(kNewerCalls), std::end(kNewerCalls),
                     [&](const auto& newer) { return syscall == newer.first; });
}

using Conditions = std::vector<ArgCondition>;

// Writes a program from its end to its beginning. cBPF jumps forward only, so every target is known when it
// is needed. A Label is the number of instructions from its place to the end.
class BackwardAssembler {
 public:
  using Label = size_t;

  Label Return(uint32_t action) { return Push(BPF_RET | BPF_K, 0, 0, action); }

  // Does one thing and goes on at `next`.
  Label Do(int code, uint32_t k, Label next) {
    Reach(next);
    return Push(code, 0, 0, k);
  }
  Label LoadNumber(Label next) { return Do(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr), next); }
  Label LoadArch(Label next) { return Do(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch), next); }
  Label LoadArg(int index, bool upper_half, Label next) {
    constexpr bool kLittle = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;
    const size_t offset = offsetof(seccomp_data, args) + 8 * static_cast<size_t>(index);
    return Do(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset + (upper_half == kLittle ? 4 : 0)),
              next);
  }
  Label MaskBits(uint32_t mask, Label next) {
    return mask == 0xffffffffu ? next : Do(BPF_ALU | BPF_AND | BPF_K, mask, next);
  }

  // `test` is BPF_JEQ, BPF_JGE or BPF_JSET.
  Label Branch(int test, uint32_t k, Label yes, Label no) {
    if (yes == no) return yes;
    // A conditional jump reaches 255 instructions; a jump placed next to it reaches any. Placing one moves
    // the other target one away, hence the order and the margin.
    if (Distance(no) > 254) no = Push(BPF_JMP | BPF_JA, 0, 0, static_cast<uint32_t>(Distance(no)));
    if (Distance(yes) > 255) yes = Push(BPF_JMP | BPF_JA, 0, 0, static_cast<uint32_t>(Distance(yes)));
    return Push(BPF_JMP | BPF_K | test, static_cast<uint8_t>(Distance(yes)),
                static_cast<uint8_t>(Distance(no)), k);
  }

  std::vector<sock_filter> Finish(Label entry) {
    Reach(entry);
    std::reverse(reversed_.begin(), reversed_.end());
    return std::move(reversed_);
  }

 private:
  size_t Distance(Label target) const { return reversed_.size() - target; }
  void Reach(Label next) {
    if (Distance(next) > 0) Push(BPF_JMP | BPF_JA, 0, 0, static_cast<uint32_t>(Distance(next)));
  }
  Label Push(int code, uint8_t yes, uint8_t no, uint32_t k) {
    reversed_.push_back({static_cast<uint16_t>(code), yes, no, k});
    return reversed_.size();
  }

  std::vector<sock_filter> reversed_;
};

using Label = BackwardAssembler::Label;

// Goes to `yes` if the low half of the argument, masked, is one of `values`: values / 32 picks a word, values
// % 32 its bit.
Label TestMembership(BackwardAssembler& code, int index, uint32_t mask, const std::vector<uint32_t>& values,
                     Label yes, Label no) {
  std::map<uint32_t, uint32_t> words;
  for (const uint32_t value : values) words[value / 32] |= 1u << (value % 32);
  Label entry = no;
  for (const auto& [word, bits] : words) {
    Label test = code.Branch(BPF_JSET, 1, yes, no);
    test = code.Do(BPF_ALU | BPF_RSH | BPF_X, 0, test);
    test = code.Do(BPF_LD | BPF_IMM, bits, test);
    entry = code.Branch(BPF_JEQ, word, test, entry);
  }
  entry = code.Do(BPF_ALU | BPF_RSH | BPF_K, 5, entry);
  entry = code.LoadArg(index, false, code.MaskBits(mask, entry));
  entry = code.Do(BPF_MISC | BPF_TAX, 0, entry);
  return code.LoadArg(index, false, code.MaskBits(mask & 31, entry));
}

// Goes to `yes` if all conditions of any of `any_of` hold. Alternatives whose first conditions look at the
// same bits of the same argument are tested together.
Label TestAny(BackwardAssembler& code, const std::vector<Conditions>& any_of, Label yes, Label no) {
  if (any_of.empty()) return no;
  for (const Conditions& all_of : any_of) {
    if (all_of.empty()) return yes;
  }
  const ArgCondition key = any_of.front().front();
  std::map<uint64_t, std::vector<Conditions>> by_value;
  std::vector<Conditions> others;
  for (const Conditions& all_of : any_of) {
    const ArgCondition& first = all_of.front();
    if (first.index == key.index && first.mask == key.mask) {
      by_value[first.value].emplace_back(all_of.begin() + 1, all_of.end());
    } else {
      others.push_back(all_of);
    }
  }
  const Label other = TestAny(code, others, yes, no);

  constexpr size_t kWorthASet = 3;
  std::vector<uint32_t> leaves;
  for (const auto& [value, rest] : by_value) {
    const bool leaf =
        std::any_of(rest.begin(), rest.end(), [](const Conditions& all) { return all.empty(); });
    if (leaf && value <= UINT32_MAX) leaves.push_back(static_cast<uint32_t>(value));
  }
  const auto low_mask = static_cast<uint32_t>(key.mask);
  const auto high_mask = static_cast<uint32_t>(key.mask >> 32);
  if (leaves.size() >= kWorthASet && leaves.size() == by_value.size()) {
    const Label low = TestMembership(code, key.index, low_mask, leaves, yes, other);
    if (high_mask == 0) return low;
    return code.LoadArg(key.index, true, code.MaskBits(high_mask, code.Branch(BPF_JEQ, 0, low, other)));
  }
  if (high_mask != 0) {  // Values that differ in either half: one after the other.
    Label entry = other;
    for (const auto& [value, rest] : by_value) {
      const Label low =
          code.Branch(BPF_JEQ, static_cast<uint32_t>(value), TestAny(code, rest, yes, other), entry);
      const Label load_low = code.LoadArg(key.index, false, code.MaskBits(low_mask, low));
      const Label high = code.Branch(BPF_JEQ, static_cast<uint32_t>(value >> 32), load_low, entry);
      entry = code.LoadArg(key.index, true, code.MaskBits(high_mask, high));
    }
    return entry;
  }
  std::vector<std::pair<uint32_t, Label>> targets;
  targets.reserve(by_value.size());
  for (const auto& [value, rest] : by_value) {
    targets.emplace_back(static_cast<uint32_t>(value), TestAny(code, rest, yes, other));
  }
  Label entry = other;
  for (const auto& [value, target] : targets) entry = code.Branch(BPF_JEQ, value, target, entry);
  return code.LoadArg(key.index, false, code.MaskBits(low_mask, entry));
}

// What happens to the calls of one number.
struct Verdict {
  std::optional<int> error;
  std::vector<Conditions> traps;
};
using Verdicts = std::map<uint32_t, Verdict>;

// Finds the number that is in the accumulator by bisection of `targets`, which are sorted.
Label Bisect(BackwardAssembler& code, std::span<const std::pair<uint32_t, Label>> targets, Label none) {
  if (targets.empty()) return none;
  if (targets.size() <= 2) {
    Label entry = none;
    for (const auto& [number, target] : targets) entry = code.Branch(BPF_JEQ, number, target, entry);
    return entry;
  }
  const size_t middle = targets.size() / 2;
  const Label upper = Bisect(code, targets.subspan(middle), none);
  const Label lower = Bisect(code, targets.first(middle), none);
  return code.Branch(BPF_JGE, targets[middle].first, upper, lower);
}

Label DispatchNumber(BackwardAssembler& code, const Verdicts& verdicts, Label allow, Label notify) {
  std::map<int, Label> errors;
  std::vector<std::pair<uint32_t, Label>> targets;
  for (const auto& [number, verdict] : verdicts) {
    if (verdict.error.has_value()) {
      auto [place, is_new] = errors.try_emplace(*verdict.error);
      if (is_new) place->second = code.Return(SECCOMP_RET_ERRNO | static_cast<uint32_t>(*verdict.error));
      targets.emplace_back(number, place->second);
    } else {
      targets.emplace_back(number, TestAny(code, verdict.traps, notify, allow));
    }
  }
  return code.LoadNumber(Bisect(code, targets, allow));
}

absl::Status CheckTrap(const Trap& trap) {
  if (!IsSyscallName(trap.syscall)) {
    return absl::InvalidArgumentError(absl::StrCat("trap of ", trap.syscall, ": no such system call"));
  }
  for (const ArgCondition& condition : trap.all_of) {
    if (condition.index < 0 || condition.index > 5) {
      return absl::InvalidArgumentError(absl::StrCat(
          "trap of ", trap.syscall, ": a system call has arguments 0 to 5, not ", condition.index));
    }
    if ((condition.value & ~condition.mask) != 0) {
      return absl::InvalidArgumentError(
          absl::StrFormat("trap of %s: argument %d can never be %#x under the mask %#x", trap.syscall,
                          condition.index, condition.value, condition.mask));
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<SyscallNumber> NumbersOf(const std::string& syscall) {
  std::vector<SyscallNumber> numbers;
  for (const Abi& abi : kAbis) {
    const std::optional<uint32_t> number = NumberOf(syscall, abi);
    if (number.has_value()) numbers.push_back({abi.audit_arch, *number});
  }
  return numbers;
}

std::vector<NamedCall> NamedCalls() {
  constexpr uint32_t kNumbers = 1024;  // more than any interface here has
  std::vector<NamedCall> calls;
  for (const Abi& abi : kAbis) {
    const uint32_t first = abi.scmp_arch == SCMP_ARCH_X32 ? kX32Bit : 0;
    for (uint32_t number = first; number < first + kNumbers; ++number) {
      char* const name = seccomp_syscall_resolve_num_arch(abi.scmp_arch, static_cast<int>(number));
      if (name != nullptr) calls.push_back({{abi.audit_arch, number}, name});
      std::free(name);
    }
    if (abi.scmp_arch == SCMP_ARCH_X86) {
      for (const auto& [name, number] : kI386SocketCalls) calls.push_back({{abi.audit_arch, number}, name});
    }
    for (const auto& [name, number] : kNewerCalls) calls.push_back({{abi.audit_arch, first | number}, name});
  }
  return calls;
}

absl::StatusOr<std::vector<sock_filter>> BuildFilter(const std::vector<Trap>& traps,
                                                     const std::vector<Deny>& denies) {
  std::map<uint32_t, Verdicts> by_arch;
  for (const Abi& abi : kAbis) by_arch[abi.audit_arch];
  for (const Trap& trap : traps) {
    if (absl::Status status = CheckTrap(trap); !status.ok()) return status;
    for (const auto& [arch, number] : NumbersOf(trap.syscall)) {
      by_arch[arch][number].traps.push_back(trap.all_of);
    }
  }
  for (const Deny& deny : denies) {
    if (deny.error <= 0 || deny.error > 4095) {
      return absl::InvalidArgumentError(
          absl::StrCat("refusal of ", deny.syscall, ": ", deny.error, " is no errno"));
    }
    if (!IsSyscallName(deny.syscall)) {
      return absl::InvalidArgumentError(absl::StrCat("refusal of ", deny.syscall, ": no such system call"));
    }
    for (const auto& [arch, number] : NumbersOf(deny.syscall)) by_arch[arch][number].error = deny.error;
  }

  BackwardAssembler code;
  const Label kill = code.Return(SECCOMP_RET_KILL_PROCESS);
  const Label notify = code.Return(SECCOMP_RET_USER_NOTIF);
  const Label allow = code.Return(SECCOMP_RET_ALLOW);
  Label entry = kill;
  // The native interface comes first in kAbis. Its test is to be the first of the program, so it is written
  // last.
  const uint32_t native = kAbis[0].audit_arch;
  for (const auto& [arch, verdicts] : by_arch) {
    if (arch != native)
      entry = code.Branch(BPF_JEQ, arch, DispatchNumber(code, verdicts, allow, notify), entry);
  }
  entry = code.Branch(BPF_JEQ, native, DispatchNumber(code, by_arch[native], allow, notify), entry);
  std::vector<sock_filter> program = code.Finish(code.LoadArch(entry));
  if (program.size() > BPF_MAXINSNS) {
    return absl::ResourceExhaustedError(absl::StrCat("the filter has ", program.size(),
                                                     " instructions, the kernel takes ", BPF_MAXINSNS,
                                                     ": trap fewer calls or conditions"));
  }
  return program;
}

bool HasWaitKillable() {
  // The kernel looks at the flags before it looks at the program: an unknown flag is EINVAL, a missing
  // program EFAULT.
  const long result =
      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
              SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, nullptr);
  return result < 0 && errno == EFAULT;
}

Result<Fd> InstallFilter(std::span<const sock_filter> program, FilterWait wait) {
  const sock_fprog argument = {static_cast<unsigned short>(program.size()),
                               const_cast<sock_filter*>(program.data())};
  const unsigned long flags =
      SECCOMP_FILTER_FLAG_NEW_LISTENER |
      (wait == FilterWait::kWaitKillable ? SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV : 0);
  const long listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &argument);
  if (listener < 0) return FailErrno();
  return Fd(static_cast<int>(listener));
}

}  // namespace shunt
