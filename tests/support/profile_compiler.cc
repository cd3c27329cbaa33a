// SPDX-License-Identifier: Apache-2.0

#include "tests/support/profile_compiler.h"

#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <map>
#include <nlohmann/json.hpp>

#include "core/check.h"

namespace shunt::testing {
namespace {

using nlohmann::json;

uint32_t ActionOf(const json& object, const char* key, const char* errno_key) {
  static const std::map<std::string, uint32_t> kActions = {{"SCMP_ACT_ALLOW", SCMP_ACT_ALLOW},
                                                           {"SCMP_ACT_LOG", SCMP_ACT_LOG},
                                                           {"SCMP_ACT_NOTIFY", SCMP_ACT_NOTIFY},
                                                           {"SCMP_ACT_KILL", SCMP_ACT_KILL_THREAD},
                                                           {"SCMP_ACT_KILL_THREAD", SCMP_ACT_KILL_THREAD},
                                                           {"SCMP_ACT_KILL_PROCESS", SCMP_ACT_KILL_PROCESS},
                                                           {"SCMP_ACT_TRAP", SCMP_ACT_TRAP}};
  const std::string name = object.at(key);
  if (name == "SCMP_ACT_ERRNO") return SCMP_ACT_ERRNO(object.value(errno_key, EPERM));
  return kActions.at(name);
}

uint32_t ArchOf(const std::string& name) {
  // "SCMP_ARCH_X86_64" -> "x86_64", as libseccomp calls it.
  std::string short_name = name.substr(std::string("SCMP_ARCH_").size());
  std::transform(short_name.begin(), short_name.end(), short_name.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  const uint32_t arch = seccomp_arch_resolve_name(short_name.c_str());
  SHUNT_CHECK(arch != 0);
  return arch;
}

scmp_arg_cmp ArgOf(const json& arg) {
  static const std::map<std::string, scmp_compare> kOperators = {{"SCMP_CMP_EQ", SCMP_CMP_EQ},
                                                                 {"SCMP_CMP_NE", SCMP_CMP_NE},
                                                                 {"SCMP_CMP_LT", SCMP_CMP_LT},
                                                                 {"SCMP_CMP_LE", SCMP_CMP_LE},
                                                                 {"SCMP_CMP_GT", SCMP_CMP_GT},
                                                                 {"SCMP_CMP_GE", SCMP_CMP_GE},
                                                                 {"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ}};
  return {arg.at("index").get<unsigned>(), kOperators.at(arg.at("op")), arg.at("value").get<uint64_t>(),
          arg.value("valueTwo", uint64_t{0})};
}

void AddRule(scmp_filter_ctx filter, const std::string& name, uint32_t action,
             const std::vector<scmp_arg_cmp>& args) {
  const int number = seccomp_syscall_resolve_name(name.c_str());
  if (number == __NR_SCMP_ERROR) return;  // runc passes over names that it does not know
  bool twice = false;
  for (const scmp_arg_cmp& arg : args) {
    twice |= std::count_if(args.begin(), args.end(),
                           [&](const scmp_arg_cmp& other) { return other.arg == arg.arg; }) > 1;
  }
  if (!twice) {
    SHUNT_CHECK(
        seccomp_rule_add_array(filter, action, number, static_cast<unsigned>(args.size()), args.data()) == 0);
    return;
  }
  for (const scmp_arg_cmp& arg : args)
    SHUNT_CHECK(seccomp_rule_add_array(filter, action, number, 1, &arg) == 0);
}

std::vector<sock_filter> Export(scmp_filter_ctx filter) {
  const int file = memfd_create("program", MFD_CLOEXEC);
  SHUNT_CHECK(file >= 0);
  SHUNT_CHECK(seccomp_export_bpf(filter, file) == 0);
  const off_t size = lseek(file, 0, SEEK_END);
  std::vector<sock_filter> program(static_cast<size_t>(size) / sizeof(sock_filter));
  SHUNT_CHECK(pread(file, program.data(), static_cast<size_t>(size), 0) == size);
  close(file);
  return program;
}

}  // namespace

std::vector<sock_filter> CompileProfileAsRunc(const std::string& json_text) {
  const json profile = json::parse(json_text);
  const uint32_t default_action = ActionOf(profile, "defaultAction", "defaultErrnoRet");
  scmp_filter_ctx filter = seccomp_init(default_action);
  SHUNT_CHECK(filter != nullptr);
  for (const json& name : profile.value("architectures", json::array())) {
    const int result = seccomp_arch_add(filter, ArchOf(name));
    SHUNT_CHECK(result == 0 || result == -EEXIST);
  }
  for (const json& rule : profile.value("syscalls", json::array())) {
    const uint32_t action = ActionOf(rule, "action", "errnoRet");
    if (action == default_action) continue;
    std::vector<scmp_arg_cmp> args;
    for (const json& arg : rule.value("args", json::array())) args.push_back(ArgOf(arg));
    for (const json& name : rule.at("names")) AddRule(filter, name, action, args);
  }
  std::vector<sock_filter> program = Export(filter);
  seccomp_release(filter);
  return program;
}

}  // namespace shunt::testing
