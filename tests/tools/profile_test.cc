// SPDX-License-Identifier: Apache-2.0
//
// A profile is judged by the program that libseccomp makes of it, as runc would have it made, and by nothing
// else: for every call, it has to do what the base profile's program does, except that where that one lets
// the call run and our own filter would notify or refuse, it notifies or refuses.

#include "tools/profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <iterator>
#include <set>

#include "handlers/traps.h"
#include "tests/support/bpf_interpreter.h"
#include "tests/support/profile_compiler.h"

namespace shunt {
namespace {

using ::shunt::testing::CompileProfileAsRunc;
using ::shunt::testing::RunBpf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Program = std::vector<sock_filter>;

constexpr uint32_t kX32 = 0x40000000;

ProfileSubject Subject() {
  return {"amd64", "SCMP_ARCH_X86_64", {6, 1}, {"CAP_CHOWN", "CAP_NET_RAW"}};
}

Profile Parse(const std::string& text, const ProfileSubject& subject = Subject()) {
  absl::StatusOr<Profile> profile = ParseProfile(text, subject);
  EXPECT_TRUE(profile.ok()) << profile.status();
  return profile.ok() ? *std::move(profile) : Profile{};
}

std::string ErrorOf(const std::string& text) {
  return std::string(ParseProfile(text, Subject()).status().message());
}

// The three programs that belong together.
struct Trio {
  Program base;
  Program ours;    // the filter that shunt installs itself
  Program result;  // base profile with our traps
  std::vector<std::string> refused;

  explicit Trio(const Profile& profile, const TrapNeeds& needs = {}) {
    base = CompileProfileAsRunc(PrintProfile(profile));
    ours = *BuildFilter(Traps(needs), Denies(needs));
    const absl::StatusOr<Profile> combined = AddTraps(profile, Traps(needs), Denies(needs), &refused);
    EXPECT_TRUE(combined.ok()) << combined.status();
    result = CompileProfileAsRunc(PrintProfile(*combined));
  }

  static uint32_t Action(const Program& program, const SyscallNumber& number,
                         const std::vector<uint64_t>& args) {
    seccomp_data call = {};
    call.arch = number.audit_arch;
    call.nr = static_cast<int>(number.number);
    std::copy(args.begin(), args.end(), call.args);
    return RunBpf(program, call).action;
  }

  uint32_t Expected(const SyscallNumber& number, const std::vector<uint64_t>& args) const {
    const uint32_t by_base = Action(base, number, args);
    if (by_base != SECCOMP_RET_ALLOW && by_base != SECCOMP_RET_LOG) return by_base;
    const uint32_t by_us = Action(ours, number, args);
    return by_us == SECCOMP_RET_ALLOW ? by_base : by_us;
  }

