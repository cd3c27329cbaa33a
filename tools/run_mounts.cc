// SPDX-License-Identifier: Apache-2.0

#include "tools/run_mounts.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "absl/strings/str_cat.h"
#include "core/fd.h"

namespace shunt {
namespace {

constexpr unsigned long kQuiet = MS_NOSUID | MS_NODEV | MS_NOEXEC;

absl::Status Mount(const std::string& source, const std::string& target, const char* type,
                   unsigned long flags, const char* options = nullptr) {
  if (mount(source.c_str(), target.c_str(), type, flags, options) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("mount ", type == nullptr ? source : type, " on ", target));
}

// Mounts below us stay ours; those that the host makes later still arrive.
absl::Status LeaveHostAlone() {
  return Mount("none", "/", nullptr, MS_REC | MS_SLAVE);
}

// A detached copy of what is mounted at and below `path`.
Fd CloneTree(const char* path) {
  return Fd(open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE));
}

void AttachTree(int tree_fd, const char* path) {
  move_mount(tree_fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH);
}

// /sys shows the network devices of the namespace that it was mounted in. The control groups are mounted
// below it and programs look there for their limits: they are carried over. Without the kernel's leave /sys
// stays the host's, which only misinforms those who look for devices there.
void RefreshSys() {
  const Fd cgroups = CloneTree("/sys/fs/cgroup");
  if (mount("sysfs", "/sys", "sysfs", kQuiet, nullptr) == 0 && cgroups.valid()) {
    AttachTree(cgroups.get(), "/sys/fs/cgroup");
  }
}

absl::Status CreateFile(const std::string& path) {
  const Fd file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (file.valid()) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("create ", path));
}

absl::Status CreateDirectory(const std::string& path, mode_t mode) {
  // Not subject to the umask: /dev/shm is for everybody.
  if (mkdir(path.c_str(), mode) == 0 && chmod(path.c_str(), mode) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("create ", path));
}

absl::Status BindDevice(const std::string& host_path, const std::string& path) {
  if (absl::Status status = CreateFile(path); !status.ok()) return status;
  return Mount(host_path, path, nullptr, MS_BIND);
}

absl::Status MountDev(const std::string& dev, const std::string& tty_path) {
  absl::Status status = Mount("tmpfs", dev, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=65536k");
  for (const char* const name : {"null", "zero", "full", "random", "urandom", "tty"}) {
    if (status.ok()) status = BindDevice(absl::StrCat("/dev/", name), absl::StrCat(dev, "/", name));
  }
  if (status.ok() && !tty_path.empty()) status = BindDevice(tty_path, dev + "/console");
  if (status.ok()) status = CreateDirectory(dev + "/pts", 0755);
  if (status.ok()) status = CreateDirectory(dev + "/shm", 01777);
  if (status.ok()) status = Mount("tmpfs", dev + "/shm", "tmpfs", kQuiet, "mode=1777");
  if (!status.ok()) return status;
  const std::string pts = dev + "/pts";
  // gid 5 is "tty"; a container of one user does not have it.
  const unsigned long pts_flags = MS_NOSUID | MS_NOEXEC;
  if (mount("devpts", pts.c_str(), "devpts", pts_flags, "newinstance,ptmxmode=0666,mode=0620,gid=5") != 0) {
    status = Mount("devpts", pts, "devpts", pts_flags, "newinstance,ptmxmode=0666,mode=0620");
    if (!status.ok()) return status;
  }
  const char* const links[][2] = {{"pts/ptmx", "ptmx"},
                                  {"/proc/self/fd", "fd"},
                                  {"/proc/self/fd/0", "stdin"},
                                  {"/proc/self/fd/1", "stdout"},
                                  {"/proc/self/fd/2", "stderr"}};
  for (const auto& [target, name] : links) {
    const std::string path = absl::StrCat(dev, "/", name);
    if (symlink(target, path.c_str()) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("create ", path));
  }
  return absl::OkStatus();
}

// A mount point of the root filesystem must be a directory of it: a symbolic link could lead out of it.
absl::Status CheckMountPoint(const std::string& path) {
  struct stat info;
  if (lstat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) return absl::OkStatus();
  return absl::NotFoundError(
      absl::StrCat(path, " is not a directory; a root filesystem needs one: mkdir ", path));
}

}  // namespace

absl::StatusOr<std::string> MountHostView() {
  if (absl::Status status = LeaveHostAlone(); !status.ok()) return status;
  RefreshSys();
  if (mount("proc", "/proc", "proc", kQuiet, nullptr) == 0) return "";
  if (errno != EPERM) return absl::ErrnoToStatus(errno, "mount proc on /proc");
  return "/proc shows the processes outside, too, because an outer container hides parts of it";
}

absl::Status EnterRootfs(const std::string& rootfs, const std::string& tty_path) {
  absl::Status status = LeaveHostAlone();
  if (status.ok()) status = CheckMountPoint(rootfs + "/proc");
  if (status.ok()) status = CheckMountPoint(rootfs + "/dev");
  // pivot_root wants a mount. From here on the path leads to it.
  if (status.ok()) status = Mount(rootfs, rootfs, nullptr, MS_BIND | MS_REC);
  // Before the host's /proc and /sys are gone: the kernel gives new ones only to who sees others already.
  if (status.ok()) status = Mount("proc", rootfs + "/proc", "proc", kQuiet);
  if (status.ok()) status = MountDev(rootfs + "/dev", tty_path);
  if (!status.ok()) return status;
  if (CheckMountPoint(rootfs + "/sys").ok()) {
    mount("sysfs", (rootfs + "/sys").c_str(), "sysfs", kQuiet | MS_RDONLY, nullptr);
  }
  // The new root over the old one, then the old one away from under it: no directory is needed to put it in.
  if (chdir(rootfs.c_str()) != 0 || syscall(SYS_pivot_root, ".", ".") != 0 || umount2(".", MNT_DETACH) != 0 ||
      chdir("/") != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("make ", rootfs, " the root directory"));
  }
  return absl::OkStatus();
}

absl::Status ReplaceResolvConf(const std::string& content) {
  const std::unique_ptr<char, decltype(&free)> target(realpath("/etc/resolv.conf", nullptr), &free);
  if (target == nullptr) return absl::OkStatus();
  // The file needs a place that nobody else sees and that needs no cleaning up: a filesystem that is in the
  // way of /proc for a moment. The file's own mount keeps it.
  absl::Status status = Mount("tmpfs", "/proc", "tmpfs", kQuiet, "mode=755,size=64k");
  if (!status.ok()) return status;
  const Fd file(open("/proc/resolv.conf", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!file.valid() || fchmod(file.get(), 0644) != 0 ||
      write(file.get(), content.data(), content.size()) != static_cast<ssize_t>(content.size())) {
    status = absl::ErrnoToStatus(errno, "write the container's resolv.conf");
  }
  if (status.ok()) status = Mount("/proc/resolv.conf", target.get(), nullptr, MS_BIND);
  umount2("/proc", MNT_DETACH);
  return status;
}

}  // namespace shunt
