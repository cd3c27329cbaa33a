// SPDX-License-Identifier: Apache-2.0
#include "core/cgroup.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace shunt {
namespace {

// As on a hybrid machine, under Docker.
constexpr std::string_view kHybrid =
    "12:cpu,cpuacct:/docker/12ab\n"
    "9:name=systemd:/docker/12ab\n"
    "6:freezer:/docker/34cd\n"
    "0::/system.slice/docker.service\n";
constexpr std::string_view kMounts =
    "30 23 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n"
    "31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
    "32 30 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "33 30 0:29 /docker /sys/fs/cgroup/freezer rw shared:11 master:2 - cgroup cgroup rw,freezer\n";

TEST(Cgroup, IsFoundInItsHierarchy) {
  EXPECT_EQ(CgroupIn(kHybrid, Hierarchy::kUnified), "/system.slice/docker.service");
  EXPECT_EQ(CgroupIn(kHybrid, Hierarchy::kFreezer), "/docker/34cd");
  EXPECT_EQ(CgroupIn("0::/\n", Hierarchy::kUnified), "/");
  EXPECT_EQ(CgroupIn("0::/a:b,freezer:c\n", Hierarchy::kUnified), "/a:b,freezer:c");
  EXPECT_EQ(CgroupIn("0::/a:b,freezer:c\n", Hierarchy::kFreezer), "");
  EXPECT_EQ(CgroupIn("5:cpuset,freezer:/x", Hierarchy::kFreezer), "/x");
  EXPECT_EQ(CgroupIn("5:name=freezer:/x\n", Hierarchy::kFreezer), "");
  EXPECT_EQ(CgroupIn("", Hierarchy::kUnified), "");
  EXPECT_EQ(CgroupIn("nonsense\n:\n::\n", Hierarchy::kUnified), "");
}

TEST(Cgroup, LiesInThoseAboveIt) {
  EXPECT_TRUE(IsWithin("/a/b", "/a"));
  EXPECT_TRUE(IsWithin("/a", "/a"));
  EXPECT_TRUE(IsWithin("/a", "/"));
  EXPECT_FALSE(IsWithin("/ab", "/a"));
  EXPECT_FALSE(IsWithin("/", "/a"));
}

TEST(Cgroup, HasADirectoryWhereItsHierarchyIsMounted) {
  EXPECT_EQ(DirectoryOf(kMounts, Hierarchy::kUnified, "/a/b"), "/sys/fs/cgroup/unified/a/b");
  EXPECT_EQ(DirectoryOf(kMounts, Hierarchy::kFreezer, "/docker/34cd"), "/sys/fs/cgroup/freezer/34cd");
  EXPECT_EQ(DirectoryOf(kMounts, Hierarchy::kFreezer, "/dockerx"), "");
  EXPECT_EQ(DirectoryOf(kMounts, Hierarchy::kFreezer, "/other"), "");
  EXPECT_EQ(DirectoryOf(kMounts, Hierarchy::kUnified, "/../other"), "");
  EXPECT_EQ(DirectoryOf("", Hierarchy::kUnified, "/a"), "");
  EXPECT_EQ(DirectoryOf("1 2 3\n - cgroup2\n", Hierarchy::kUnified, "/a"), "");
}

TEST(CgroupOpener, OpensNothingOutsideOfCgroups) {
  const auto opener = CgroupOpener::Start();
  ASSERT_TRUE(opener.ok()) << opener.status();
  const Fd elsewhere(open(::testing::TempDir().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_TRUE(elsewhere.valid());
  const Fd file(openat(elsewhere.get(), "cgroup.freeze", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  for (int i = 0; i < 3; ++i) {  // it answers one question after the other
    const Result<Fd> opened = (*opener)->Open(elsewhere.get(), CgroupFile::kFreeze);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error(), Errno{EPERM});
  }
  unlinkat(elsewhere.get(), "cgroup.freeze", 0);
}

}  // namespace
}  // namespace shunt
