// SPDX-License-Identifier: Apache-2.0
// The log's one door: no text that goes through it does anything but be read.

#include "tools/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace shunt {
namespace {

using testing::EndsWith;
using testing::HasSubstr;

TEST(HarmlessTest, LeavesNoByteThatATerminalOrALogWouldActOn) {
  EXPECT_EQ(Harmless("plain text: \"x\" ~"), "plain text: \"x\" ~");
  EXPECT_EQ(Harmless("a\nb\033[2J\x7f\xc2\x9b"), "a\\x0ab\\x1b[2J\\x7f\\xc2\\x9b");
  EXPECT_EQ(Harmless(std::string("\0x", 2)), "\\x00x");
  for (int byte = 0; byte < 256; ++byte) {
    for (const char printed : Harmless(std::string(1, static_cast<char>(byte)))) {
      EXPECT_TRUE(printed >= ' ' && printed <= '~') << byte;
    }
  }
}

TEST(HarmlessTest, NobodyCanWriteWhatLooksEscaped) {
  EXPECT_NE(Harmless("\\x1b"), Harmless("\x1b"));
}

TEST(HarmlessTest, CutsWhatIsVeryLong) {
  EXPECT_EQ(Harmless(std::string(5000, 'x')), std::string(kLongestLine, 'x') + "...");
}

TEST(LogTest, AnOverlongNameDoesNotHideTheRestOfTheLine) {
  testing::internal::CaptureStderr();
  log::Start(log::Level::kInfo);
  log::Info("container {}: {}", std::string(100'000, 'x'), "the reason");
  log::Info("user {}: {} of {}", 7, "one\ntwo", std::string_view("three"));
  const std::string lines = testing::internal::GetCapturedStderr();
  EXPECT_THAT(lines, HasSubstr("x...: the reason\n"));
  EXPECT_THAT(lines, EndsWith("user 7: one\\x0atwo of three\n"));
}

}  // namespace
}  // namespace shunt
