// SPDX-License-Identifier: Apache-2.0
// The masks of a new proc or sysfs shall come off, or what they hide be seen beside them.

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>

#include "core/fd.h"
#include "tests/hostile/mounts/mounts.h"

namespace shunt {
namespace {

void TakeMasksOff(const std::string& proc) {
  for (const char* mask : masks) {
    const std::string path = proc + mask;
    for (const int flags :
         {0, +MNT_DETACH, +MNT_FORCE, +MNT_EXPIRE, +MNT_EXPIRE, MNT_DETACH | UMOUNT_NOFOLLOW}) {
      umount2(path.c_str(), flags);
      Int80(52, LowNumber(path.c_str()), static_cast<uintptr_t>(flags));
    }
    Int80(22, LowNumber(path.c_str()));
    Look(proc);
  }
}

void BindAway(const std::string& proc) {
  for (const unsigned long recursive : {0UL, static_cast<unsigned long>(MS_REC)}) {
    for (const std::string& from :
         {proc, proc + "/sys", proc + "/tty", proc + "/self", proc + "/sys/kernel"}) {
      if (mount(from.c_str(), kB.c_str(), nullptr, MS_BIND | recursive, nullptr) != 0) continue;
      Look(kB);
      Look(kB + "/..");
      TakeMasksOff(kB);
      // /sys alone: its files are those of the read-only one.
      const Fd writable(open((kB + (from.ends_with("kernel") ? "/ostype" : "/kernel/ostype")).c_str(),
                             O_WRONLY | O_TRUNC | O_CLOEXEC));
      if (writable.valid() || errno == EACCES) ++tally->through;
      umount2(kB.c_str(), MNT_DETACH);
    }
    if (mount("/", kB.c_str(), nullptr, MS_BIND | recursive, nullptr) == 0) {
      Look(kB + proc);
      TakeMasksOff(kB + proc);
      umount2(kB.c_str(), MNT_DETACH);
    }
  }
  const std::string file = "/tmp/file";
  Fd(open(file.c_str(), O_CREAT | O_WRONLY, 0600));
  if (mount((proc + "/version").c_str(), file.c_str(), nullptr, MS_BIND, nullptr) == 0) {
    char byte;
    const Fd opened(open(file.c_str(), O_RDONLY | O_CLOEXEC));
    if (opened.valid() && read(opened.get(), &byte, 1) > 0) ++tally->through;
    umount2(file.c_str(), MNT_DETACH);
  }
  Mount32(proc.c_str(), kB.c_str(), nullptr, MS_BIND);
  Look(kB);
  umount2(kB.c_str(), MNT_DETACH);
}

void MoveAway(const std::string& proc) {
  for (const char* mask : masks) {
    mount((proc + mask).c_str(), kB.c_str(), nullptr, MS_MOVE, nullptr);
    Look(proc);
    Mount32((proc + mask).c_str(), kB.c_str(), nullptr, MS_MOVE);
    Look(proc);
  }
  if (mount(proc.c_str(), kB.c_str(), nullptr, MS_MOVE, nullptr) == 0) {
    TakeMasksOff(kB);
    if (mount(kB.c_str(), proc.c_str(), nullptr, MS_MOVE, nullptr) != 0) Fail("moving back");
  }
}

void Remount(const std::string& proc) {
  for (const std::string& path : {proc, proc + "/sys", proc + "/tty", proc + "/version"}) {
    for (const unsigned long flags : {MS_REMOUNT | MS_BIND, MS_REMOUNT + 0, MS_REMOUNT | MS_BIND | MS_REC,
                                      MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NOEXEC | MS_NODEV}) {
      mount(nullptr, path.c_str(), nullptr, flags, nullptr);
      mount("proc", path.c_str(), "proc", flags, "hidepid=0");
      mount("proc", path.c_str(), "proc", flags, "subset=");
      mount("proc", path.c_str(), "proc", 0xc0ed0000 | flags, nullptr);
      Mount32("proc", path.c_str(), "proc", static_cast<unsigned>(flags));
      Look(proc);
    }
    for (const unsigned long flags : {MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE}) {
      mount(nullptr, path.c_str(), nullptr, flags, nullptr);
      Look(proc);
      BindAway(proc);
    }
    mount(nullptr, path.c_str(), nullptr, MS_PRIVATE, nullptr);
  }
}

void Cover(const std::string& proc) {
  for (const char* mask : {masks[1], masks[2], ""}) {
    const std::string path = proc + mask;
    for (const char* type : {"tmpfs", type_attacked}) {
      if (mount(type, path.c_str(), type, 0, nullptr) != 0) continue;
      Look(path);
      if (*type != 't') TakeMasksOff(path);
      umount2(path.c_str(), MNT_DETACH);
      TakeMasksOff(proc);
    }
  }
  if (MountProc(kB) == 0) {
    TakeMasksOff(kB);
    umount2(kB.c_str(), MNT_DETACH);
    Look(kB);
  }
}

void SetFlagless(const char* path, int at, unsigned flags) {
  mount_attr attributes{};
  attributes.attr_clr = MOUNT_ATTR_RDONLY;
  mount_setattr(at, path, flags, &attributes, sizeof(attributes));
}

void NewerCalls(const std::string& proc) {
  const Fd filesystem(fsopen(type_attacked, 0));
  fsconfig(filesystem.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0);
  const Fd made(fsmount(filesystem.get(), 0, 0));
  ++tally->tries;
  if (made.valid()) LookAt(made.get());
  for (const std::string& path : {proc, proc + "/sys", proc + "/self", std::string("/")}) {
    for (const unsigned flags : {0U, 1U /* OPEN_TREE_CLONE */, 1U | AT_RECURSIVE, 1U | AT_NO_AUTOMOUNT}) {
      const Fd tree(open_tree(AT_FDCWD, path.c_str(), flags));
      ++tally->tries;
      if (!tree.valid()) continue;
      const Fd at(openat(tree.get(), path == "/" ? proc.c_str() + 1 : ".", O_PATH | O_DIRECTORY));
      LookAt(at.get());
      SetFlagless("", tree.get(), AT_EMPTY_PATH);
      SetFlagless("", tree.get(), AT_EMPTY_PATH | AT_RECURSIVE);
      LookAt(at.get());
      if (flags != 0 && move_mount(tree.get(), "", AT_FDCWD, kB.c_str(), MOVE_MOUNT_F_EMPTY_PATH) == 0) {
        TakeMasksOff(path == "/" ? kB + proc : kB);
        umount2(kB.c_str(), MNT_DETACH);
        LookAt(at.get());
      }
    }
  }
  for (const char* mask : masks) {
    const std::string path = proc + mask;
    SetFlagless(path.c_str(), AT_FDCWD, 0);
    SetFlagless(path.c_str(), AT_FDCWD, AT_RECURSIVE);
    Look(proc);
    move_mount(AT_FDCWD, path.c_str(), AT_FDCWD, kB.c_str(), 0);
    Look(proc);
    const Fd own(open_tree(AT_FDCWD, path.c_str(), 0));
    move_mount(own.get(), "", AT_FDCWD, kB.c_str(), MOVE_MOUNT_F_EMPTY_PATH);
    constexpr unsigned kBeneath = 0x200;  // MOVE_MOUNT_BENEATH
    const Fd below(open_tree(AT_FDCWD, "/tmp", 1));
    move_mount(below.get(), "", AT_FDCWD, path.c_str(), MOVE_MOUNT_F_EMPTY_PATH | kBeneath);
    TakeMasksOff(proc);
  }
  SetFlagless(proc.c_str(), AT_FDCWD, AT_RECURSIVE);
  Look(proc);
}

// A proc with nothing but processes has nothing to be masked, until it is told to show the rest.
void ShowRest(const std::string&) {
  for (const char* data : {"subset=pid", "subset=pid,hidepid=1", "hidepid=2", "gid=0"}) {
    ++tally->tries;
    if (MountProc(kB, data) != 0) continue;
    Look(kB);
    for (const char* again : {"subset=", "subset", "hidepid=0", ""}) {
      mount("none", kB.c_str(), type_attacked, MS_REMOUNT, again);
      Look(kB);
    }
    for (const char* value : {",", "", ",,"}) {
      const Fd picked(fspick(AT_FDCWD, kB.c_str(), 0));
      fsconfig(picked.get(), FSCONFIG_SET_STRING, "subset", value, 0);
      fsconfig(picked.get(), FSCONFIG_CMD_RECONFIGURE, nullptr, nullptr, 0);
      Look(kB);
    }
    umount2(kB.c_str(), MNT_DETACH);
  }
}

void AllOfThese(const std::string& proc) {
  TakeMasksOff(proc);
  BindAway(proc);
  MoveAway(proc);
  Cover(proc);
  SetFlagless((proc + "/sys").c_str(), AT_FDCWD, AT_RECURSIVE);
  mount(nullptr, (proc + "/sys").c_str(), nullptr, MS_REMOUNT | MS_BIND, nullptr);
  Look(proc);
}

void UnshareMounts(const std::string& proc) {
  InChild([&] {
    if (unshare(CLONE_NEWNS) == 0) AllOfThese(proc);
  });
}

void UnshareUser(const std::string& proc) {
  InChild([&] {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return;  // nor may others
    Write("/proc/self/setgroups", "deny");
    Write("/proc/self/uid_map", "0 0 1");
    mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
    AllOfThese(proc);
    InChild([&] {
      if (unshare(CLONE_NEWNS) == 0) AllOfThese(proc);
    });
  });
}

// Whoever is in it when it goes stays in it.
void HoldWhileItGoes(const std::string& proc) {
  const auto go = [](const std::string& held, const std::string& gone, int flags) {
    const Fd path(open(held.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    const Fd directory(open(held.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const Fd within(open((held + "/sys/..").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!path.valid() || !directory.valid()) return Fail("a descriptor of the proc");
    umount2(gone.c_str(), flags);
    LookAt(path.get());
    LookAt(directory.get());
    LookAt(within.get());
    const std::string by_fd = "/proc/self/fd/" + std::to_string(path.get());
    for (const char* mask : masks) umount2((by_fd + mask).c_str(), MNT_DETACH);
    LookAt(path.get());
    InChild([&] {
      if (fchdir(directory.get()) == 0) {
        for (const char* mask : masks) umount2(mask + 1, MNT_DETACH);
        Look(".");
      }
    });
  };
  if (mount(proc.c_str(), kB.c_str(), nullptr, MS_BIND | MS_REC, nullptr) == 0) go(kB, kB, MNT_DETACH);
  if (mount("tmpfs", kC.c_str(), "tmpfs", 0, nullptr) == 0) {
    const std::string inner = kC + "/p";
    mkdir(inner.c_str(), 0755);
    if (MountProc(inner) != 0) Fail("a proc on a tmpfs");
    go(inner, kC, MNT_DETACH);
  }
  for (const int flags : {0, +MNT_DETACH, +MNT_FORCE, MNT_DETACH | UMOUNT_NOFOLLOW}) {
    if (MountProc(kB) != 0) Fail("another proc");
    go(kB, kB, flags);
    umount2(kB.c_str(), MNT_DETACH);
  }
  go(proc, proc, MNT_DETACH);
}

// In a mount namespace where it is not in use its mount point can be removed, which takes it away elsewhere.
void RemoveMountPoint(const std::string&) {
  const std::string point = kC + "/point";
  mkdir(point.c_str(), 0755);
  if (MountProc(point) != 0) return Fail("a proc");
  const Fd held(open(point.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  InChild([&] {
    if (unshare(CLONE_NEWNS) != 0) return;
    mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
    umount2(point.c_str(), MNT_DETACH);
    rmdir(point.c_str());
  });
  LookAt(held.get());
  umount2(point.c_str(), MNT_DETACH);
}

void BeItsRoot(const std::string& proc) {
  InChild([&] {
    if (chroot(proc.c_str()) == 0 && chdir("/") == 0) TakeMasksOff("");
  });
  InChild([&] {
    if (unshare(CLONE_NEWNS) != 0 || chdir(proc.c_str()) != 0) return;
    if (syscall(SYS_pivot_root, ".", ".") != 0) return;
    Look("/");
    umount2(".", MNT_DETACH);
    chdir("/");
    Look("/");
    TakeMasksOff("");
    Remount("");
  });
}

void Propagate(const std::string&) {
  if (mount("tmpfs", kA.c_str(), "tmpfs", 0, nullptr) != 0) return;
  mount(nullptr, kA.c_str(), nullptr, MS_SHARED, nullptr);
  mount(kA.c_str(), kB.c_str(), nullptr, MS_BIND, nullptr);
  const std::string here = kA + "/p", there = kB + "/p";
  mkdir(here.c_str(), 0755);
  if (MountProc(here) != 0) return Fail("a proc on what is shared");
  Look(there);
  TakeMasksOff(there);
  TakeMasksOff(here);
  const Fd held(open(there.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  umount2((there + "/tty").c_str(), MNT_DETACH);
  InChild([&] {
    if (unshare(CLONE_NEWNS) != 0) return;
    TakeMasksOff(there);
    mount(nullptr, there.c_str(), nullptr, MS_PRIVATE | MS_REC, nullptr);
    TakeMasksOff(there);
    BindAway(there);
    umount2(there.c_str(), MNT_DETACH);
  });
  LookAt(held.get());
  if (MountProc(here) == 0) {
    const Fd other(open(there.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    umount2(here.c_str(), 0);
    LookAt(other.get());
  }
  umount2(kA.c_str(), MNT_DETACH);
  LookAt(held.get());
  umount2(kB.c_str(), MNT_DETACH);
  LookAt(held.get());
}

// The other way round: from outside into a copy of the mount namespace, and from there back.
void JoinOthers(const std::string& proc) {
  std::array<int, 2> ready, done;
  if (pipe(ready.data()) != 0 || pipe(done.data()) != 0) return Fail("pipe");
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const bool other = unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0;
    char byte = other ? '+' : '-';
    write(ready[1], &byte, 1);
    read(done[0], &byte, 1);
    _exit(0);
  }
  char byte = 0;
  read(ready[0], &byte, 1);
  if (byte == '+') {
    const Fd other(static_cast<int>(syscall(SYS_pidfd_open, child, 0)));
    const Fd held(open(proc.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    for (const bool become : {false, true}) {
      InChild([&] {
        if (become && setns(other.get(), CLONE_NEWUSER) != 0) return;
        if (setns(other.get(), CLONE_NEWNS) != 0) return;
        AllOfThese(proc);
        const Fd its_own(open(proc.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
        umount2(proc.c_str(), MNT_DETACH);
        LookAt(its_own.get());
        LookAt(held.get());
      });
    }
  }
  close(done[1]);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

// What hides a file is one of the host's own, and its owner's root may be who attacks.
void ChangeWhatHides(const std::string& proc) {
  for (const char* mask : masks) {
    const std::string path = proc + mask;
    if (chmod(path.c_str(), 0666) == 0 || chown(path.c_str(), 0, 0) == 0 ||
        utimensat(AT_FDCWD, path.c_str(), nullptr, 0) == 0)
      ++tally->through;
  }
}

struct Attack {
  const char* name;
  void (*run)(const std::string& proc);
};
constexpr Attack kUnmasking[] = {
    {"look", Look},
    {"umount", TakeMasksOff},
    {"bind", BindAway},
    {"move", MoveAway},
    {"remount", Remount},
    {"cover", Cover},
    {"newer-calls", NewerCalls},
    {"subset", ShowRest},
    {"change", ChangeWhatHides},
    {"unshare-mounts", UnshareMounts},
    {"unshare-user", UnshareUser},
    {"hold", HoldWhileItGoes},
    {"remove-mount-point", RemoveMountPoint},
    {"be-root", BeItsRoot},
    {"propagate", Propagate},
    {"join", JoinOthers},
};

}  // namespace

void Unmask(bool nests) {
  for (const Attack& attack : kUnmasking) {
    const auto body = [&attack] {
      for (const std::string& directory : {kA, kB, kC}) mkdir(directory.c_str(), 0755);
      if (MountProc(kProc) != 0) return Fail("the proc");
      ++tally->tries;
      attack.run(kProc);
      for (const char* left : {kProc, kA.c_str(), kB.c_str(), kC.c_str(), "/tmp/c/point"}) {
        for (int i = 0; i < 20 && umount2(left, MNT_DETACH) == 0; ++i) {
        }
      }
    };
    if (nests) {
      InNest(body, CLONE_NEWNS | CLONE_NEWPID | (IsSysfs() ? CLONE_NEWNET : 0));
    } else {
      InChild(body);
    }
    Report(attack.name);
  }
}

}  // namespace shunt