  void Check(const SyscallNumber& number, const std::vector<uint64_t>& args) const {
    ASSERT_EQ(Action(result, number, args), Expected(number, args))
        << "arch " << std::hex << number.audit_arch << std::dec << " number " << (number.number & ~kX32)
        << " args " << (args.size() > 0 ? args[0] : 0) << " " << (args.size() > 1 ? args[1] : 0) << " "
        << (args.size() > 2 ? args[2] : 0) << " " << (args.size() > 3 ? args[3] : 0);
  }
};

// Options of setsockopt. In a profile that refuses by default, numbers beyond all that are trapped are
// notified in vain, as far as the base lets them run; for nothing that is trapped may escape.
void CheckOption(const Trio& trio, const SyscallNumber& number, const std::vector<uint64_t>& args) {
  uint64_t last_level = 0, last_name = 0;
  for (const Trap& trap : Traps({})) {
    if (trap.syscall != std::string_view("setsockopt")) continue;
    const uint64_t level = trap.all_of.at(0).value, name = trap.all_of.at(1).value;
    last_level = std::max(last_level, level);
    if (level == args[1]) last_name = std::max(last_name, name);
  }
  const bool level_is_trapped = last_name != 0, beyond = args[1] > last_level || args[2] > last_name;
  const bool in_vain = (args[1] > last_level || level_is_trapped) && beyond &&
                       Trio::Action(trio.result, number, args) == SECCOMP_RET_USER_NOTIF;
  const uint32_t by_base = Trio::Action(trio.base, number, args);
  if (in_vain && (by_base == SECCOMP_RET_ALLOW || by_base == SECCOMP_RET_LOG)) return;
  trio.Check(number, args);
}

bool IsSetSockOpt(const SyscallNumber& number) {
  const auto all = NumbersOf("setsockopt");
  return std::any_of(all.begin(), all.end(), [&](const SyscallNumber& one) {
    return one.audit_arch == number.audit_arch && one.number == number.number;
  });
}

// In a profile that allows by default, libseccomp applies the condition on a send's flags to socketcall's
// registers too.
enum class StraySends { kNone, kThroughSocketCall };

void CheckEveryCall(const Trio& trio, StraySends stray) {
  for (const uint32_t arch :
       std::initializer_list<uint32_t>{AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64}) {
    for (const uint32_t base : {0u, kX32}) {
      if (base == kX32 && arch != AUDIT_ARCH_X86_64) continue;
      for (uint32_t number = base; number < base + 600; ++number) {
        trio.Check({arch, number}, {});
        trio.Check({arch, number}, {3, 1, 2, 3, 4, 5});
        const std::vector<uint64_t> args = {3, 0, 0x100, 0x4040, 16, 16};
        if (IsSetSockOpt({arch, number})) {
          CheckOption(trio, {arch, number}, args);
        } else {
          trio.Check({arch, number}, args);
        }
      }
    }
  }
  for (const SyscallNumber& number : NumbersOf("setsockopt")) {
    for (uint64_t level = 0; level <= 50; ++level) {
      for (uint64_t name = 0; name <= 100; ++name) CheckOption(trio, number, {3, level, name, 0x5000, 4});
    }
    // The kernel looks at the lower halves only.
    for (const uint64_t garbage : {uint64_t{1} << 32, uint64_t{0x5a5a5a5a} << 32, ~uint64_t{0} << 32}) {
      for (uint64_t level = 0; level <= 50; ++level) {
        for (uint64_t name = 0; name <= 100; ++name) {
          CheckOption(trio, number, {3, garbage | level, name});
          CheckOption(trio, number, {3, level, garbage | name});
          CheckOption(trio, number, {garbage | 3, garbage | level, garbage | name, 0x5000, 4});
        }
      }
    }
    for (uint64_t bit = 0; bit < 64; ++bit) {
      for (uint64_t number_there = 0; number_there <= 41; ++number_there) {
        CheckOption(trio, number, {3, number_there, uint64_t{1} << bit});
        CheckOption(trio, number, {3, number_there, number_there | uint64_t{1} << bit});
        CheckOption(trio, number, {3, number_there | uint64_t{1} << bit, number_there});
      }
    }
    for (const uint64_t odd :
         {uint64_t{128}, uint64_t{0x7fffffff}, uint64_t{0x80000000}, uint64_t{0xffffffff}}) {
      for (uint64_t name = 0; name <= 100; ++name) CheckOption(trio, number, {3, odd, name});
      for (uint64_t level = 0; level <= 50; ++level) CheckOption(trio, number, {3, level, odd});
    }
  }
  for (const char* send : {"sendto", "sendmsg", "sendmmsg"}) {
    for (const SyscallNumber& number : NumbersOf(send)) {
      for (uint64_t bit = 0; bit < 32; ++bit) {
        for (const uint64_t flags :
             {uint64_t{1} << bit, (uint64_t{1} << bit) | MSG_FASTOPEN, uint64_t{0xffffffff}}) {
          trio.Check(number, {3, 0x5000, flags, 0});
          trio.Check(number, {3, 0x5000, 0, flags});
          trio.Check(number, {3, 0x5000, flags, flags});
        }
      }
    }
  }
  for (const SyscallNumber& number : NumbersOf("socketcall")) {
    for (uint64_t call = 0; call <= 64; ++call) {
      const bool is_send = call == 11 || call == 16 || call == 20;
      trio.Check(number, {call, 0xffa01234});
      trio.Check(number, {call, 0xffa01234, 15, 0});
      if (is_send && stray == StraySends::kThroughSocketCall) continue;
      trio.Check(number, {call, 0xffa01234, 0xffffffff, 0xffffffff});
      trio.Check(number, {call, 0xffa01234, MSG_FASTOPEN, MSG_FASTOPEN});
    }
  }
}

TEST(Profile, WithoutABaseItDoesAsOurOwnFilter) {
  CheckEveryCall(Trio(PermissiveProfile(Subject())), StraySends::kThroughSocketCall);
  CheckEveryCall(Trio(PermissiveProfile(Subject()), {.renumbered = true}), StraySends::kThroughSocketCall);
}

// Profiles that distributions ship, for the machine that the test runs on.
void CheckShippedProfile(const char* path, const char* package) {
  std::ifstream file(path);
  if (!file) GTEST_SKIP() << path << " is not there: install " << package;
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const Trio trio(Parse(text, ProfileSubject::Here()), {.renumbered = true});
  EXPECT_THAT(trio.refused, IsEmpty());
  CheckEveryCall(trio, StraySends::kNone);
  // The base really is one that lets connect run and that refuses much else: else this would prove nothing.
  EXPECT_EQ(Trio::Action(trio.base, {AUDIT_ARCH_X86_64, 42}, {}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Trio::Action(trio.result, {AUDIT_ARCH_X86_64, 42}, {}), SECCOMP_RET_USER_NOTIF);
  EXPECT_EQ(Trio::Action(trio.result, {AUDIT_ARCH_X86_64, 175}, {}),
            SECCOMP_RET_ERRNO | EPERM);  // init_module
}

TEST(Profile, OnPodmansOwnProfileItChangesWhatWeTrapAndNothingElse) {
  CheckShippedProfile("/usr/share/containers/seccomp.json", "golang-github-containers-common");
}

TEST(Profile, OnDockersOwnProfileItChangesWhatWeTrapAndNothingElse) {
  CheckShippedProfile("/usr/share/gocode/src/github.com/docker/docker/profiles/seccomp/default.json",
                      "golang-github-docker-docker-dev");
}

// The shape of Docker's default profile: conditions on arguments, kernels, capabilities and architectures.
constexpr const char* kDockerLike = R"({
  "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
  "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
              {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
              {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": null}],
  "syscalls": [
    {"names": ["accept", "bind", "connect", "epoll_create", "epoll_create1", "getsockname", "getsockopt", "listen", "read",
               "recvfrom", "sendmmsg", "sendmsg", "sendto", "setsockopt", "socketcall", "write"],
     "action": "SCMP_ACT_ALLOW"},
    {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
    {"names": ["clone3"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.2"}},
    {"names": ["acct"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "6.1"}},
    {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]},
    {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390", "s390x"]},
     "args": [{"index": 0, "value": 2114060288, "op": "SCMP_CMP_MASKED_EQ"}]},
    {"names": ["mount", "umount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
    {"names": ["modify_ldt"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32", "x86"]}},
    {"name": "chroot", "action": "SCMP_ACT_ALLOW", "comment": "", "excludes": {"caps": ["CAP_SYS_CHROOT"]}}
  ]})";

TEST(Profile, OnAProfileLikeDockersItChangesWhatWeTrapAndNothingElse) {
  const Trio trio(Parse(kDockerLike));
  EXPECT_THAT(trio.refused, IsEmpty());
  CheckEveryCall(trio, StraySends::kNone);
  for (const SyscallNumber& number : NumbersOf("socket")) {
    for (const uint64_t family : {0, 39, 40, 41}) trio.Check(number, {family});
  }
}

TEST(Profile, ResolvesDockersConditionsForTheMachineAndTheCapabilities) {
  const Program program = CompileProfileAsRunc(PrintProfile(Parse(kDockerLike)));
  const auto allows = [&](const char* name, const std::vector<uint64_t>& args = {}) {
    return Trio::Action(program, NumbersOf(name).front(), args) == SECCOMP_RET_ALLOW;
  };
  EXPECT_TRUE(allows("ptrace")) << "minKernel 4.8 on 6.1";
  EXPECT_FALSE(allows("clone3")) << "minKernel 6.2 on 6.1";
  EXPECT_FALSE(allows("acct")) << "excluded from 6.1 on";
  EXPECT_TRUE(allows("socket", {2}));
  EXPECT_FALSE(allows("socket", {40}));
  EXPECT_TRUE(allows("clone", {0x11}));
  EXPECT_FALSE(allows("clone", {0x10000000}));
  EXPECT_FALSE(allows("mount")) << "needs CAP_SYS_ADMIN";
  EXPECT_TRUE(allows("modify_ldt"));
  EXPECT_TRUE(allows("chroot")) << "excluded only with CAP_SYS_CHROOT; a single name in the old notation";

  ProfileSubject admin = Subject();
  admin.capabilities = {"CAP_SYS_ADMIN", "CAP_SYS_CHROOT"};
  const Program as_admin = CompileProfileAsRunc(PrintProfile(Parse(kDockerLike, admin)));
  EXPECT_EQ(Trio::Action(as_admin, NumbersOf("mount").front(), {}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Trio::Action(as_admin, NumbersOf("clone").front(), {0x11}), SECCOMP_RET_ERRNO | EPERM);
  EXPECT_EQ(Trio::Action(as_admin, NumbersOf("chroot").front(), {}), SECCOMP_RET_ERRNO | EPERM);
}

TEST(Profile, TakesTheArchitecturesOfTheMachinesOwnEntry) {
  EXPECT_THAT(Parse(kDockerLike).architectures,
              ElementsAre("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"));
  ProfileSubject arm{"arm64", "SCMP_ARCH_AARCH64", {6, 1}, {}};
  EXPECT_THAT(Parse(kDockerLike, arm).architectures, ElementsAre("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"));
  ProfileSubject riscv{"riscv64", "SCMP_ARCH_RISCV64", {6, 1}, {}};
  EXPECT_THAT(Parse(kDockerLike, riscv).architectures, ElementsAre("SCMP_ARCH_RISCV64"));
}

TEST(Profile, ReadsErrnosByNameAsPodmanWritesThem) {
  const Profile profile =
      Parse(R"({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "ENOSYS", "defaultErrnoRet": 1,
    "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errno": "EWOULDBLOCK", "errnoRet": 1, "args": []},
                 {"names": ["umount2"], "action": "SCMP_ACT_ERRNO", "errno": "22", "args": null},
                 {"names": ["chroot"], "action": "SCMP_ACT_ERRNO"}]})");
  EXPECT_EQ(profile.default_action.error, ENOSYS);
  ASSERT_EQ(profile.rules.size(), 3u);
  EXPECT_EQ(profile.rules[0].action.error, EAGAIN);
  EXPECT_EQ(profile.rules[1].action.error, EINVAL);
  EXPECT_EQ(profile.rules[2].action.error, EPERM);
}

TEST(Profile, LeavesWhatTheBaseRefusesRefused) {
  const Trio by_default(
      Parse(R"({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "syscalls": [{"names": ["read", "sendto", "setsockopt"], "action": "SCMP_ACT_ALLOW"}]})"));
  CheckEveryCall(by_default, StraySends::kThroughSocketCall);
  EXPECT_THAT(by_default.refused, ElementsAre("connect", "bind", "listen", "epoll_create", "epoll_create1",
                                              "sendmsg", "sendmmsg"));

  const Trio by_rule(
      Parse(R"({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "syscalls": [{"names": ["bind", "setsockopt", "socketcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
                 {"names": ["listen"], "action": "SCMP_ACT_KILL_PROCESS"}, {"names": ["io_uring_setup"],
                  "action": "SCMP_ACT_ERRNO"}]})"));
  CheckEveryCall(by_rule, StraySends::kNone);
  EXPECT_THAT(by_rule.refused, ElementsAre("bind", "listen", "setsockopt"));
}

TEST(Profile, TrapsUnderTheConditionsUnderWhichTheBaseAllows) {
  const Trio trio(
      Parse(R"({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X32"], "syscalls": [
    {"names": ["connect"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 2, "value": 16, "op": "SCMP_CMP_LE"}]},
    {"names": ["setsockopt"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 4, "value": 4, "op": "SCMP_CMP_EQ"}]},
    {"names": ["sendto"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 5, "value": 0, "op": "SCMP_CMP_EQ"}]},
    {"names": ["sendto"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 5, "value": 16, "op": "SCMP_CMP_EQ"}]}]})"));
  for (const SyscallNumber& number : NumbersOf("connect")) {
    for (const uint64_t length : {0, 16, 17, 28}) trio.Check(number, {3, 0x5000, length});
  }
  for (const SyscallNumber& number : NumbersOf("setsockopt")) {
    for (uint64_t level = 0; level <= 50; ++level) {
      for (uint64_t name = 0; name <= 100; ++name) {
        for (const uint64_t length : {4, 8}) CheckOption(trio, number, {3, level, name, 0x5000, length});
      }
    }
  }
  for (const SyscallNumber& number : NumbersOf("sendto")) {
    for (const uint64_t length : {0, 16, 17}) {
      for (const int flags : {0, int{MSG_FASTOPEN}, int{MSG_NOSIGNAL}})
        trio.Check(number, {3, 0, 0, static_cast<uint64_t>(flags), 0, length});
    }
  }
}

TEST(Profile, KeepsLoggingWhatTheBaseLogsAndWeDoNotTrap) {
  const Trio trio(
      Parse(R"({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "syscalls": [{"names": ["setsockopt", "sendto", "socketcall", "io_uring_setup"], "action": "SCMP_ACT_LOG"}]})"));
  CheckEveryCall(trio, StraySends::kNone);
  EXPECT_EQ(Trio::Action(trio.result, {AUDIT_ARCH_X86_64, 54}, {3, 6, 1}), SECCOMP_RET_LOG);
}

// The message of AddTraps for a base that allows by default and has one rule more.
std::string ErrorOfRule(const std::string& rule) {
  std::vector<std::string> refused;
  const Profile base = Parse(R"({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [)" + rule + "]}");
  return std::string(AddTraps(base, Traps({}), Denies({}), &refused).status().message());
}

TEST(Profile, RefusesABaseWhoseConditionsItCannotKeep) {
  for (const char* action : {"SCMP_ACT_ERRNO", "SCMP_ACT_LOG"}) {
    EXPECT_THAT(ErrorOfRule(std::string(R"({"names": ["connect"], "action": ")") + action +
                            R"(", "args": [{"index": 2, "value": 16, "op": "SCMP_CMP_GT"}]})"),
                HasSubstr("its rules for connect depend on arguments"));
  }
}

