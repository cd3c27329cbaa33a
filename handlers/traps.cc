// SPDX-License-Identifier: Apache-2.0

#include "handlers/traps.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "handlers/routes.h"
#include "net/socket_options.h"

namespace shunt {
namespace {

void AddOptionTraps(const char* syscall, std::vector<Trap>& traps) {
  for (const net::SocketOption& option : net::kSocketOptions) {
    if (!net::IsTrapped(option)) continue;
    traps.push_back({syscall,
                     {ArgCondition::IntEquals(1, static_cast<uint32_t>(option.level)),
                      ArgCondition::IntEquals(2, static_cast<uint32_t>(option.name))}});
  }
}

void AddSocketCallTraps(const char* syscall, const TrapNeeds& needs, std::vector<Trap>& traps) {
  const auto add = [&](uint32_t call) { traps.push_back({syscall, {ArgCondition::IntEquals(0, call)}}); };
  add(kSocketCallBind);
  add(kSocketCallConnect);
  add(kSocketCallListen);
  add(kSocketCallSetSockOpt);
  if (needs.renumbered) add(kSocketCallGetSockName);
}

// See AskableHandlers().
std::string NameOf(absl::string_view function) {
  std::string name = absl::AsciiStrToLower(function);
  if (absl::StartsWith(name, "umount")) return "mount";
  if (absl::EndsWith(name, "at")) name.resize(name.size() - 2);
  return name;
}

bool Contains(const std::vector<std::string>& list, const std::string& what) {
  return std::find(list.begin(), list.end(), what) != list.end();
}

// Calls that do the same, as far as a policy can mean one and would be got around by another.
const std::vector<std::vector<std::string>>& Forms() {
  static const auto* const kForms = new std::vector<std::vector<std::string>>{
      {"chmod", "fchmod", "fchmodat", "fchmodat2"},
      {"chown", "chown32", "lchown", "lchown32", "fchown", "fchown32", "fchownat"},
      {"mkdir", "mkdirat"},
      {"mknod", "mknodat"},
      {"rmdir", "unlink", "unlinkat"},
      {"rename", "renameat", "renameat2"},
      {"link", "linkat"},
      {"symlink", "symlinkat"},
      {"open", "openat", "openat2", "creat"},
      {"execve", "execveat"},
      {"umount", "umount2"},
      {"mount", "fsopen", "fsconfig", "fsmount", "fspick", "open_tree", "open_tree_attr", "move_mount",
       "mount_setattr"},
      {"setxattr", "lsetxattr", "fsetxattr", "setxattrat"},
      {"removexattr", "lremovexattr", "fremovexattr", "removexattrat"},
      {"getxattr", "lgetxattr", "fgetxattr", "getxattrat"},
      {"listxattr", "llistxattr", "flistxattr", "listxattrat"},
      {"truncate", "truncate64", "ftruncate", "ftruncate64"},
      {"utime", "utimes", "utimensat", "utimensat_time64", "futimesat"},
      {"clone", "clone3", "fork", "vfork"},
      {"init_module", "finit_module"},
      {"kexec_load", "kexec_file_load"},
      {"setuid", "setuid32", "setreuid", "setreuid32", "setresuid", "setresuid32"},
      {"setgid", "setgid32", "setregid", "setregid32", "setresgid", "setresgid32"},
      {"settimeofday", "clock_settime", "clock_settime64", "stime"},
  };
  return *kForms;
}

// Refused where mount is handled.
constexpr const char* kNewerMountCalls[] = {"fsopen",    "fsconfig",       "fsmount",   "fspick",
                                            "open_tree", "open_tree_attr", "move_mount"};

void AddTraps(const char* syscall, const char* handler, RouteCondition condition, const TrapNeeds& needs,
              std::vector<Trap>& traps) {
  switch (condition) {
    case RouteCondition::kAlways:
      traps.push_back({syscall, {}});
      return;
    case RouteCondition::kIfAsked:
      if (Contains(needs.handlers, NameOf(handler))) traps.push_back({syscall, {}});
      return;
    case RouteCondition::kIfRenumbered:
      if (needs.renumbered) traps.push_back({syscall, {}});
      return;
    case RouteCondition::kFastOpenInArg2:
      traps.push_back({syscall, {ArgCondition::FlagSet(2, MSG_FASTOPEN)}});
      return;
    case RouteCondition::kFastOpenInArg3:
      traps.push_back({syscall, {ArgCondition::FlagSet(3, MSG_FASTOPEN)}});
      return;
    case RouteCondition::kTrappedOption:
      AddOptionTraps(syscall, traps);
      return;
    case RouteCondition::kSocketCall:
      AddSocketCallTraps(syscall, needs, traps);
      return;
  }
}

}  // namespace

std::vector<Trap> Traps(const TrapNeeds& needs) {
  std::vector<Trap> traps;
#define SHUNT_ADD_ROUTE(syscall, handler, condition) \
  AddTraps(#syscall, #handler, RouteCondition::condition, needs, traps);
  SHUNT_ROUTES(SHUNT_ADD_ROUTE)
#undef SHUNT_ADD_ROUTE
  for (const std::string& call : needs.calls) {
    for (const std::string& form : FormsOf(call)) {
      if (!NumbersOf(form).empty()) traps.push_back({form, {}});
    }
  }
  return traps;
}

std::vector<std::string> AskableHandlers() {
  std::vector<std::string> names;
#define SHUNT_ADD_NAME(syscall, handler, condition)                                                \
  if (RouteCondition::condition == RouteCondition::kIfAsked && !Contains(names, NameOf(#handler))) \
    names.push_back(NameOf(#handler));
  SHUNT_ROUTES(SHUNT_ADD_NAME)
#undef SHUNT_ADD_NAME
  return names;
}

std::vector<std::string> FormsOf(const std::string& syscall) {
  for (const std::vector<std::string>& forms : Forms()) {
    if (Contains(forms, syscall)) return forms;
  }
  return {syscall};
}

std::vector<Deny> Denies(const TrapNeeds& needs) {
  std::vector<Deny> denies = {{"io_uring_setup", ENOSYS}};
  if (!Contains(needs.handlers, "mount")) return denies;
  for (const char* syscall : kNewerMountCalls) {
    if (!NumbersOf(syscall).empty()) denies.push_back({syscall, ENOSYS});
  }
  return denies;
}

}  // namespace shunt
