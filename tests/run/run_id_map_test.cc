// SPDX-License-Identifier: Apache-2.0

#include "tools/run_id_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace shunt {

void PrintTo(const IdRange& range, std::ostream* out) {
  *out << range.inside << " " << range.outside << " " << range.count;
}

namespace {

using ::testing::ElementsAre;

TEST(FillAround, PutsSubordinateIdsAboveACallerWhoIsRoot) {
  EXPECT_THAT(FillAround(0, 1000, {{0, 100000, 65536}}),
              ElementsAre(IdRange{0, 1000, 1}, IdRange{1, 100000, 65536}));
}

TEST(FillAround, LeavesAHoleForTheCallerAmongTheSubordinateIds) {
  EXPECT_THAT(FillAround(26, 1000, {{0, 100000, 100}}),
              ElementsAre(IdRange{26, 1000, 1}, IdRange{0, 100000, 26}, IdRange{27, 100026, 74}));
}

TEST(FillAround, JoinsSeveralRangesEvenWhenTheCallerIsAtTheirSeam) {
  EXPECT_THAT(FillAround(10, 1000, {{0, 100000, 10}, {0, 200000, 5}}),
              ElementsAre(IdRange{10, 1000, 1}, IdRange{0, 100000, 10}, IdRange{11, 200000, 5}));
}

TEST(FillAround, PutsACallerAboveAllSubordinateIds) {
  EXPECT_THAT(FillAround(70000, 1000, {{0, 100000, 10}}),
              ElementsAre(IdRange{70000, 1000, 1}, IdRange{0, 100000, 10}));
}

TEST(ParseUserIds, ReadsAUserAloneAndAUserWithAGroup) {
  ASSERT_TRUE(ParseUserIds("26").ok());
  EXPECT_EQ(ParseUserIds("26")->uid, 26U);
  EXPECT_EQ(ParseUserIds("26")->gid, 26U);
  ASSERT_TRUE(ParseUserIds("26:0").ok());
  EXPECT_EQ(ParseUserIds("26:0")->gid, 0U);
}

TEST(ParseUserIds, RefusesWhatIsNoId) {
  for (const char* const text : {"", "root", "1:", ":1", "1:2:3", "-1", "4294967295", "4294967296", "1 x"}) {
    EXPECT_FALSE(ParseUserIds(text).ok()) << text;
  }
}

}  // namespace
}  // namespace shunt