TEST(Profile, IgnoresRulesThatSayWhatTheDefaultSaysAsRuntimesDo) {
  EXPECT_EQ(ErrorOfRule(R"({"names": ["connect"], "action": "SCMP_ACT_ALLOW",
                            "args": [{"index": 2, "value": 16, "op": "SCMP_CMP_GT"}]})"),
            "");
}

TEST(Profile, AddsNoRuleThatSaysWhatTheDefaultSays) {
  std::vector<std::string> refused;
  const Profile profile = *AddTraps(PermissiveProfile(Subject()), Traps({}), Denies({}), &refused);
  for (const ProfileRule& rule : profile.rules)
    EXPECT_NE(rule.action.name, "SCMP_ACT_ALLOW") << rule.names[0];
}

TEST(Profile, KeepsFlagsListenerAndRulesOfTheBase) {
  const std::string text = R"({"defaultAction": "SCMP_ACT_ALLOW", "flags": [], "listenerPath": "/a",
    "listenerMetadata": "m\n\"x\"", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]})";
  const Profile again = Parse(PrintProfile(Parse(text)));
  EXPECT_TRUE(again.has_flags);
  EXPECT_THAT(again.flags, IsEmpty());
  EXPECT_EQ(again.listener_path, "/a");
  EXPECT_EQ(again.listener_metadata, "m\n\"x\"");
  ASSERT_EQ(again.rules.size(), 1u);
  EXPECT_EQ(again.rules[0].action.name, "SCMP_ACT_NOTIFY");
}

