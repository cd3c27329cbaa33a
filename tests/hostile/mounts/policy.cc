// SPDX-License-Identifier: Apache-2.0
// What the policy does not name: devices, filesystems, others' pid namespaces, others' mounts, and more than
// are kept.

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>

#include "core/fd.h"
#include "tests/hostile/mounts/mounts.h"

namespace shunt {
namespace {

void Check(bool right, const char* what) {
  ++tally->tries;
  if (right) return;
  std::fprintf(stderr, "mount_attacks: wrong: %s (%s)\n", what, std::strerror(errno));
  ++tally->through;
}

}  // namespace

void Refused(long result, const char* what) {
  ++tally->tries;
  if (result < 0 && errno == EPERM) return;
  ++tally->through;
  std::fprintf(stderr, "mount_attacks: %s: %s\n", what, result < 0 ? std::strerror(errno) : "done");
}

void Devices() {
  constexpr char kNode[] = "/tmp/node";
  constexpr uint64_t kJunk = 0xdeadbeef00000000, kSomeBits = 0xffff0000;
  struct Unlisted {
    unsigned type, major, minor;
  };
  for (const Unlisted& one : {Unlisted{S_IFBLK, 8, 0},
                              {S_IFCHR, 1, 1},
                              {S_IFBLK, 1, 5},
                              {S_IFCHR, 1, 11},
                              {S_IFCHR, 5, 1},
                              {S_IFCHR, 257, 5},
                              {S_IFCHR, 1, 261},
                              {S_IFCHR, 10, 229}}) {
    const uint64_t mode = one.type | 0600U;
    // As the kernel packs them: the lower byte of the minor, the major, the rest of the minor.
    const uint64_t device = (one.minor & 0xff) | one.major << 8 | (one.minor & ~0xffU) << 12;
    const auto path = LowNumber(kNode);
    for (const uint64_t m : {mode, mode | kJunk, mode | kSomeBits}) {
      for (const uint64_t d : {device, device | kJunk}) {
        Refused(syscall(SYS_mknod, kNode, m, d), "mknod");
        Refused(syscall(SYS_mknodat, AT_FDCWD, kNode, m, d), "mknodat");
        Refused(syscall(SYS_mknodat, AT_FDCWD | kJunk, kNode, m, d), "mknodat");
        if (!HasInt80()) continue;
        Refused(Int80(14, path, m, d), "mknod by int 0x80");
        Refused(Int80(297, static_cast<uintptr_t>(AT_FDCWD), path, m, d), "mknodat by int 0x80");
      }
    }
  }
}

void Types() {
  Refused(mount("sysfs", kProc, "sysfs", 0, nullptr), "sysfs");
  if (HasInt80()) Refused(Mount32("sysfs", kProc, "sysfs", 0), "sysfs by int 0x80");
  InChild([] {
    DropCapabilities();
    Refused(MountProc(kProc), "proc of who may not");
    if (HasInt80()) Refused(Mount32("proc", kProc, "proc", 0), "proc of who may not, by int 0x80");
    Refused(syscall(SYS_mount, "proc", kProc, "proc", 0xdeadbeef'c0ed0000, 0),
            "proc of who may not, by odd flags");
  });
}

// Views of other pid namespaces than its own, by an option: which numbers there are out there can be guessed.
void OtherPids() {
  for (const char* option : {"pidns=/proc/", "hidepid=0,pidns=/proc/"}) {
    for (int pid = 0; pid < 200; ++pid) {
      ++tally->tries;
      const std::string process = pid == 0 ? "self" : std::to_string(pid);
      if (MountProc(kProc, (option + process + "/ns/pid").c_str()) != 0) continue;
      ++tally->through;
      umount2(kProc, MNT_DETACH);
    }
  }
}

// Between what the policy looks at and what is made, the type changes.
void FlipType(long tries) {
  char type[] = "proc\0";
  std::atomic<bool> stop = false;
  std::thread flipper([&] {
    for (unsigned i = 1; !stop; i = i * 1103515245 + 12345) {
      std::memcpy(type, i & 1 << 16 ? "sysfs" : "proc\0", 6);
      for (unsigned hold = i >> 20; hold > 0; --hold) asm volatile("" ::: "memory");
    }
  });
  long done = 0;
  for (long i = 0; i < tries || (done == 0 && i < 100 * tries); ++i) {
    ++tally->tries;
    if (mount("x", kProc, type, 0, nullptr) != 0) continue;
    ++done;
    if (!IsProc(std::string(kProc))) ++tally->through;
    Look(kProc);
    umount2(kProc, MNT_DETACH);
  }
  stop = true;
  flipper.join();
  if (done == 0) Fail("no proc among the flipped");
}

void WhoseIsIt() {
  for (const std::string& directory : {kA, kB, kC}) mkdir(directory.c_str(), 0755);
  if (MountProc(kProc) != 0 || mount("tmpfs", kA.c_str(), "tmpfs", 0, nullptr) != 0) return Fail("mounts");
  Check(umount2(kB.c_str(), 0) != 0 && errno == EINVAL, "umount of what is no mount");
  Check(umount2("/proc", 0) != 0 && (errno == EINVAL || errno == EBUSY), "umount of the container's proc");
  Check(umount2("/proc", MNT_DETACH) != 0 && errno == EINVAL, "umount of the container's proc, lazily");
  Check(umount2("/", MNT_DETACH) != 0 && errno == EINVAL, "umount of the root");
  InChild([] {
    DropCapabilities();
    for (const char* path : {kProc, kA.c_str(), "/proc"}) {
      for (const int flags : {0, +MNT_DETACH, +MNT_FORCE})
        Check(umount2(path, flags) != 0 && errno == EPERM, "umount by who may not");
    }
  });
  Check(IsProc(std::string(kProc)), "it is still there");
  Check(umount(kA.c_str()) == 0, "umount of its own tmpfs");
  if (HasInt80()) {
    Check(MountProc(kB) == 0 && Int80(22, LowNumber(kB.c_str())) == 0, "umount of ours by int 0x80");
    Check(Mount32("proc", kB.c_str(), "proc", 0) == 0 && Int80(52, LowNumber(kB.c_str()), 0) == 0,
          "the same of one that was mounted so");
  }
  Check(umount2(kProc, 0) == 0, "umount of ours");
  Check(umount2(kProc, 0) != 0 && errno == EINVAL, "a second umount");
}

void TooMany() {
  constexpr int kKept = 128;
  mkdir(kA.c_str(), 0755);
  if (mount("tmpfs", kA.c_str(), "tmpfs", 0, nullptr) != 0) return Fail("a tmpfs");
  const auto place = [](int i) { return kA + "/" + std::to_string(i); };
  for (int i = 0; i <= kKept + 1; ++i) mkdir(place(i).c_str(), 0755);
  for (int i = 0; i < kKept; ++i) Check(MountProc(place(i)) == 0, "one of many");
  Check(MountProc(place(kKept)) != 0 && errno == ENOSPC, "one too many");
  Check(!IsProc(place(kKept)), "nothing was mounted then");
  Check(umount2(place(7).c_str(), 0) == 0, "one goes");
  Check(MountProc(place(kKept)) == 0, "one comes");
  Check(MountProc(place(7)) != 0 && errno == ENOSPC, "one too many again");
  // All at once, by none of the calls that are watched for each.
  Check(umount2(kA.c_str(), MNT_DETACH) == 0, "all go");
  for (int i = 0; i < 3; ++i) {
    Check(MountProc(kProc) == 0, "one comes when all have gone");
    Check(umount2(kProc, 0) == 0, "and goes");
  }
}

}  // namespace shunt
