// SPDX-License-Identifier: Apache-2.0
// mount, umount2 and mknod by workers: real calls, and what becomes of them. Attacks are in tests/hostile.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>
#include <utility>

#include "core/desk.h"
#include "tests/support/guest_container.h"
#include "tests/support/inside_checks.h"

namespace shunt {
namespace {

using ::testing::HasSubstr;

constexpr int kNoOverlay = 77;

// A mount of overlay with so many layers that their names take far more than the 255 bytes that the newer
// calls take at once. The file is in the last of them.
int MountManyLayers() {
  CHECK_INSIDE(mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
  CHECK_INSIDE(mount("tmpfs", "/tmp", "tmpfs", 0, nullptr) == 0);
  CHECK_INSIDE(chdir("/tmp") == 0 && mkdir("merged", 0755) == 0);
  std::string layers;
  for (int i = 0; i < 8; ++i) {
    const std::string layer = "a-layer-with-a-colon:" + std::string(60, static_cast<char>('a' + i));
    CHECK_INSIDE(mkdir(layer.c_str(), 0755) == 0);
    if (i == 7) CHECK_INSIDE(close(open((layer + "/file").c_str(), O_CREAT | O_WRONLY, 0600)) == 0);
    const size_t colon = layer.find(':');
    layers += (i == 0 ? "" : ":") + std::string(i % 2 == 0 ? "/tmp/" : "") + layer.substr(0, colon) +
              "\\:" + layer.substr(colon + 1);
  }
  if (mount("overlay", "/tmp/merged", "overlay", MS_NODEV, ("lowerdir=" + layers).c_str()) != 0)
    return errno == ENODEV ? kNoOverlay : 1;
  CHECK_INSIDE(access("/tmp/merged/file", F_OK) == 0);
  CHECK_INSIDE(umount2("/tmp/merged", 0) == 0);
  CHECK_INSIDE(access("/tmp/merged/file", F_OK) != 0 && errno == ENOENT);
  return 0;
}

TEST(Mount, OfAnOverlayTakesAsManyLayersAsNatively) {
  for (const bool trapped : {false, true}) {
    GuestOptions options;
    options.more_namespaces = CLONE_NEWNS;
    options.policy.mounts.other = {"overlay"};
    if (trapped) options.traps = {{"mount", {}}, {"umount2", {}}};
    GuestContainer container(std::move(options));
    const int result = container.Run(MountManyLayers);
    if (result == kNoOverlay) GTEST_SKIP() << "this kernel has no overlay";
    EXPECT_EQ(result, 0) << (trapped ? "trapped " : "native ") << container.error();
  }
}

// Than /tmp is.
bool IsOtherFilesystem(const char* place) {
  struct stat one {
  }, other{};
  return stat("/tmp", &one) == 0 && stat(place, &other) == 0 && one.st_dev != other.st_dev;
}

bool MountTmpfs(const char* place) {
  return mount("none", place, "tmpfs", 0, nullptr) == 0;
}

// This kernel says of the mount that our root is in, though that begins outside, whether it is shared.
bool TellsOfMountsOutside() {
  constexpr unsigned kUniqueId = 0x4000;  // STATX_MNT_ID_UNIQUE
  struct statx root {};
  if (statx(AT_FDCWD, "/", 0, kUniqueId, &root) != 0) return false;
  const std::array<uint64_t, 3> question = {24, root.stx_mnt_id, 2};  // its size; STATMOUNT_MNT_BASIC
  alignas(8) std::array<char, 1024> answer;
  return syscall(457, question.data(), answer.data(), answer.size(), 0) == 0;  // statmount
}

// Two of the container's mount namespaces share /tmp, as a container of root's may share a volume with the
// host.
TEST(Mount, WhereItShowsElsewhereTakesTheRightToMount) {
  GuestOptions options;
  options.more_namespaces = CLONE_NEWNS;
  options.policy.mounts.other = {"tmpfs"};
  options.policy.mounts.need_cap_admin = false;
  options.traps = {{"mount", {}}};
  GuestContainer container(std::move(options));
  const int result = container.Run([] {
    CHECK_INSIDE(EnterTmpfs());
    for (const char* name : {"shown", "refused", "own"}) CHECK_INSIDE(mkdir(name, 0777) == 0);
    CHECK_INSIDE(mount("none", "/tmp", nullptr, MS_SHARED, nullptr) == 0);
    CHECK_INSIDE(InChild([] {
      CHECK_INSIDE(unshare(CLONE_NEWNS) == 0);
      CHECK_INSIDE(MountTmpfs("/tmp/shown") && MountTmpfs("/tmp/own"));
      CHECK_INSIDE(mount("none", "/tmp/own", nullptr, MS_PRIVATE, nullptr) == 0);
      CHECK_INSIDE(mkdir("/tmp/own/below", 0777) == 0 && mkdir("/tmp/own/below/it", 0777) == 0);
      CHECK_INSIDE(InChild([] {
        CHECK_INSIDE(chroot("/tmp/own/below") == 0 && chdir("/") == 0);
        const bool is_told = TellsOfMountsOutside();
        CHECK_INSIDE(DropCapabilities());
        CHECK_INSIDE(MountTmpfs("/it") == is_told);
        return 0;
      }));
      CHECK_INSIDE(DropCapabilities());
      CHECK_INSIDE(!MountTmpfs("/tmp/refused") && errno == EPERM);
      CHECK_INSIDE(!MountTmpfs("/tmp/shown") && errno == EPERM);
      CHECK_INSIDE(MountTmpfs("/tmp/own/below"));
      return 0;
    }));
    CHECK_INSIDE(IsOtherFilesystem("/tmp/shown") && !IsOtherFilesystem("/tmp/refused"));
    CHECK_INSIDE(IsOtherFilesystem("/tmp/own") && access("/tmp/own/below", F_OK) == 0);
    // Nothing is mounted on these here.
    CHECK_INSIDE(rmdir("/tmp/own/below/it") == 0 && rmdir("/tmp/own/below") == 0);
    return 0;
  });
  EXPECT_EQ(result, 0) << container.error();
  EXPECT_THAT(container.warnings(), HasSubstr("mount of tmpfs refused: its place is shared"));
}

std::string NodeName(size_t i) {
  return "node-" + std::to_string(i);
}

bool MakeZero(size_t i) {
  return mknod(NodeName(i).c_str(), S_IFCHR | 0600, makedev(1, 5)) == 0;
}

// It is a mount as well.
TEST(Mknod, WhereItShowsElsewhereTakesTheRightToMount) {
  GuestOptions options;
  options.more_namespaces = CLONE_NEWNS;
  options.policy.devices = {{.major = 1, .minor = 5, .path = "/dev/zero"}};
  options.traps = {{"mknod", {}}, {"mknodat", {}}};
  GuestContainer container(std::move(options));
  const int result = container.Run([] {
    CHECK_INSIDE(EnterTmpfs());
    CHECK_INSIDE(mount("none", "/tmp", nullptr, MS_SHARED, nullptr) == 0);
    CHECK_INSIDE(InChild([] {
      CHECK_INSIDE(unshare(CLONE_NEWNS) == 0 && chdir("/tmp") == 0);
      CHECK_INSIDE(MakeZero(0));
      CHECK_INSIDE(DropCapabilities());
      CHECK_INSIDE(!MakeZero(1) && errno == EPERM);
      CHECK_INSIDE(mount("none", "/tmp", nullptr, MS_PRIVATE, nullptr) != 0);
      return 0;
    }));
    CHECK_INSIDE(IsOtherFilesystem(NodeName(0).c_str()));
    CHECK_INSIDE(access(NodeName(1).c_str(), F_OK) != 0);
    CHECK_INSIDE(mount("none", "/tmp", nullptr, MS_PRIVATE, nullptr) == 0);
    CHECK_INSIDE(DropCapabilities() && MakeZero(2));
    return 0;
  });
  EXPECT_EQ(result, 0) << container.error();
  EXPECT_THAT(container.warnings(), HasSubstr("mount of c 1:5 refused: its place is shared"));
}

// Each is a filesystem of the agent's, so nobody shall make them without an end.
TEST(Mknod, ByMountsIsBounded) {
  GuestOptions options;
  options.more_namespaces = CLONE_NEWNS;
  options.policy.devices = {{.major = 1, .minor = 5, .path = "/dev/zero"}};
  options.traps = {{"mknod", {}}, {"mknodat", {}}};
  ExpectInside(
      [] {
        for (size_t i = 0; i < MountTable::kPlaces; ++i) CHECK_INSIDE(MakeZero(i));
        CHECK_INSIDE(!MakeZero(MountTable::kPlaces) && errno == ENOSPC);
        CHECK_INSIDE(access(NodeName(MountTable::kPlaces).c_str(), F_OK) != 0);
        CHECK_INSIDE(umount2(NodeName(3).c_str(), 0) == 0);
        CHECK_INSIDE(MakeZero(MountTable::kPlaces));
        return 0;
      },
      std::move(options));
}

}  // namespace
}  // namespace shunt