TEST(Profile, NamesThePlaceOfAMistakeAndWhatWouldBeRight) {
  EXPECT_THAT(ErrorOf("{\"defaultAction\": \"SCMP_ACT_ALLOW\",\n // no\n}"), HasSubstr("line 2"));
  EXPECT_THAT(ErrorOf("[]"), HasSubstr("defaultAction"));
  EXPECT_THAT(ErrorOf("{}"), HasSubstr("defaultAction: missing; right would be SCMP_ACT_ALLOW"));
  const auto rule = [](const std::string& entry) {
    return ErrorOf(
        R"({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_LOG"}, )" +
        entry + "]}");
  };
  EXPECT_THAT(rule(R"({"name": "read"})"), HasSubstr("syscalls[1].action: missing"));
  EXPECT_THAT(rule(R"({"name": "read", "action": "ALLOW"})"), HasSubstr("\"ALLOW\" is no action"));
  EXPECT_THAT(rule(R"({"action": "SCMP_ACT_LOG"})"), HasSubstr("syscalls[1].: needs either a name or names"));
  EXPECT_THAT(rule(R"({"name": "a", "names": ["b"], "action": "SCMP_ACT_LOG"})"),
              HasSubstr("either a name or names"));
  EXPECT_THAT(rule(R"({"names": "read", "action": "SCMP_ACT_LOG"})"), HasSubstr("syscalls[1].names"));
  EXPECT_THAT(rule(R"({"names": ["a"], "action": "SCMP_ACT_ERRNO", "errno": "EFOO"})"),
              HasSubstr("\"EFOO\" is no errno"));
  EXPECT_THAT(rule(R"({"names": ["a"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000})"),
              HasSubstr("between 0 and 4095"));
  EXPECT_THAT(
      rule(R"({"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]})"),
      HasSubstr("syscalls[1].args[0].index"));
  EXPECT_THAT(rule(R"({"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "op": "EQ"}]})"),
              HasSubstr("\"EQ\" is no comparison; right would be SCMP_CMP_EQ"));
  EXPECT_THAT(
      rule(
          R"({"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}]})"),
      HasSubstr("args[0].value"));
  EXPECT_THAT(rule(R"({"names": ["a"], "action": "SCMP_ACT_LOG", "includes": {"minKernel": "6"}})"),
              HasSubstr("\"6\" is no kernel version"));
  EXPECT_THAT(ErrorOf(R"({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["amd64"]})"),
              HasSubstr("\"amd64\" is no architecture; right would be one like SCMP_ARCH_X86_64"));
  EXPECT_THAT(ErrorOf(R"({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
                          "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]})"),
              HasSubstr("archMap: cannot stand beside architectures"));
  EXPECT_THAT(ErrorOf(R"({"defaultAction": "SCMP_ACT_ALLOW", "archMap": [
                          {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["i386"]}]})"),
              HasSubstr("archMap.subArchitectures: \"i386\" is no architecture"));
}

