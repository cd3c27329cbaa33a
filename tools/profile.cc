// SPDX-License-Identifier: Apache-2.0

#include "tools/profile.h"

#include <sys/un.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/check.h"
#include "handlers/traps.h"
#include "tools/agent_config.h"
#include "tools/errno_name.h"

namespace shunt {
namespace {

using TrapConditions = std::vector<ArgCondition>;
using ProfileArgs = std::vector<ProfileArg>;

constexpr const char* kNotify = "SCMP_ACT_NOTIFY";

// sendmmsg. Each call of socketcall(2) gets a rule of its own, which wins over what libseccomp makes for it
// from the rules for the direct call: conditions on registers that socketcall does not use.
constexpr uint64_t kLastSocketCall = 20;

// The call runs, whatever else happens. NOTIFY is among them: whoever asked for it wanted to be asked, and is
// by us.
bool LetsRun(const ProfileAction& action) {
  return action.name == "SCMP_ACT_ALLOW" || action.name == "SCMP_ACT_LOG" || action.name == kNotify;
}

bool Names(const ProfileRule& rule, const std::string& syscall) {
  return std::find(rule.names.begin(), rule.names.end(), syscall) != rule.names.end();
}

// What a profile does with one call. `rules` is empty if it does the same under all circumstances.
struct BaseVerdict {
  ProfileAction uniform;  // or what it does where no rule holds
  std::vector<ProfileRule> rules;
};

// As a runtime and libseccomp read it: a rule that equals the default is dropped, and the first unconditional
// rule wins over everything else that is said about the call.
BaseVerdict VerdictOn(const Profile& profile, const std::string& syscall) {
  BaseVerdict verdict{profile.default_action, {}};
  for (const ProfileRule& rule : profile.rules) {
    if (!Names(rule, syscall) || rule.action == profile.default_action) continue;
    if (rule.args.empty()) return {rule.action, {}};
    verdict.rules.push_back(rule);
  }
  return verdict;
}

void Remove(const std::string& syscall, Profile& profile) {
  for (ProfileRule& rule : profile.rules) {
    rule.names.erase(std::remove(rule.names.begin(), rule.names.end(), syscall), rule.names.end());
  }
  profile.rules.erase(std::remove_if(profile.rules.begin(), profile.rules.end(),
                                     [](const ProfileRule& rule) { return rule.names.empty(); }),
                      profile.rules.end());
}

// An int is the lower half of its register: the kernel ignores the upper one, where anything may be.
constexpr uint64_t kInt = 0xffffffff;

// The condition in the notation of a profile. It knows equality of whole registers, and of bits under a mask.
ProfileArg UnderMask(const ArgCondition& condition) {
  return {condition.index, "SCMP_CMP_MASKED_EQ", condition.mask, condition.value};
}

// The same for a register with nothing in its upper half.
ProfileArg Whole(const ArgCondition& condition) {
  if (condition.mask != kInt) return UnderMask(condition);
  return {condition.index, "SCMP_CMP_EQ", condition.value, 0};
}

// Conditions of rules no two of which hold at once, and one of which holds wherever no trap's does.
struct Complement {
  std::vector<ProfileArgs> untrapped;
  // Where a number is larger than all that traps compare it with. Or there is something in the upper half of
  // its register, and the lower one is a number to be trapped.
  std::vector<ProfileArgs> beyond;
};

// Appends what is left by `any_of`. A number that is compared is counted up to the largest in use (and to
// `at_least`): every smaller one gets a rule of its own, the rest one for all. There is no shorter way, for a
// rule can say only one thing about an argument, and where libseccomp has found the beginning of a rule to
// hold, it does not come back to look at another beginning. (Masks could split the rest to the bit, in some
// thirty rules each time. A program has 4096 instructions at most, and these would take a third of them.)
void AppendComplement(const std::vector<TrapConditions>& any_of, const ProfileArgs& prefix, uint64_t at_least,
                      Complement& out) {
  const ArgCondition& key = any_of.front().front();
  std::map<uint64_t, std::vector<TrapConditions>> by_value;
  for (const TrapConditions& all_of : any_of) {
    const ArgCondition& first = all_of.front();
    SHUNT_CHECK(first.index == key.index && first.mask == key.mask);
    by_value[first.value].emplace_back(all_of.begin() + 1, all_of.end());
  }
  const auto with = [&](ProfileArg arg) {
    ProfileArgs args = prefix;
    args.push_back(std::move(arg));
    return args;
  };
  if (key.mask != kInt) {  // A flag: set or not.
    SHUNT_CHECK((key.mask & (key.mask - 1)) == 0 && by_value.size() == 1 &&
                by_value.begin()->first == key.mask);
    SHUNT_CHECK(by_value.begin()->second.front().empty());
    out.untrapped.push_back(with({key.index, "SCMP_CMP_MASKED_EQ", key.mask, 0}));
    return;
  }
  const uint64_t last = std::max(at_least, by_value.rbegin()->first);
  for (uint64_t value = 0; value <= last; ++value) {
    const ProfileArgs args = with({key.index, "SCMP_CMP_EQ", value, 0});
    const auto found = by_value.find(value);
    if (found == by_value.end()) {
      out.untrapped.push_back(args);
    } else if (!found->second.front().empty()) {
      AppendComplement(found->second, args, 0, out);
    }
  }
  out.beyond.push_back(with({key.index, "SCMP_CMP_GE", last + 1, 0}));
}

// The rules for one call, where the profile lets it run under `base_args` (none: always) with `base_action`.
void AppendRules(const std::string& syscall, const std::vector<TrapConditions>& any_of,
                 const ProfileAction& base_action, const ProfileArgs& base_args,
                 const ProfileAction& default_action, std::vector<ProfileRule>& out) {
  const ProfileAction notify{kNotify, std::nullopt};
  const bool always =
      std::any_of(any_of.begin(), any_of.end(), [](const TrapConditions& all) { return all.empty(); });
  if (always || base_action == notify) {
    out.push_back({{syscall}, notify, base_args});
    return;
  }
  // A rule that equals the default is an error to libseccomp. So traps are all there is to be said.
  const bool only_traps = base_action == default_action;
  for (const TrapConditions& all_of : any_of) {
    ProfileArgs args = base_args;
    for (const ArgCondition& condition : all_of)
      args.push_back(only_traps ? UnderMask(condition) : Whole(condition));
    out.push_back({{syscall}, notify, args});
  }
  if (only_traps) return;
  const bool is_socketcall = syscall == "socketcall";  // of i386 alone, whose registers have no upper half
  Complement complement;
  AppendComplement(any_of, base_args, is_socketcall ? kLastSocketCall : 0, complement);
  for (ProfileArgs& args : complement.untrapped) out.push_back({{syscall}, base_action, std::move(args)});
  for (ProfileArgs& args : complement.beyond)
    out.push_back({{syscall}, is_socketcall ? base_action : notify, std::move(args)});
}

bool ShareAnArgument(const ProfileArgs& args, const std::vector<TrapConditions>& any_of) {
  for (const ProfileArg& arg : args) {
    for (const TrapConditions& all_of : any_of) {
      for (const ArgCondition& condition : all_of) {
        if (condition.index == arg.index) return true;
      }
    }
  }
  return false;
}

// True if the rules can be multiplied with the traps: all let the call run where the default refuses it, and
// they look at arguments that no trap looks at.
bool CanCombine(const BaseVerdict& verdict, const std::vector<TrapConditions>& any_of) {
  if (LetsRun(verdict.uniform)) return false;
  return std::all_of(verdict.rules.begin(), verdict.rules.end(), [&](const ProfileRule& rule) {
    return LetsRun(rule.action) && !ShareAnArgument(rule.args, any_of);
  });
}

// i386's socketcall where the profile refuses it as such. libseccomp lets the single calls through all the
// same, as far as the profile lets the direct ones run, and does the same with our rules. Only a setsockopt's
// option is out of its sight.
void AppendSocketCallOfSetSockOpt(const Profile& profile, std::vector<ProfileRule>& out) {
  const BaseVerdict direct = VerdictOn(profile, "setsockopt");
  if (!LetsRun(direct.uniform) || !direct.rules.empty()) return;
  out.push_back({{"socketcall"}, {kNotify, std::nullopt}, {{0, "SCMP_CMP_EQ", kSocketCallSetSockOpt, 0}}});
}

// The calls in the order of their first trap, but socketcall first: its rules are shorter than those that
// libseccomp makes from the direct calls', and the first of two that contradict each other stays.
std::vector<std::pair<std::string, std::vector<TrapConditions>>> GroupBySyscall(
    const std::vector<Trap>& traps) {
  std::vector<std::pair<std::string, std::vector<TrapConditions>>> groups;
  for (const Trap& trap : traps) {
    auto group =
        std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == trap.syscall; });
    if (group == groups.end()) group = groups.insert(groups.end(), {trap.syscall, {}});
    group->second.push_back(trap.all_of);
  }
  std::stable_partition(groups.begin(), groups.end(),
                        [](const auto& group) { return group.first == "socketcall"; });
  return groups;
}

