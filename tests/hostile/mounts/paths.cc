// SPDX-License-Identifier: Apache-2.0
// Mounts and devices shall land outside of the caller's root.

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

// A directory's entries are exchanged for one another without a pause, by a process that is not in the jail.
class Swapper {
 public:
  Swapper(const std::string& one, const std::string& other) {
    child_ = fork();
    if (child_ != 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) renameat2(AT_FDCWD, one.c_str(), AT_FDCWD, other.c_str(), RENAME_EXCHANGE);
  }
  ~Swapper() {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }
  Swapper(const Swapper&) = delete;
  Swapper& operator=(const Swapper&) = delete;

 private:
  pid_t child_;
};

void MakeJail() {
  for (const char* directory :
       {"/tmp/outside", "/tmp/outside/x", "/tmp/jail", "/tmp/jail/inside", "/tmp/jail/inside/x",
        "/tmp/jail/proc", "/tmp/jail/deep", "/tmp/jail/deep/er", "/tmp/jail/deep/er/x", "/tmp/jail/tmp",
        "/tmp/jail/tmp/outside", "/tmp/jail/tmp/outside/x", "/tmp/jail/x"})
    mkdir(directory, 0755);
}

// Nothing is on what lies outside, as seen from there.
void LookOutside(int outside, const char* how) {
  const Fd mounted(openat(outside, "x", O_PATH | O_DIRECTORY | O_CLOEXEC));
  struct stat info {};
  const bool got_out = IsProc(outside) || IsProc(mounted.get()) ||
                       fstatat(outside, "node", &info, AT_SYMLINK_NOFOLLOW) == 0 ||
                       fstatat(outside, "x/node", &info, AT_SYMLINK_NOFOLLOW) == 0;
  if (!got_out) return;
  ++tally->through;
  std::fprintf(stderr, "mount_attacks: outside by %s\n", how);
}

void TryPath(const std::string& path) {
  const bool mounted = MountProc(path) == 0;
  const std::string node = path + "/node";
  ++tally->tries;
  if (mounted) umount2(path.c_str(), MNT_DETACH);
  if (mknod(node.c_str(), S_IFCHR | 0600, kZero) == 0) {
    ++tally->tries;
    umount2(node.c_str(), MNT_DETACH);
    unlink(node.c_str());
  }
}

}  // namespace