// The subcommand as main() runs it.
struct CommandOutcome {
  int status;
  std::string out;
  std::string err;
};

CommandOutcome RunCommand(const std::vector<std::string>& words) {
  CLI::App app{"shunt"};
  int status = -1;
  AddProfileCommand(app, status);
  std::vector<std::string> reversed(words.rbegin(), words.rend());
  reversed.emplace_back("profile");
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  app.parse(reversed);
  return {status, ::testing::internal::GetCapturedStdout(), ::testing::internal::GetCapturedStderr()};
}

std::string WriteFile(const std::string& name, const std::string& text) {
  std::string path = ::testing::TempDir() + name;
  std::ofstream(path) << text;
  return path;
}

TEST(ProfileCommand, AddsWaitKillableToTheFlagsThatRuntimesWouldSet) {
  const CommandOutcome outcome = RunCommand({"--listener", "/run/s.sock", "--wait-killable"});
  EXPECT_EQ(Parse(outcome.out).flags, (std::vector<std::string>{"SECCOMP_FILTER_FLAG_SPEC_ALLOW",
                                                                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}));
  EXPECT_FALSE(Parse(RunCommand({"--listener", "/run/s.sock"}).out).has_flags);
}

TEST(ProfileCommand, PrintsAProfileWithTheListenerAndItsMetadata) {
  const CommandOutcome outcome = RunCommand({"--listener", "/run/shunt.sock", "--metadata", "pod=\"x\""});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.err, "");
  const Profile profile = Parse(outcome.out);
  EXPECT_EQ(profile.listener_path, "/run/shunt.sock");
  EXPECT_EQ(profile.listener_metadata, "shunt.traps=1;pod=\"x\"");
  const Program program = CompileProfileAsRunc(outcome.out);
  EXPECT_EQ(Trio::Action(program, NumbersOf("connect").front(), {}), SECCOMP_RET_USER_NOTIF);
  EXPECT_EQ(Trio::Action(program, NumbersOf("getsockname").front(), {}), SECCOMP_RET_ALLOW);
}