// ---- The command.

struct ProfileOptions {
  std::string base;
  std::string listener;
  std::vector<std::string> metadata;
  std::vector<std::string> handlers;
  std::vector<std::string> failing;  // SYSCALL or SYSCALL=ERRNO
  std::string capabilities;
  bool renumbered = false;
  bool wait_killable = false;
};

int Complain(const std::string& line) {
  std::cerr << "shunt profile: " << line << "\n";
  return 2;
}

absl::StatusOr<std::string> ReadProfileText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  std::ostringstream text;
  text << file.rdbuf();
  if (text.view().empty()) {  // A directory, too: it opens, and its reading fails.
    return absl::InvalidArgumentError(
        absl::StrCat(path, " cannot be read or is empty: it has to be a seccomp profile in JSON"));
  }
  return std::move(text).str();
}

absl::StatusOr<Profile> ReadBase(const ProfileOptions& options, const ProfileSubject& subject) {
  if (options.base.empty()) return PermissiveProfile(subject);
  const absl::StatusOr<std::string> text = ReadProfileText(options.base);
  if (!text.ok()) return text.status();
  absl::StatusOr<Profile> profile = ParseProfile(*text, subject);
  if (!profile.ok())
    return absl::InvalidArgumentError(absl::StrCat(options.base, ": ", profile.status().message()));
  return profile;
}

