// SPDX-License-Identifier: Apache-2.0
// Paths in a container's description that are written in odd ways.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tools/container_masks.h"

namespace shunt {
namespace {

using ::testing::ElementsAre;

class MaskPathsTest : public ::testing::Test {
 protected:
  MaskPathsTest() { EXPECT_NE(mkdtemp(bundle_.data()), nullptr); }
  ~MaskPathsTest() override { std::filesystem::remove_all(bundle_); }

  absl::Status Add(const std::string& description) {
    std::ofstream(bundle_ + "/config.json") << description;
    return AddMasks(bundle_, mounts_);
  }

  std::string bundle_ = ::testing::TempDir() + "masks.XXXXXX";
  MountPolicy mounts_;
};

// Runtimes do not care how a path is written.
TEST_F(MaskPathsTest, APathHidesHoweverItIsWritten) {
  ASSERT_TRUE(
      Add(R"({"linux": {"maskedPaths": ["//proc/kcore", "/proc/./keys/", "/dev/../proc/asound", "proc//acpi"]},
                      "mounts": [{"destination": "/sys/", "options": ["ro"]}]})")
          .ok());
  EXPECT_THAT(mounts_.masks,
              ElementsAre(Mask{"/proc/acpi"}, Mask{"/proc/asound"}, Mask{"/proc/kcore"}, Mask{"/proc/keys"}));
  EXPECT_TRUE(mounts_.sysfs_read_only);
}

}  // namespace
}  // namespace shunt
