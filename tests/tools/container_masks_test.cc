// SPDX-License-Identifier: Apache-2.0
#include "tools/container_masks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>

#include "core/fd.h"

namespace shunt {
namespace {

using testing::Contains;
using testing::ElementsAre;

class ContainerMasks : public testing::Test {
 protected:
  ContainerMasks() {
    std::string name = testing::TempDir() + "masks.XXXXXX";
    bundle_ = mkdtemp(name.data());
  }
  ~ContainerMasks() override { std::filesystem::remove_all(bundle_); }

  void Describe(const std::string& text) { std::ofstream(bundle_ + "/config.json") << text; }

  // What engines hide by default, which is in force whenever nothing better is known.
  void ExpectDefaults() {
    MountPolicy mounts;
    EXPECT_FALSE(AddMasks(bundle_, mounts).ok());
    EXPECT_THAT(mounts.masks, Contains(Mask{.path = "/proc/kcore", .hides = true}));
    EXPECT_THAT(mounts.masks, Contains(Mask{.path = "/proc/sys", .hides = false}));
    EXPECT_THAT(mounts.masks, Contains(Mask{.path = "/sys/firmware", .hides = true}));
    EXPECT_TRUE(mounts.sysfs_read_only);
  }

  std::string bundle_;
};

// What is hidden within a read-only path has to be put on later, and paths within others behind them.
TEST_F(ContainerMasks, AreThoseOfTheDescriptionInTheOrderInWhichTheyHold) {
  Describe(R"({"linux": {"maskedPaths": ["/proc/sys/kernel", "/proc/keys"],
                         "readonlyPaths": ["/proc/sys/fs", "/proc/sys"]},
               "mounts": [{"destination": "/sys", "options": ["nosuid"]}]})");
  MountPolicy mounts;
  EXPECT_TRUE(AddMasks(bundle_, mounts).ok());
  EXPECT_THAT(mounts.masks, ElementsAre(Mask{"/proc/sys", false}, Mask{"/proc/sys/fs", false},
                                        Mask{"/proc/keys", true}, Mask{"/proc/sys/kernel", true}));
  EXPECT_FALSE(mounts.sysfs_read_only);
}

TEST_F(ContainerMasks, AreNoneWhereTheRuntimeMasksNothing) {
  Describe(R"({"linux": {"maskedPaths": null}, "mounts": [{"destination": "/sys", "options": ["ro"]}]})");
  MountPolicy mounts;
  EXPECT_TRUE(AddMasks(bundle_, mounts).ok());
  EXPECT_TRUE(mounts.masks.empty());
  EXPECT_TRUE(mounts.sysfs_read_only);
}

TEST_F(ContainerMasks, CoverAllOfWhatTheRuntimeMountsReadOnly) {
  Describe(R"({"linux": {}, "mounts": [{"destination": "/proc/", "options": ["nosuid", "rro"]},
                                       {"destination": "/sys", "options": ["rw", "ro"]}]})");
  MountPolicy mounts;
  EXPECT_TRUE(AddMasks(bundle_, mounts).ok());
  EXPECT_THAT(mounts.masks, ElementsAre(Mask{"/proc", false}));
  EXPECT_TRUE(mounts.sysfs_read_only);
}

TEST_F(ContainerMasks, LeaveNoSysfsToWriteToWhereTheRuntimeMountsNone) {
  Describe(R"({"linux": {}, "mounts": [{"destination": "/proc"}]})");
  MountPolicy mounts;
  EXPECT_TRUE(AddMasks(bundle_, mounts).ok());
  EXPECT_TRUE(mounts.masks.empty());
  EXPECT_TRUE(mounts.sysfs_read_only);
}

TEST_F(ContainerMasks, AreTheUsualOnesWhereNothingIsKnown) {
  ExpectDefaults();
  for (const char* text : {"", "{", "[]", R"({"linux": {"maskedPaths": [1]}})", R"({"linux": 7})",
                           R"({"mounts": [{"destination": "/sys", "options": [{}]}]})"}) {
    SCOPED_TRACE(text);
    Describe(text);
    ExpectDefaults();
  }
}

// Nobody writes into it: whoever waited would wait for ever.
TEST_F(ContainerMasks, WaitForNoPipe) {
  ASSERT_EQ(mkfifo((bundle_ + "/config.json").c_str(), 0600), 0);
  ExpectDefaults();
}

// To some devices that alone does something.
TEST_F(ContainerMasks, OpenNothingThatIsNoFile) {
  const std::string path = bundle_ + "/config.json";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  const Fd events(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  ASSERT_GE(inotify_add_watch(events.get(), path.c_str(), IN_OPEN), 0);
  ExpectDefaults();
  std::array<char, 256> event;
  EXPECT_EQ(read(events.get(), event.data(), event.size()), -1);
  EXPECT_EQ(errno, EAGAIN);
}

// Runtimes do not care how a path is written.
TEST_F(ContainerMasks, HideAPathHoweverItIsWritten) {
  Describe(
      R"({"linux": {"maskedPaths": ["//proc/kcore", "/proc/./keys/", "/dev/../proc/asound", "proc//acpi"]},
               "mounts": [{"destination": "/sys/", "options": ["ro"]}]})");
  MountPolicy mounts;
  ASSERT_TRUE(AddMasks(bundle_, mounts).ok());
  EXPECT_THAT(mounts.masks,
              ElementsAre(Mask{"/proc/acpi"}, Mask{"/proc/asound"}, Mask{"/proc/kcore"}, Mask{"/proc/keys"}));
  EXPECT_TRUE(mounts.sysfs_read_only);
}

}  // namespace
}  // namespace shunt
