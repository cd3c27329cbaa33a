// SPDX-License-Identifier: Apache-2.0
// tests/fuzz/proc_text_fuzz.cc has any bytes; here is what a kernel says of a process in many groups.

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

}  // namespace
}  // namespace shunt
