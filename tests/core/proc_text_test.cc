// SPDX-License-Identifier: Apache-2.0
// tests/fuzz/proc_text_fuzz.cc has any bytes; here is what a kernel says of a process in many groups,
// and of mounts.

#include "core/proc_text.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace shunt {
namespace {

// The number behind a label of a text that comes in pieces of at most so many bytes.
std::optional<uint64_t> Find(std::string_view text, std::string_view label, size_t piece) {
  PiecewiseLines lines;
  std::optional<uint64_t> found;
  while (!text.empty()) {
    const std::span<char> room = lines.Room();
    const size_t size = std::min({piece, room.size(), text.size()});
    std::copy_n(text.data(), size, room.data());
    text.remove_prefix(size);
    if (const auto number = NumberBehind(lines.Add(size), label)) found = number;
  }
  return found;
}

TEST(PiecewiseLines, FindWhatComesBehindALineOfAnyLength) {
  for (const size_t groups : {0, 1, 400, 4000, 65536}) {
    std::string text = "Name:\tx\nGroups:\t";
    for (size_t i = 0; i < groups; ++i) text += "4294967294 ";
    text += "\nNStgid:\t7\nSigQ:\t3/99\n";
    for (const size_t piece : {size_t{1}, size_t{7}, size_t{1024}, size_t{1} << 20}) {
      EXPECT_EQ(Find(text, "NStgid:", piece), 7u) << groups << " groups in pieces of " << piece;
      EXPECT_EQ(Find(text, "SigQ:", piece), std::nullopt);
    }
  }
}

TEST(PiecewiseLines, TakeTheEndOfALongLineForNoLineOfItsOwn) {
  for (size_t length = 4000; length < 4200; ++length) {
    const std::string text = "Groups:" + std::string(length, ' ') + "NStgid:\t8\nNStgid:\t9\n";
    EXPECT_EQ(Find(text, "NStgid:", size_t{1} << 20), 9u) << length;
    EXPECT_EQ(Find("NStgid:\t9\n" + text.substr(0, text.size() - 10), "NStgid:", 4096), 9u) << length;
  }
}

TEST(PiecewiseLines, GiveNoLineThatTheEndHasCut) {
  EXPECT_EQ(Find("Tgid:\t12", "Tgid:", 4096), std::nullopt);
}

std::optional<bool> IsShared(std::string_view text, uint64_t mount) {
  PeerGroupSearch search(mount);
  search.Add(text);
  return search.is_shared();
}

TEST(PeerGroupSearch, TellsSharedMountsFromThoseThatOnlyHear) {
  constexpr char kMounts[] =
      "22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
      "36 22 98:0 /a /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"
      "37 22 98:0 /a /mnt2 rw master:1 shared:37 - ext3 /dev/root rw\n"
      "38 22 0:21 / /proc rw,nosuid - proc proc rw\n"
      "39 22 0:22 / /shared:9 rw unbindable - tmpfs shared:9 rw,shared:9\n"
      "360 22 0:23 / /run rw shared:5 - tmpfs - rw\n";
  EXPECT_EQ(IsShared(kMounts, 22), true);
  EXPECT_EQ(IsShared(kMounts, 36), false);
  EXPECT_EQ(IsShared(kMounts, 37), true);
  EXPECT_EQ(IsShared(kMounts, 38), false);
  EXPECT_EQ(IsShared(kMounts, 39), false);
  EXPECT_EQ(IsShared(kMounts, 360), true);
  EXPECT_EQ(IsShared(kMounts, 3), std::nullopt);
}

TEST(PeerGroupSearch, ReadsPathsOfAnyLength) {
  for (const size_t length : {4000, 4096, 20000}) {
    const std::string path = "/" + std::string(length, 'x');
    EXPECT_EQ(IsShared("36 22 98:0 " + path + " " + path + " rw shared:2 - ext3 x rw\n", 36), true);
  }
}

TEST(PeerGroupSearch, TakesNoLineThatTheEndHasCut) {
  EXPECT_EQ(IsShared("36 22 98:0 / / rw master:2 ", 36), std::nullopt);
}

}  // namespace
}  // namespace shunt
