// SPDX-License-Identifier: Apache-2.0
#include "handlers/verdict.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <iterator>
#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/proc_text.h"

namespace shunt {
namespace {

std::string Text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string CgroupsOf(pid_t pid) {
  return Text(absl::StrCat("/proc/", pid, "/cgroup"));
}

bool HasEnded(const Fd& pidfd) {
  pollfd ended{.fd = pidfd.get(), .events = POLLIN};
  return poll(&ended, 1, 0) != 0;
}

// The directory of the first process's cgroup in this hierarchy, if that is the container's own.
absl::StatusOr<Fd> OwnCgroup(const ContainerSpec& spec, Hierarchy hierarchy) {
  const std::string cgroup = CgroupIn(CgroupsOf(spec.first_process), hierarchy);
  if (cgroup.empty() || cgroup == "/") return absl::NotFoundError("it has no cgroup of its own");
  const auto parent = static_cast<pid_t>(
      NumberBehind(Text(absl::StrCat("/proc/", spec.first_process, "/status")), "PPid:").value_or(0));
  const std::string of_parent = parent > 0 ? CgroupIn(CgroupsOf(parent), hierarchy) : "";
  if (of_parent.empty()) return absl::NotFoundError("its parent process is out of sight");
  if (IsWithin(of_parent, cgroup) || IsWithin(CgroupIn(Text("/proc/self/cgroup"), hierarchy), cgroup))
    return absl::NotFoundError(absl::StrCat("its cgroup ", cgroup, " is shared with others"));
  const std::string path = DirectoryOf(Text("/proc/self/mountinfo"), hierarchy, cgroup);
  Fd directory(path.empty() ? -1 : open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  if (!directory.valid())
    return absl::NotFoundError(absl::StrCat("its cgroup ", cgroup, " cannot be seen: mount /sys/fs/cgroup"));
  struct stat status {};
  if (spec.owner != 0 && (fstat(directory.get(), &status) != 0 || status.st_uid != spec.owner))
    return absl::NotFoundError(absl::StrCat("its cgroup ", cgroup, " does not belong to user ", spec.owner));
  return directory;
}

absl::StatusOr<Fd> OwnFile(const ContainerSpec& spec, const CgroupOpener* opener, Hierarchy hierarchy,
                           CgroupFile file) {
  if (opener == nullptr) return absl::NotFoundError("cgroups are not opened here");
  absl::StatusOr<Fd> directory = OwnCgroup(spec, hierarchy);
  if (!directory.ok()) return directory.status();
  Result<Fd> opened = opener->Open(directory->get(), file);
  if (!opened) return ToStatus(opened.error(), "write to its cgroup");
  return *std::move(opened);
}

absl::StatusOr<Fd> FindLever(const ContainerSpec& spec, const CgroupOpener* opener, bool kills) {
  if (spec.first_process <= 0) return absl::NotFoundError("its first process is not known");
  // As long as this one lives, the number is its.
  Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, spec.first_process, 0)));
  if (!pidfd.valid()) return absl::NotFoundError("its first process has ended");

  // Where there are both hierarchies, runtimes freeze and thaw by the freezer's.
  absl::StatusOr<Fd> file = kills ? OwnFile(spec, opener, Hierarchy::kUnified, CgroupFile::kKill)
                                  : OwnFile(spec, opener, Hierarchy::kFreezer, CgroupFile::kFreezerState);
  if (!file.ok() && !kills) {
    absl::StatusOr<Fd> freeze = OwnFile(spec, opener, Hierarchy::kUnified, CgroupFile::kFreeze);
    if (freeze.ok() || absl::StrContains(file.status().message(), "no cgroup")) file = std::move(freeze);
  }
  if (HasEnded(pidfd)) return absl::NotFoundError("its first process has ended");
  if (kills && !file.ok()) return pidfd;
  return file;
}

bool Write(int fd, std::string_view text) {
  return write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

}  // namespace

absl::StatusOr<Fd> TakeLever(const ContainerSpec& spec, const CgroupOpener* opener) {
  const bool kills = spec.policy.default_action == DefaultAction::kKillContainer;
  if (!kills && spec.policy.default_action != DefaultAction::kFreezeContainer) return Fd();
  absl::StatusOr<Fd> lever = FindLever(spec, opener, kills);
  if (lever.ok()) return lever;
  return absl::Status(lever.status().code(),
                      absl::StrCat("container ", spec.name, " cannot be ", kills ? "killed" : "frozen",
                                   " as a whole, which its policy wants: ", lever.status().message()));
}

Result<Fd> ProcessOf(pid_t tid) {
  const auto process =
      static_cast<pid_t>(NumberBehind(Text(absl::StrCat("/proc/", tid, "/status")), "Tgid:").value_or(0));
  if (process <= 0) return Fail(ESRCH);
  Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, process, 0)));
  if (!pidfd.valid()) return FailErrno();
  return pidfd;
}

bool Kill(int lever) {
  if (syscall(SYS_pidfd_send_signal, lever, SIGKILL, nullptr, 0) == 0) return true;
  return errno == EBADF && Write(lever, "1");
}

// Each of the two files refuses the other's word.
bool Freeze(int lever) {
  return Write(lever, "1") || Write(lever, "FROZEN");
}

}  // namespace shunt