// "NET_RAW,cap_sys_admin" -> CAP_NET_RAW, CAP_SYS_ADMIN
absl::StatusOr<std::set<std::string>> ReadCapabilities(const std::string& text) {
  std::set<std::string> capabilities;
  for (const absl::string_view word : absl::StrSplit(text, ',', absl::SkipWhitespace())) {
    std::string name = absl::AsciiStrToUpper(absl::StripAsciiWhitespace(word));
    if (name.rfind("CAP_", 0) != 0) name.insert(0, "CAP_");
    const bool plain = std::all_of(name.begin(), name.end(),
                                   [](unsigned char c) { return absl::ascii_isalpha(c) || c == '_'; });
    if (!plain) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--caps: \"", std::string(word), "\" is no capability; right would be one like CAP_NET_RAW"));
    }
    capabilities.insert(std::move(name));
  }
  return capabilities;
}

absl::Status CheckOptions(const ProfileOptions& options) {
  if (!options.listener.empty() && options.listener.front() != '/') {
    return absl::InvalidArgumentError(
        absl::StrCat("--listener: ", options.listener, " has to be an absolute path"));
  }
  if (options.listener.size() >= sizeof(sockaddr_un::sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("--listener: a socket's path has at most ",
                                                   sizeof(sockaddr_un::sun_path) - 1, " bytes, this one has ",
                                                   options.listener.size()));
  }
  return absl::OkStatus();
}

// What --handler and --fail ask for.
absl::Status AddWishes(const ProfileOptions& options, TrapNeeds& needs, std::vector<Deny>& denies) {
  const std::vector<std::string> askable = AskableHandlers();
  for (const std::string& handler : options.handlers) {
    if (std::find(askable.begin(), askable.end(), handler) == askable.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--handler: there is no \"", handler, "\"; there are ", absl::StrJoin(askable, ", ")));
    }
    needs.handlers.push_back(handler);
  }
  for (const std::string& wish : options.failing) {
    const size_t end = std::min(wish.find('='), wish.size());
    const std::string syscall = wish.substr(0, end);
    if (NumbersOf(syscall).empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--fail: \"", syscall, "\" is no system call of this machine"));
    }
    if (end == wish.size()) {
      needs.calls.push_back(syscall);
      continue;
    }
    const absl::StatusOr<int> error = ParseErrno(wish.substr(end + 1));
    if (!error.ok())
      return absl::InvalidArgumentError(absl::StrCat("--fail ", syscall, ": ", error.status().message()));
    for (const std::string& form : FormsOf(syscall)) {
      if (!NumbersOf(form).empty()) denies.push_back({form, *error});
    }
  }
  return absl::OkStatus();
}

