// SPDX-License-Identifier: Apache-2.0

#include "tools/run_id_map.h"

#include <fcntl.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/fd.h"
#include "tools/leashed_program.h"

namespace shunt {
namespace {

// Ids above are not ids of ordinary users, and -1 is none at all.
constexpr uint32_t kIdentityIds = 65536;

// The ids that we have ourselves (root of an outer container has few), each as itself.
std::vector<IdRange> IdentityOf(const char* own_map) {
  std::vector<IdRange> ranges;
  std::ifstream file(own_map);
  uint32_t inside, outside, count;
  while (file >> inside >> outside >> count) {
    if (inside >= kIdentityIds) continue;
    ranges.push_back({inside, inside, std::min(count, kIdentityIds - inside)});
  }
  return ranges;
}

// The subordinate ids of the calling user, from /etc/subuid or /etc/subgid ("name-or-uid:first:count" a
// line).
std::vector<IdRange> SubordinateIds(const char* path) {
  const std::string uid = absl::StrCat(getuid());
  const passwd* const user = getpwuid(getuid());
  const std::string name = user == nullptr ? uid : user->pw_name;
  std::vector<IdRange> ranges;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> fields = absl::StrSplit(line, ':');
    if (fields.size() != 3 || (fields[0] != name && fields[0] != uid)) continue;
    IdRange range;
    if (absl::SimpleAtoi(fields[1], &range.outside) && absl::SimpleAtoi(fields[2], &range.count) &&
        range.count > 0) {
      ranges.push_back(range);
    }
  }
  return ranges;
}

bool Covers(const std::vector<IdRange>& map, uint32_t id) {
  return std::any_of(map.begin(), map.end(), [id](const IdRange& range) {
    return id >= range.inside && id - range.inside < range.count;
  });
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  const Fd file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file.valid() || write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return absl::ErrnoToStatus(errno, absl::StrCat("write ", path));
  }
  return absl::OkStatus();
}

std::string MapText(const std::vector<IdRange>& map) {
  std::string text;
  for (const IdRange& range : map)
    absl::StrAppend(&text, range.inside, " ", range.outside, " ", range.count, "\n");
  return text;
}

absl::Status RunMapTool(const char* tool, pid_t pid, const std::vector<IdRange>& map) {
  std::vector<std::string> argv = {FindProgram(tool), absl::StrCat(pid)};
  for (const IdRange& range : map) {
    for (const uint32_t number : {range.inside, range.outside, range.count})
      argv.push_back(absl::StrCat(number));
  }
  return RunToEnd(argv);
}

}  // namespace

absl::StatusOr<UserIds> ParseUserIds(const std::string& text) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits(':', 1));
  UserIds ids;
  const std::string& gid = text.find(':') == std::string::npos ? parts.first : parts.second;
  // 2^32-1 means "no id" to the kernel.
  if (!absl::SimpleAtoi(parts.first, &ids.uid) || !absl::SimpleAtoi(gid, &ids.gid) || ids.uid == ~0U ||
      ids.gid == ~0U) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not UID or UID:GID, two numbers such as 1000:1000"));
  }
  return ids;
}

std::vector<IdRange> FillAround(uint32_t caller_inside, uint32_t caller, std::vector<IdRange> others) {
  std::vector<IdRange> map = {{caller_inside, caller, 1}};
  uint32_t next = 0;
  for (IdRange& other : others) {
    while (other.count > 0) {
      if (next == caller_inside) ++next;
      const uint32_t count = next < caller_inside ? std::min(other.count, caller_inside - next) : other.count;
      map.push_back({next, other.outside, count});
      next += count;
      other.outside += count;
      other.count -= count;
    }
  }
  return map;
}

std::vector<IdMap> PlanIdMaps(const UserIds& command, bool in_rootfs) {
  const uid_t uid = geteuid();
  const gid_t gid = getegid();
  std::vector<IdMap> plans;
  if (uid == 0) {
    plans.push_back({.uids = IdentityOf("/proc/self/uid_map"),
                     .gids = IdentityOf("/proc/self/gid_map"),
                     .description = "every user as on the host"});
  } else if (!FindProgram("newuidmap").empty() && !FindProgram("newgidmap").empty()) {
    const UserIds caller_inside = in_rootfs ? UserIds{} : command;
    IdMap plan{.by_tools = true, .description = "you and your subordinate ids"};
    plan.uids = FillAround(caller_inside.uid, uid, SubordinateIds("/etc/subuid"));
    plan.gids = FillAround(caller_inside.gid, gid, SubordinateIds("/etc/subgid"));
    if (plan.uids.size() > 1 && plan.gids.size() > 1) plans.push_back(std::move(plan));
  }
  std::erase_if(plans, [&](const IdMap& plan) {
    return !Covers(plan.uids, command.uid) || !Covers(plan.gids, command.gid);
  });
  // Not for root: who asks for another user than root must not get root under another name.
  if (uid != 0) {
    plans.push_back({.uids = {{command.uid, uid, 1}},
                     .gids = {{command.gid, gid, 1}},
                     .set_groups = false,
                     .description = "only you"});
  }
  return plans;
}

absl::Status WriteIdMap(const IdMap& map, pid_t pid) {
  if (map.by_tools) {
    if (absl::Status status = RunMapTool("newuidmap", pid, map.uids); !status.ok()) return status;
    return RunMapTool("newgidmap", pid, map.gids);
  }
  const std::string proc = absl::StrCat("/proc/", pid);
  // Without this the kernel lets nobody but root map a group.
  if (!map.set_groups) {
    if (absl::Status status = WriteFile(proc + "/setgroups", "deny"); !status.ok()) return status;
  }
  if (absl::Status status = WriteFile(proc + "/uid_map", MapText(map.uids)); !status.ok()) return status;
  return WriteFile(proc + "/gid_map", MapText(map.gids));
}

}  // namespace shunt
