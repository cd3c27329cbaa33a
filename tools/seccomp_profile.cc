// SPDX-License-Identifier: Apache-2.0

#include "tools/seccomp_profile.h"

#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace shunt {
namespace {

using nlohmann::json;

constexpr std::array kActions = {"SCMP_ACT_ALLOW",        "SCMP_ACT_ERRNO",       "SCMP_ACT_KILL",
                                 "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG",
                                 "SCMP_ACT_NOTIFY",       "SCMP_ACT_TRACE",       "SCMP_ACT_TRAP"};
constexpr std::array kOperators = {"SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT",       "SCMP_CMP_LE",
                                   "SCMP_CMP_LT", "SCMP_CMP_NE", "SCMP_CMP_MASKED_EQ"};

template <size_t N>
bool IsOneOf(const std::string& word, const std::array<const char*, N>& words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

absl::Status Wrong(const std::string& where, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", what));
}

// A member that may be missing or null.
const json* Find(const json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

absl::StatusOr<std::string> ReadString(const json& object, const char* key, const std::string& where) {
  const json* member = Find(object, key);
  if (member == nullptr) return std::string();
  if (!member->is_string()) return Wrong(absl::StrCat(where, key), "has to be a string");
  return member->get<std::string>();
}

absl::StatusOr<std::vector<std::string>> ReadStrings(const json& object, const char* key,
                                                     const std::string& where) {
  std::vector<std::string> strings;
  const json* member = Find(object, key);
  if (member == nullptr) return strings;
  if (!member->is_array()) return Wrong(absl::StrCat(where, key), "has to be a list of strings");
  for (const json& element : *member) {
    if (!element.is_string()) return Wrong(absl::StrCat(where, key), "has to be a list of strings");
    strings.push_back(element.get<std::string>());
  }
  return strings;
}

absl::StatusOr<uint64_t> ReadNumber(const json& object, const char* key, const std::string& where) {
  const json* member = Find(object, key);
  if (member == nullptr) return 0;
  if (!member->is_number_unsigned()) return Wrong(absl::StrCat(where, key), "has to be a number, 0 or more");
  return member->get<uint64_t>();
}

std::optional<int> ErrnoByName(const std::string& name) {
  int number;
  if (absl::SimpleAtoi(name, &number)) return number;
  static const std::map<std::string, int> kAliases = {
      {"EWOULDBLOCK", EWOULDBLOCK}, {"EDEADLOCK", EDEADLOCK}, {"ENOTSUP", ENOTSUP}};
  if (const auto alias = kAliases.find(name); alias != kAliases.end()) return alias->second;
  constexpr int kLastErrno = 133;
  for (int candidate = 1; candidate <= kLastErrno; ++candidate) {
    const char* known = strerrorname_np(candidate);
    if (known != nullptr && name == known) return candidate;
  }
  return std::nullopt;
}

// An action with its errno, which Podman writes by name beside the number that others take.
absl::StatusOr<ProfileAction> ReadAction(const json& object, const char* key, const char* number_key,
                                         const char* name_key, const std::string& where) {
  absl::StatusOr<std::string> name = ReadString(object, key, where);
  if (!name.ok()) return name.status();
  if (!IsOneOf(*name, kActions)) {
    return Wrong(absl::StrCat(where, key),
                 absl::StrCat(name->empty() ? "missing" : absl::StrCat("\"", *name, "\" is no action"),
                              "; right would be ", absl::StrJoin(kActions, ", ")));
  }
  ProfileAction action{*std::move(name), std::nullopt};
  absl::StatusOr<std::string> error_name = ReadString(object, name_key, where);
  if (!error_name.ok()) return error_name.status();
  std::optional<int> error;
  if (!error_name->empty()) {
    error = ErrnoByName(*error_name);
    if (!error.has_value()) {
      return Wrong(absl::StrCat(where, name_key),
                   absl::StrCat("\"", *error_name, "\" is no errno; right would be one like EPERM"));
    }
  } else if (Find(object, number_key) != nullptr) {
    absl::StatusOr<uint64_t> number = ReadNumber(object, number_key, where);
    if (!number.ok()) return number.status();
    error = static_cast<int>(std::min<uint64_t>(*number, 4096));
  }
  if (error.has_value() && (*error < 0 || *error > 4095)) {
    return Wrong(absl::StrCat(where, number_key), "an errno is between 0 and 4095");
  }
  if (action.name == "SCMP_ACT_ERRNO" || action.name == "SCMP_ACT_TRACE")
    action.error = error.value_or(EPERM);
  return action;
}

absl::StatusOr<std::vector<ProfileArg>> ReadArgs(const json& entry, const std::string& where) {
  std::vector<ProfileArg> args;
  const json* list = Find(entry, "args");
  if (list == nullptr) return args;
  if (!list->is_array()) return Wrong(absl::StrCat(where, "args"), "has to be a list of conditions");
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string place = absl::StrCat(where, "args[", i, "].");
    const json& element = (*list)[i];
    if (!element.is_object()) return Wrong(place, "has to be an object with index, value and op");
    const absl::StatusOr<uint64_t> index = ReadNumber(element, "index", place);
    const absl::StatusOr<uint64_t> value = ReadNumber(element, "value", place);
    const absl::StatusOr<uint64_t> value_two = ReadNumber(element, "valueTwo", place);
    const absl::StatusOr<std::string> op = ReadString(element, "op", place);
    for (const absl::Status& status : {index.status(), value.status(), value_two.status(), op.status()}) {
      if (!status.ok()) return status;
    }
    if (*index > 5) return Wrong(absl::StrCat(place, "index"), "a system call has arguments 0 to 5");
    if (!IsOneOf(*op, kOperators)) {
      return Wrong(absl::StrCat(place, "op"), absl::StrCat("\"", *op, "\" is no comparison; right would be ",
                                                           absl::StrJoin(kOperators, ", ")));
    }
    args.push_back({static_cast<int>(*index), *op, *value, *value_two});
  }
  return args;
}

// "4.8" as Docker writes minKernel.
absl::StatusOr<std::pair<int, int>> ReadKernel(const std::string& text, const std::string& where) {
  int major = 0;
  int minor = 0;
  char rest = 0;
  if (std::sscanf(text.c_str(), "%d.%d%c", &major, &minor, &rest) != 2 || major < 0 || minor < 0 ||
      major + minor == 0) {
    return Wrong(absl::StrCat(where, "minKernel"),
                 absl::StrCat("\"", text, "\" is no kernel version; right would be one like 5.9"));
  }
  return std::pair(major, minor);
}

// What `includes` or `excludes` of an entry asks for.
struct Conditions {
  std::vector<std::string> arches;
  std::vector<std::string> caps;
  std::optional<std::pair<int, int>> kernel;
};

absl::StatusOr<Conditions> ReadConditions(const json& entry, const char* key, const std::string& where) {
  Conditions conditions;
  const json* object = Find(entry, key);
  if (object == nullptr) return conditions;
  const std::string place = absl::StrCat(where, key, ".");
  if (!object->is_object()) return Wrong(place, "has to be an object with arches, caps or minKernel");
  absl::StatusOr<std::vector<std::string>> arches = ReadStrings(*object, "arches", place);
  absl::StatusOr<std::vector<std::string>> caps = ReadStrings(*object, "caps", place);
  const absl::StatusOr<std::string> kernel = ReadString(*object, "minKernel", place);
  for (const absl::Status& status : {arches.status(), caps.status(), kernel.status()}) {
    if (!status.ok()) return status;
  }
  conditions.arches = *std::move(arches);
  conditions.caps = *std::move(caps);
  if (!kernel->empty()) {
    const absl::StatusOr<std::pair<int, int>> version = ReadKernel(*kernel, place);
    if (!version.ok()) return version.status();
    conditions.kernel = *version;
  }
  return conditions;
}

// Docker's order of tests: any exclusion drops the entry, every inclusion is needed.
absl::StatusOr<bool> AppliesTo(const json& entry, const ProfileSubject& subject, const std::string& where) {
  const absl::StatusOr<Conditions> excludes = ReadConditions(entry, "excludes", where);
  if (!excludes.ok()) return excludes.status();
  const absl::StatusOr<Conditions> includes = ReadConditions(entry, "includes", where);
  if (!includes.ok()) return includes.status();
  const auto is_ours = [&](const std::string& arch) { return arch == subject.go_arch; };
  const auto is_held = [&](const std::string& cap) { return subject.capabilities.count(cap) > 0; };
  if (std::any_of(excludes->arches.begin(), excludes->arches.end(), is_ours)) return false;
  if (std::any_of(excludes->caps.begin(), excludes->caps.end(), is_held)) return false;
  if (excludes->kernel.has_value() && subject.kernel >= *excludes->kernel) return false;
  if (!includes->arches.empty() && std::none_of(includes->arches.begin(), includes->arches.end(), is_ours))
    return false;
  if (!std::all_of(includes->caps.begin(), includes->caps.end(), is_held)) return false;
  return !includes->kernel.has_value() || subject.kernel >= *includes->kernel;
}

bool MentionsAnArgumentTwice(const std::vector<ProfileArg>& args) {
  std::set<int> indices;
  for (const ProfileArg& arg : args) indices.insert(arg.index);
  return indices.size() < args.size();
}

absl::Status ReadEntry(const json& entry, const ProfileSubject& subject, const std::string& where,
                       Profile& profile) {
  if (!entry.is_object()) return Wrong(where, "has to be an object with names and an action");
  const absl::StatusOr<bool> applies = AppliesTo(entry, subject, where);
  if (!applies.ok()) return applies.status();
  absl::StatusOr<std::vector<std::string>> names = ReadStrings(entry, "names", where);
  if (!names.ok()) return names.status();
  const absl::StatusOr<std::string> name = ReadString(entry, "name", where);
  if (!name.ok()) return name.status();
  if (name->empty() == names->empty()) return Wrong(where, "needs either a name or names");
  if (!name->empty()) names->push_back(*name);
  absl::StatusOr<ProfileAction> action = ReadAction(entry, "action", "errnoRet", "errno", where);
  if (!action.ok()) return action.status();
  absl::StatusOr<std::vector<ProfileArg>> args = ReadArgs(entry, where);
  if (!args.ok()) return args.status();
  if (!*applies) return absl::OkStatus();
  if (!MentionsAnArgumentTwice(*args)) {
    profile.rules.push_back({*std::move(names), *std::move(action), *std::move(args)});
    return absl::OkStatus();
  }
  for (const ProfileArg& arg : *args) profile.rules.push_back({*names, *action, {arg}});
  return absl::OkStatus();
}

absl::Status CheckArchitectures(const std::vector<std::string>& architectures, const char* key,
                                const ProfileSubject& subject) {
  for (const std::string& arch : architectures) {
    if (arch.rfind("SCMP_ARCH_", 0) == 0) continue;
    return Wrong(
        key, absl::StrCat("\"", arch, "\" is no architecture; right would be one like ", subject.scmp_arch));
  }
  return absl::OkStatus();
}

// `architectures` as it is, or what archMap says about the native one.
absl::Status ReadArchitectures(const json& document, const ProfileSubject& subject, Profile& profile) {
  absl::StatusOr<std::vector<std::string>> architectures = ReadStrings(document, "architectures", "");
  if (!architectures.ok()) return architectures.status();
  profile.architectures = *std::move(architectures);
  if (absl::Status status = CheckArchitectures(profile.architectures, "architectures", subject); !status.ok())
    return status;
  const json* map = Find(document, "archMap");
  if (map == nullptr || map->empty()) return absl::OkStatus();
  if (!profile.architectures.empty()) return Wrong("archMap", "cannot stand beside architectures");
  if (!map->is_array()) return Wrong("archMap", "has to be a list");
  for (const json& entry : *map) {
    if (!entry.is_object())
      return Wrong("archMap", "has to be a list of objects with architecture and subArchitectures");
    const absl::StatusOr<std::string> arch = ReadString(entry, "architecture", "archMap.");
    const absl::StatusOr<std::vector<std::string>> subs = ReadStrings(entry, "subArchitectures", "archMap.");
    if (!arch.ok()) return arch.status();
    if (!subs.ok()) return subs.status();
    if (absl::Status status = CheckArchitectures(*subs, "archMap.subArchitectures", subject); !status.ok())
      return status;
    if (*arch != subject.scmp_arch) continue;
    profile.architectures.push_back(*arch);
    profile.architectures.insert(profile.architectures.end(), subs->begin(), subs->end());
  }
  return absl::OkStatus();
}

absl::StatusOr<Profile> ReadDocument(const json& document, const ProfileSubject& subject) {
  if (!document.is_object())
    return absl::InvalidArgumentError("a profile is a JSON object with a defaultAction");
  Profile profile;
  absl::StatusOr<ProfileAction> action =
      ReadAction(document, "defaultAction", "defaultErrnoRet", "defaultErrno", "");
  if (!action.ok()) return action.status();
  profile.default_action = *std::move(action);
  if (absl::Status status = ReadArchitectures(document, subject, profile); !status.ok()) return status;
  absl::StatusOr<std::vector<std::string>> flags = ReadStrings(document, "flags", "");
  absl::StatusOr<std::string> path = ReadString(document, "listenerPath", "");
  absl::StatusOr<std::string> metadata = ReadString(document, "listenerMetadata", "");
  for (const absl::Status& status : {flags.status(), path.status(), metadata.status()}) {
    if (!status.ok()) return status;
  }
  profile.flags = *std::move(flags);
  profile.has_flags = Find(document, "flags") != nullptr;
  profile.listener_path = *std::move(path);
  profile.listener_metadata = *std::move(metadata);
  const json* entries = Find(document, "syscalls");
  if (entries == nullptr) return profile;
  if (!entries->is_array()) return Wrong("syscalls", "has to be a list");
  for (size_t i = 0; i < entries->size(); ++i) {
    const absl::Status status =
        ReadEntry((*entries)[i], subject, absl::StrCat("syscalls[", i, "]."), profile);
    if (!status.ok()) return status;
  }
  return profile;
}

void PutAction(const ProfileAction& action, const char* key, const char* errno_key,
               nlohmann::ordered_json& object) {
  object[key] = action.name;
  if (action.error.has_value()) object[errno_key] = *action.error;
}

nlohmann::ordered_json RuleToJson(const ProfileRule& rule) {
  nlohmann::ordered_json object;
  object["names"] = rule.names;
  PutAction(rule.action, "action", "errnoRet", object);
  for (const ProfileArg& arg : rule.args) {
    object["args"].push_back(
        {{"index", arg.index}, {"value", arg.value}, {"valueTwo", arg.value_two}, {"op", arg.op}});
  }
  return object;
}

}  // namespace

ProfileSubject ProfileSubject::Here() {
  ProfileSubject subject;
#if defined(__x86_64__)
  subject.go_arch = "amd64";
  subject.scmp_arch = "SCMP_ARCH_X86_64";
#elif defined(__aarch64__)
  subject.go_arch = "arm64";
  subject.scmp_arch = "SCMP_ARCH_AARCH64";
#elif defined(__riscv) && __riscv_xlen == 64
  subject.go_arch = "riscv64";
  subject.scmp_arch = "SCMP_ARCH_RISCV64";
#elif defined(__s390x__)
  subject.go_arch = "s390x";
  subject.scmp_arch = "SCMP_ARCH_S390X";
#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__)
  subject.go_arch = "ppc64le";
  subject.scmp_arch = "SCMP_ARCH_PPC64LE";
#else
#error "name this architecture here"
#endif
  utsname name = {};
  uname(&name);
  std::sscanf(name.release, "%d.%d", &subject.kernel.first, &subject.kernel.second);
  subject.capabilities = {
      "CAP_AUDIT_WRITE", "CAP_CHOWN",  "CAP_DAC_OVERRIDE", "CAP_FOWNER",          "CAP_FSETID",
      "CAP_KILL",        "CAP_MKNOD",  "CAP_NET_RAW",      "CAP_SETFCAP",         "CAP_SETGID",
      "CAP_SETPCAP",     "CAP_SETUID", "CAP_SYS_CHROOT",   "CAP_NET_BIND_SERVICE"};
  return subject;
}

absl::StatusOr<Profile> ParseProfile(std::string_view text, const ProfileSubject& subject) {
  json document;
  try {
    document = json::parse(text);
  } catch (const json::parse_error& error) {
    // "[json.exception.parse_error.101] parse error at line 1, column 5: ...": without the part that is for
    // programmers.
    const std::string_view what = error.what();
    const size_t start = what.find("] ");
    return absl::InvalidArgumentError(
        std::string(start == std::string_view::npos ? what : what.substr(start + 2)));
  }
  return ReadDocument(document, subject);
}

std::string PrintProfile(const Profile& profile) {
  nlohmann::ordered_json head;
  PutAction(profile.default_action, "defaultAction", "defaultErrnoRet", head);
  if (!profile.architectures.empty()) head["architectures"] = profile.architectures;
  if (profile.has_flags) head["flags"] = profile.flags;
  if (!profile.listener_path.empty()) head["listenerPath"] = profile.listener_path;
  if (!profile.listener_metadata.empty()) head["listenerMetadata"] = profile.listener_metadata;
  std::string text = "{\n";
  for (const auto& [key, value] : head.items()) {
    absl::StrAppend(&text, "  ", nlohmann::ordered_json(key).dump(), ": ", value.dump(), ",\n");
  }
  absl::StrAppend(
      &text, "  \"syscalls\": [\n    ",
      absl::StrJoin(profile.rules, ",\n    ",
                    [](std::string* out, const ProfileRule& rule) { out->append(RuleToJson(rule).dump()); }),
      "\n  ]\n}\n");
  return text;
}

}  // namespace shunt