// One text in the notation of the OCI specification, KEY=VALUE;KEY=VALUE, or several in lines.
std::string MetadataOf(const ProfileOptions& options) {
  std::vector<std::string> items;
  if (!options.listener.empty()) items.push_back(absl::StrCat("shunt.traps=", kTrapsVersion));
  items.insert(items.end(), options.metadata.begin(), options.metadata.end());
  return absl::StrJoin(items, options.metadata.size() > 1 ? "\n" : ";");
}

// Where a profile names no flags, runtimes set SPEC_ALLOW; one that names some gets just these.
void AddWaitKillable(Profile& profile) {
  const std::string flag = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";
  if (!profile.has_flags) profile.flags = {"SECCOMP_FILTER_FLAG_SPEC_ALLOW"};
  profile.has_flags = true;
  if (std::find(profile.flags.begin(), profile.flags.end(), flag) == profile.flags.end())
    profile.flags.push_back(flag);
}

int RunProfile(const ProfileOptions& options) {
  if (const absl::Status status = CheckOptions(options); !status.ok())
    return Complain(std::string(status.message()));
  ProfileSubject subject = ProfileSubject::Here();
  if (!options.capabilities.empty()) {
    absl::StatusOr<std::set<std::string>> capabilities = ReadCapabilities(options.capabilities);
    if (!capabilities.ok()) return Complain(std::string(capabilities.status().message()));
    subject.capabilities = *std::move(capabilities);
  }
  absl::StatusOr<Profile> base = ReadBase(options, subject);
  if (!base.ok()) return Complain(std::string(base.status().message()));
  TrapNeeds needs{.renumbered = options.renumbered};
  std::vector<Deny> denies;
  if (const absl::Status status = AddWishes(options, needs, denies); !status.ok())
    return Complain(std::string(status.message()));
  for (const Deny& deny : Denies(needs)) denies.push_back(deny);
  std::vector<std::string> refused;
  absl::StatusOr<Profile> profile = AddTraps(*std::move(base), Traps(needs), denies, &refused);
  if (!profile.ok())
    return Complain(absl::StrCat(options.base, ": ", std::string(profile.status().message())));
  profile->listener_path = options.listener;
  profile->listener_metadata = MetadataOf(options);
  if (!profile->listener_metadata.empty() && profile->listener_path.empty()) {
    return Complain("--metadata: runtimes refuse metadata without a listener; give --listener PATH too");
  }
  if (options.wait_killable) AddWaitKillable(*profile);
  if (!refused.empty()) {
    std::cerr << "shunt profile: " << options.base << " refuses " << absl::StrJoin(refused, ", ")
              << ": what it refuses stays refused and is not accelerated\n";
  }
  std::cout << PrintProfile(*profile) << std::flush;
  return std::cout ? 0 : Complain("cannot write to standard output");
}

}  // namespace

Profile PermissiveProfile(const ProfileSubject& subject) {
  Profile profile;
  profile.default_action = {"SCMP_ACT_ALLOW", std::nullopt};
  profile.architectures = {subject.scmp_arch};
  if (subject.scmp_arch == "SCMP_ARCH_X86_64") {
    profile.architectures.insert(profile.architectures.end(), {"SCMP_ARCH_X86", "SCMP_ARCH_X32"});
  }
  if (subject.scmp_arch == "SCMP_ARCH_AARCH64") profile.architectures.push_back("SCMP_ARCH_ARM");
  return profile;
}