// Everything in `names` meets `action` in every interface of the machine.
void ExpectEverywhere(const std::string& profile, const std::vector<std::string>& names, uint32_t action) {
  const Program program = CompileProfileAsRunc(profile);
  for (const std::string& name : names) {
    for (const SyscallNumber& number : NumbersOf(name))
      EXPECT_EQ(Trio::Action(program, number, {}), action) << name << " of " << number.audit_arch;
  }
}

TEST(ProfileCommand, TrapsTheCallsOfAHandlerThatIsAskedForWithoutAWayAround) {
  const std::vector<std::string> calls{"execve", "execveat"};
  ExpectEverywhere(RunCommand({}).out, calls, SECCOMP_RET_ALLOW);
  ExpectEverywhere(RunCommand({"--handler", "exec"}).out, calls, SECCOMP_RET_USER_NOTIF);
}

TEST(ProfileCommand, TrapsThemOnTopOfAProfileThatAllowsOrRefuses) {
  const std::string base = WriteFile("exec.json",
                                     R"({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
                                         {"names": ["execve", "read"], "action": "SCMP_ACT_ALLOW"},
                                         {"names": ["execveat"], "action": "SCMP_ACT_ALLOW",
                                          "args": [{"index": 4, "value": 0, "op": "SCMP_CMP_EQ"}]}]})");
  const CommandOutcome outcome = RunCommand({"--base", base, "--handler", "exec"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  const Program program = CompileProfileAsRunc(outcome.out);
  const auto action = [&](const char* name, const std::vector<uint64_t>& args) {
    return Trio::Action(program, NumbersOf(name).front(), args);
  };
  EXPECT_EQ(action("execve", {}), SECCOMP_RET_USER_NOTIF);
  EXPECT_EQ(action("execveat", {0, 0, 0, 0, 0}), SECCOMP_RET_USER_NOTIF);
  EXPECT_EQ(action("execveat", {0, 0, 0, 0, 1}), SECCOMP_RET_ERRNO | EPERM);
  EXPECT_EQ(action("read", {}), SECCOMP_RET_ALLOW);
}

TEST(ProfileCommand, LetsACallFailWithAllItsForms) {
  const std::vector<std::string> forms{"chmod", "fchmod", "fchmodat"};
  ExpectEverywhere(RunCommand({"--fail", "fchmod=EBADMSG"}).out, forms, SECCOMP_RET_ERRNO | EBADMSG);
  ExpectEverywhere(RunCommand({"--fail", "chmod=7", "--handler", "exec"}).out, forms, SECCOMP_RET_ERRNO | 7);
  ExpectEverywhere(RunCommand({"--fail", "chmod"}).out, forms, SECCOMP_RET_USER_NOTIF);
  // It is in there for runtimes whose libseccomp knows it.
  EXPECT_THAT(RunCommand({"--fail", "chmod"}).out, HasSubstr("\"fchmodat2\""));
}

TEST(ProfileCommand, FailsWhatAHandlerWouldServeWhereBothAreAskedFor) {
  ExpectEverywhere(RunCommand({"--handler", "exec", "--fail", "execve=EACCES"}).out, {"execve", "execveat"},
                   SECCOMP_RET_ERRNO | EACCES);
}

TEST(ProfileCommand, PutsSeveralWishesInLines) {
  const CommandOutcome outcome = RunCommand({"--listener", "/run/shunt.sock", "--metadata",
                                             "EXEC_PATTERN=/bin/true", "--metadata", "EXEC_DURATION=2s"});
  EXPECT_EQ(Parse(outcome.out).listener_metadata, "shunt.traps=1\nEXEC_PATTERN=/bin/true\nEXEC_DURATION=2s");
}

TEST(ProfileCommand, TrapsGetsocknameIfPortsAreRenumbered) {
  const Program program = CompileProfileAsRunc(RunCommand({"--renumbered"}).out);
  EXPECT_EQ(Trio::Action(program, NumbersOf("getsockname").front(), {}), SECCOMP_RET_USER_NOTIF);
}

TEST(ProfileCommand, ResolvesTheBaseForTheCapabilitiesOfTheContainer) {
  const std::string base = WriteFile("caps.json", kDockerLike);
  const auto mount = [&](const std::vector<std::string>& words) {
    return Trio::Action(CompileProfileAsRunc(RunCommand(words).out), NumbersOf("mount").front(), {});
  };
  EXPECT_EQ(mount({"--base", base}), SECCOMP_RET_ERRNO | EPERM);
  EXPECT_EQ(mount({"--base", base, "--caps", "chown,CAP_SYS_ADMIN"}), SECCOMP_RET_ALLOW);
}

TEST(ProfileCommand, SaysWhatTheBaseRefuses) {
  const std::string base = WriteFile(
      "refusing.json",
      R"({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["bind"], "action": "SCMP_ACT_ERRNO"}]})");
  const CommandOutcome outcome = RunCommand({"--base", base});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.err, "shunt profile: " + base +
                             " refuses bind: what it refuses stays refused and is not accelerated\n");
}

