// SPDX-License-Identifier: Apache-2.0
// What a hostile container does to the mounts and devices that it is given. A static program, so that it runs
// in any root filesystem; mount_attack_test.py starts it. It prints a line for each attack: its name, how
// often it was tried, how often something got through; and ends with 0 if all could be tried.
//
//   mount_attacks unmask nested|here [sysfs]
//       a new proc (or sysfs) of a nested root's, or of the caller's as it is: its masks shall come off
//   mount_attacks paths TRIES HOST
//       mounts and devices shall land outside of a root; HOST: a directory of the host's
//   mount_attacks policy TRIES
//       what the policy does not name
//   mount_attacks ends
//       umount of what is whose, and more mounts than are kept
//   mount_attacks shared VOLUME OWN
//       who has no CAP_SYS_ADMIN mounts on what the container shares with the host; VOLUME: such a directory,
//       OWN: one that it shares with nobody
//   mount_attacks errnos DIRECTORY
//       no attack: the errno of odd arguments, one a line, to be compared with native ones
//   mount_attacks calls
//       makes calls as told by its input; says what came of them
//
// /proc/version and /proc/tty are masked in the container, and /proc/sys is read-only; /sys/kernel and
// /sys/fs are masked, and all of /sys is read-only.

#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <new>
#include <string>
#include <vector>

#include "tests/hostile/mounts/mounts.h"

namespace shunt {
namespace {

int CountOf(const char* path) {
  std::ifstream mounts("/proc/self/mountinfo");
  std::string line;
  int count = 0;
  while (std::getline(mounts, line)) count += line.find(std::string(" ") + path + " ") != std::string::npos;
  return count;
}

// "mount", "umount" or "mknod": the call's errno, and how many mounts are there then. "clean": as at the
// beginning.
void MakeCalls() {
  constexpr char kNode[] = "/tmp/node";
  std::printf("ready\n");
  std::fflush(stdout);
  std::string what;
  while (std::getline(std::cin, what)) {
    int result = 0;
    const char* place = kProc;
    if (what == "mount") result = MountProc(kProc);
    if (what == "umount") result = umount2(kProc, 0);
    if (what == "mknod") result = mknod(place = kNode, S_IFCHR | 0600, kZero);
    const int error = result == 0 ? 0 : errno;
    const bool node = access(kNode, F_OK) == 0;
    if (what == "clean") {
      while (umount2(kProc, MNT_DETACH) == 0) {
      }
      while (umount2(kNode, MNT_DETACH) == 0) {
      }
      unlink(kNode);
    }
    std::printf("%d %d %d\n", error, CountOf(place), what == "mknod" && node);
    std::fflush(stdout);
  }
}

int Run(const std::vector<std::string>& words) {
  if (!HasInt80()) std::fprintf(stderr, "mount_attacks: skipped: this machine has no int 0x80\n");
  const auto number = [&](size_t at) { return words.size() > at ? std::atol(words[at].c_str()) : 0; };
  const std::string& what = words[0];
  if (what == "unmask") {
    if (words.size() > 2) {
      type_attacked = "sysfs";
      masks = {"/kernel", "/fs", ""};
    }
    Unmask(words.size() < 2 || words[1] == "nested");
  } else if (what == "paths" && words.size() == 3) {
    InNest([&] { Swap(number(1), words[2].c_str()); });
    Report("swap");
    InNest(Walk);
    Report("walk");
    InNest([&] { MountOverParent(number(1)); });
    Report("parent");
  } else if (what == "policy") {
    InChild(Devices);
    Report("devices");
    InNest(Devices);
    Report("devices-nested");
    InNest(Types);
    Report("types");
    InNest([] { Refused(MountProc(kProc), "proc of others' pid namespace"); }, CLONE_NEWNS);
    InNest(OtherPids);
    Report("other-pids");
    InNest([&] { FlipType(number(1)); });
    Report("flip-type");
  } else if (what == "ends") {
    InNest(WhoseIsIt);
    Report("whose");
    InNest(TooMany);
    Report("too-many");
  } else if (what == "shared" && words.size() == 3) {
    OnShared(words[1], words[2]);
  } else if (what == "errnos" && words.size() == 2) {
    InNest(
        [] {
          Errnos();
          std::fflush(stdout);
        },
        CLONE_NEWNS | CLONE_NEWPID, words[1].c_str());
  } else if (what == "calls") {
    InNest(MakeCalls);
  } else {
    return 2;
  }
  return tally->failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace shunt

int main(int argc, char** argv) {
  shunt::tally =
      new (mmap(nullptr, sizeof(shunt::Tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
          shunt::Tally;
  return argc < 2 ? 2 : shunt::Run({argv + 1, argv + argc});
}