absl::StatusOr<Profile> AddTraps(Profile profile, const std::vector<Trap>& traps,
                                 const std::vector<Deny>& denies, std::vector<std::string>* refused) {
  std::vector<ProfileRule> added;
  std::vector<std::string> replaced;
  const auto is_denied = [&](const std::string& syscall) {
    return std::any_of(denies.begin(), denies.end(),
                       [&](const Deny& deny) { return deny.syscall == syscall; });
  };
  for (const auto& [syscall, any_of] : GroupBySyscall(traps)) {
    if (is_denied(syscall)) continue;
    const BaseVerdict verdict = VerdictOn(profile, syscall);
    if (verdict.rules.empty()) {
      if (LetsRun(verdict.uniform)) {
        AppendRules(syscall, any_of, verdict.uniform, {}, profile.default_action, added);
        replaced.push_back(syscall);
      } else if (syscall == "socketcall") {
        AppendSocketCallOfSetSockOpt(profile, added);
      } else {
        refused->push_back(syscall);
      }
      continue;
    }
    if (!CanCombine(verdict, any_of)) {
      return absl::InvalidArgumentError(
          absl::StrCat("its rules for ", syscall, " depend on arguments in a way that a trap of ", syscall,
                       " cannot be added to; allow or refuse it without conditions"));
    }
    for (const ProfileRule& rule : verdict.rules) {
      AppendRules(syscall, any_of, rule.action, rule.args, profile.default_action, added);
    }
    replaced.push_back(syscall);
  }
  for (const Deny& deny : denies) {
    const BaseVerdict verdict = VerdictOn(profile, deny.syscall);
    if (verdict.rules.empty() && !LetsRun(verdict.uniform)) continue;
    const ProfileAction action{"SCMP_ACT_ERRNO", deny.error};
    if (action != profile.default_action) added.push_back({{deny.syscall}, action, {}});
    replaced.push_back(deny.syscall);
  }
  for (const std::string& syscall : replaced) Remove(syscall, profile);
  profile.rules.insert(profile.rules.begin(), std::make_move_iterator(added.begin()),
                       std::make_move_iterator(added.end()));
  return profile;
}

void AddProfileCommand(CLI::App& app, int& exit_status) {
  auto options = std::make_shared<ProfileOptions>();
  CLI::App* command =
      app.add_subcommand("profile",
                         "Print a seccomp profile that sends a container's calls to shunt agent.\n\n"
                         "  shunt profile --listener /run/shunt.sock >shunt.json\n"
                         "  shunt profile --base /usr/share/containers/seccomp.json --listener "
                         "/run/shunt.sock >shunt.json\n"
                         "  podman run --security-opt seccomp=shunt.json ...\n");
  command
      ->add_option(
          "--base", options->base,
          "Profile to keep in force: OCI, Docker or Podman notation (default: everything is allowed)")
      ->type_name("FILE");
  command
      ->add_option("--listener", options->listener,
                   "Socket of shunt agent, where the runtime sends the listener")
      ->type_name("PATH");
  // One value each: without this the parser would take all words that follow.
  const auto repeatable = [command](const char* name, std::vector<std::string>& into,
                                    const std::string& text) {
    return command->add_option(name, into, text)
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  };
  repeatable("--metadata", options->metadata,
             "What the runtime hands to the agent with it: the container's wishes (repeatable)")
      ->type_name("KEY=VALUE");
  repeatable("--handler", options->handlers,
             absl::StrCat("Trap the calls of this handler, too, and what would get around it (repeatable): ",
                          absl::StrJoin(AskableHandlers(), ", ")))
      ->type_name("NAME");
  repeatable("--fail", options->failing,
             "Let the call fail, and its other forms: with ERRNO at once, else as the agent's policy says "
             "(repeatable)")
      ->type_name("SYSCALL[=ERRNO]");
  command
      ->add_option("--caps", options->capabilities,
                   "Capabilities of the container, by which the base is resolved (default: Docker's)")
      ->type_name("CAP,...");
  command->add_flag("--renumbered", options->renumbered,
                    "A port is published under another number: getsockname must show the container's");
  command->add_flag("--wait-killable", options->wait_killable,
                    "No signal but a fatal one interrupts a call that the agent has received");
  command->callback([options, &exit_status] { exit_status = RunProfile(*options); });
}

}  // namespace shunt