TEST(ProfileCommand, AnswersAMistakeWithOneLineAndStatus2) {
  const auto expect = [](const std::vector<std::string>& words, const std::string& part) {
    const CommandOutcome outcome = RunCommand(words);
    EXPECT_EQ(outcome.status, 2) << part;
    EXPECT_EQ(outcome.out, "") << part;
    EXPECT_THAT(outcome.err, HasSubstr(part));
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  };
  expect({"--base", "/nonexistent.json"}, "cannot open /nonexistent.json");
  expect({"--base", "/"}, "/ cannot be read or is empty");
  const std::string broken = WriteFile("broken.json", "{\"defaultAction\": SCMP}");
  expect({"--base", broken}, broken + ": parse error at line 1");
  const std::string conditional = WriteFile(
      "conditional.json",
      R"({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["bind"], "action": "SCMP_ACT_ERRNO",
                              "args": [{"index": 2, "value": 16, "op": "SCMP_CMP_GT"}]}]})");
  expect({"--base", conditional}, conditional + ": its rules for bind depend on arguments");
  expect({"--listener", "shunt.sock"}, "--listener: shunt.sock has to be an absolute path");
  expect({"--listener", "/" + std::string(107, 'x')}, "at most 107 bytes, this one has 108");
  expect({"--metadata", "x"}, "give --listener PATH too");
  expect({"--handler", "exec", "--handler", "moutn"},
         "--handler: there is no \"moutn\"; there are getpeername, mkdir, mknod, mount, exec");
  expect({"--fail", "chmd"}, "--fail: \"chmd\" is no system call of this machine");
  expect({"--fail", "chmod=EWHAT"}, "--fail chmod: \"EWHAT\" should be an errno");
  expect({"--fail", "chmod="}, "--fail chmod: \"\" should be an errno");
  expect({"--caps", "NET-RAW"}, "\"NET-RAW\" is no capability");
}

}  // namespace
}  // namespace shunt
