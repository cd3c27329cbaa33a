// SPDX-License-Identifier: Apache-2.0
// JSON of strangers: what would take many times its text to keep is not kept.

#include "tools/json_reading.h"

#include <gtest/gtest.h>

#include <string>

namespace shunt {
namespace {

std::string Repeated(const std::string& text, size_t times) {
  std::string all;
  all.reserve(text.size() * times);
  for (size_t i = 0; i < times; ++i) all += text;
  return all;
}

TEST(JsonReading, WhatIsDeepOrHasValuesWithoutEndIsNotKept) {
  EXPECT_TRUE(JsonFrom(Repeated("[", 1'000'000)).is_discarded());
  EXPECT_TRUE(JsonFrom(Repeated("[", kDeepestJson + 1) + Repeated("]", kDeepestJson + 1)).is_discarded());
  EXPECT_FALSE(JsonFrom(Repeated("[", kDeepestJson) + Repeated("]", kDeepestJson)).is_discarded());
  EXPECT_FALSE(JsonIsBounded("[" + Repeated("[],", kMostJsonValues / 2) + "1]"));
  EXPECT_FALSE(JsonIsBounded("[" + Repeated("1,", kMostJsonValues) + "1]"));
  EXPECT_TRUE(JsonIsBounded("[" + Repeated("1,", kMostJsonValues / 2) + "1]"));
}

TEST(JsonReading, WhatStandsInTextsIsNoValue) {
  const std::string text = Repeated("[{,", 100);
  const nlohmann::json json = JsonFrom(R"({"a": ")" + text + R"(\"[[\\", "b": 1})");
  ASSERT_TRUE(json.is_object());
  EXPECT_EQ(JsonText(json, "a"), text + R"("[[\)");
  EXPECT_TRUE(JsonIsBounded(R"(["\"", ")" + Repeated("[", kDeepestJson) + R"("])"));
  EXPECT_FALSE(JsonIsBounded(R"(["\\", )" + Repeated("[", kDeepestJson)));
}

TEST(JsonReading, WhatIsNoJsonIsDiscarded) {
  for (const char* text : {"", "{", "]", "\"", "\"\\", "{\"a\":}"})
    EXPECT_TRUE(JsonFrom(text).is_discarded()) << text;
}

}  // namespace
}  // namespace shunt