// All that is reached from a jail's root stays in it, whatever is exchanged meanwhile.
void Swap(long tries, const char* host) {
  const std::string ways_out[] = {"../outside",
                                  "/../../outside",
                                  "/tmp/../../outside",
                                  "/proc/self/root/../outside",
                                  "/proc/self/cwd/../../outside",
                                  "/proc/thread-self/root/../outside",
                                  "/proc/1/root/tmp/outside",
                                  "deep/../../outside",
                                  host,
                                  std::string("/proc/1/root") + host};
  MakeJail();
  const Fd outside(open("/tmp/outside", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (MountProc("/tmp/jail/proc") != 0) return Fail("the jail's proc");
  for (const std::string& way : ways_out) {
    unlink("/tmp/jail/link");
    unlink("/tmp/jail/link2");
    if (symlink("inside", "/tmp/jail/link") != 0 || symlink(way.c_str(), "/tmp/jail/link2") != 0)
      Fail("symlink");
    const Swapper swapper("/tmp/jail/link", "/tmp/jail/link2");
    InChild([&] {
      if (chroot("/tmp/jail") != 0 || chdir("/") != 0) return Fail("chroot");
      for (long i = 0; i < tries / 10 + 1; ++i) {
        // Not looked at from the jail's outside after the umount: so look in between.
        for (const char* path : {"/link", "/link/x", "link/x", "/link/../link/x"}) {
          if (MountProc(path) == 0) {
            ++tally->tries;
            LookOutside(outside.get(), way.c_str());
            for (const char* place :
                 {"/inside", "/inside/x", "/tmp/outside", "/tmp/outside/x", "/x", "/proc/self/cwd/x"})
              if (IsProc(std::string(place))) umount2(place, MNT_DETACH);
            if (IsProc("/link")) umount2("/link", MNT_DETACH);
          }
          if (mknod((std::string(path) + "/node").c_str(), S_IFCHR | 0600, kZero) == 0) {
            ++tally->tries;
            LookOutside(outside.get(), way.c_str());
            for (const char* place :
                 {"/inside/node", "/inside/x/node", "/tmp/outside/node", "/tmp/outside/x/node"}) {
              umount2(place, MNT_DETACH);
              unlink(place);
            }
          }
        }
      }
    });
  }
  // A directory for a link, and the last component of a node's.
  mkdir("/tmp/jail/turn", 0755);
  mkdir("/tmp/jail/turn/x", 0755);
  unlink("/tmp/jail/link");
  if (symlink("../outside", "/tmp/jail/link") != 0) Fail("symlink");
  const Swapper swapper("/tmp/jail/link", "/tmp/jail/turn");
  InChild([&] {
    if (chroot("/tmp/jail") != 0 || chdir("/") != 0) return Fail("chroot");
    for (long i = 0; i < tries; ++i) {
      TryPath("/turn/x");
      LookOutside(outside.get(), "a turn");
      mknod("/turn", S_IFCHR | 0600, kZero);
      LookOutside(outside.get(), "a turn");
    }
  });
}

// By each way a mount lands where the caller's own walk leads, or fails as that does.
void Walk() {
  MakeJail();
  if (MountProc("/tmp/jail/proc") != 0) return Fail("the jail's proc");
  const Fd outside(open("/tmp/outside", O_PATH | O_DIRECTORY | O_CLOEXEC));
  const Fd deep(open("/tmp/jail/deep/er", O_PATH | O_DIRECTORY | O_CLOEXEC));
  const std::string number = std::to_string(deep.get());
  InChild([&] {
    if (chroot("/tmp/jail") != 0 || chdir("/deep") != 0) return Fail("chroot");
    symlink("/proc/self/fd", "/links");
    symlink("/", "/top");
    const auto walk = [&](const std::string& path, bool magic, const char* seen_by = nullptr) {
      ++tally->tries;
      const Fd native(open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
      const int expected = native.valid() ? 0 : errno;
      const int got = MountProc(path) == 0 ? 0 : errno;
      const Fd after(open(seen_by != nullptr ? seen_by : path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
      const bool alike = got == 0 ? expected == 0 && IsProc(after.get())
                                  : got == expected || (magic && (got == ELOOP || got == ENOENT));
      LookOutside(outside.get(), path.c_str());
      if (!alike) {
        ++tally->through;
        std::fprintf(stderr, "mount_attacks: %s is %d natively, and %d\n", path.c_str(), expected, got);
      }
      if (got == 0 && umount2(path.c_str(), MNT_DETACH) != 0) Fail("its umount");
    };
    for (const char* path :
         {"er", "./er/x", "../inside/x", "../../../inside", "/top/top/inside", "er/../../../../inside/x",
          "/inside/", "/inside//x//", "/tmp/outside", "/nowhere", "/inside/none", "/top/../../outside/x"})
      walk(path, false);
    for (const char* path : {"/proc/self/root/inside", "/proc/self/cwd/er", "/proc/self/root/../../inside",
                             "/proc/thread-self/cwd/er/x", "/proc/self/cwd/../inside"})
      walk(path, false);
    walk("/proc/self/fd/" + number + "/x", false);
    walk("/proc/self/fd/" + number, false, "/deep/er");  // such a link leads below what is mounted on it
    walk("/proc/self/fd/" + number + "/../../inside", false);
    walk("/proc/self/fd/99", false);
    walk("/links/" + number + "/x", true);
    walk("/proc/1/root/inside", true);
    walk("/proc/1/cwd", true);
    // What a caller is in may be taken out of its root; then its own walk leads there as well.
    InChild([&] {
      if (fchdir(deep.get()) != 0) return;
      renameat(outside.get(), "../jail/deep/er", outside.get(), "../er");
      ++tally->tries;
      if (MountProc("x") == 0) {
        if (!IsProc("x")) ++tally->through;
        umount2("x", MNT_DETACH);
      }
      renameat(outside.get(), "../er", outside.get(), "../jail/deep/er");
    });
  });
}

void MountOverParent(long tries) {
  MakeJail();
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
      mount("tmpfs", "/tmp/jail/deep", "tmpfs", 0, nullptr);
      mkdir("/tmp/jail/deep/er", 0755);
      umount2("/tmp/jail/deep", MNT_DETACH);
    }
  }
  for (long i = 0; i < tries; ++i) {
    TryPath("/tmp/jail/deep/er");
    ++tally->tries;
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  umount2("/tmp/jail/deep", MNT_DETACH);
  umount2("/tmp/jail/deep/er", MNT_DETACH);
  // It was put on what the caller saw at some moment: below, or above, and nowhere else.
  for (const char* place : {"/tmp", "/tmp/jail", "/tmp/outside", "/tmp/jail/inside"})
    if (IsProc(std::string(place))) ++tally->through;
}

}  // namespace shunt
