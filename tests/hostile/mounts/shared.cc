// SPDX-License-Identifier: Apache-2.0
// The container has a volume whose mounts it shares with the host, and who calls has no CAP_SYS_ADMIN: what
// it may mount by the policy's word alone shall not be mounted there, by no path and from no root.

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "core/fd.h"
#include "tests/hostile/mounts/mounts.h"

namespace shunt {
namespace {

void TryPlace(const std::string& place) {
  for (const char* type : {"tmpfs", "proc"}) {
    Refused(mount("none", place.c_str(), type, 0, nullptr), (place + " is shared").c_str());
    if (HasInt80())
      Refused(Mount32("none", place.c_str(), type, 0), (place + " is shared, by int 0x80").c_str());
  }
}

// Elsewhere it may.
void MountAndUnmount(const std::string& path) {
  const char* const place = path.c_str();
  for (const char* type : {"tmpfs", "proc"}) {
    if (mount("none", place, type, 0, nullptr) != 0) Fail("a mount that is not shared");
    if (umount2(place, 0) != 0) Fail("its umount");
  }
}

void TryAll(const std::string& volume) {
  const Fd below(open((volume + "/x").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!below.valid()) return Fail("the volume");
  TryPlace(volume);
  TryPlace(volume + "/x/..");
  TryPlace(volume + "/x");
  TryPlace("/tmp/link/x");
  TryPlace("/proc/self/fd/" + std::to_string(below.get()));
  TryPlace("/proc/self/fd/" + std::to_string(below.get()) + "/y");
  InChild([&] {
    if (fchdir(below.get()) != 0) return Fail("fchdir");
    TryPlace(".");
    TryPlace("y");
    TryPlace("/proc/self/cwd/y");
  });
}

// Whoever's root is within the volume's mount does not see that mount in any list.
void TryWithin(const std::string& root) {
  InChild([&] {
    if (chroot(root.c_str()) != 0 || chdir("/") != 0) return Fail("chroot");
    TryPlace("/");
    TryPlace("/y");
    TryPlace(".");
  });
}

}  // namespace

void OnShared(const std::string& volume, const std::string& own) {
  if (symlink(volume.c_str(), "/tmp/link") != 0) return Fail("symlink");
  MountAndUnmount(own);
  TryAll(volume);
  TryWithin(volume);
  TryWithin(volume + "/x");
  // The root of one that is not shared would do.
  InChild([&] {
    mkdir((own + "/x").c_str(), 0755);
    if (chroot(own.c_str()) != 0 || chdir("/") != 0) return Fail("chroot");
    MountAndUnmount("/x");
  });
  Report("root");
  InChild([&] {
    DropCapabilities();
    TryAll(volume);
  });
  Report("no-capabilities");
  // The capability that a user namespace of its own gives it counts only there.
  InNest([&] { TryAll(volume); }, 0);
  Report("nested");
}

}  // namespace shunt
