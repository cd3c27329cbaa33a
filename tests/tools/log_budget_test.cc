// SPDX-License-Identifier: Apache-2.0
#include "tools/log_budget.h"

#include <gtest/gtest.h>

#include <optional>

namespace shunt {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uid_t kNoisy = 1000, kOther = 1001;

TEST(LogBudgetTest, LeavesOutWhatOneUserSaysTooMuchAndThenTellsHowMuchThatWas) {
  LogBudget budget;
  const LogBudget::Clock::time_point begin(seconds(100));
  for (int i = 0; i < LogBudget::kAtOnce; ++i) EXPECT_EQ(budget.Spend(kNoisy, begin), 0U);
  for (int i = 0; i < 500; ++i) EXPECT_EQ(budget.Spend(kNoisy, begin), std::nullopt);
  EXPECT_EQ(budget.Spend(kOther, begin), 0U) << "nobody pays for somebody else";
  EXPECT_EQ(budget.Spend(kNoisy, begin + milliseconds(999)), std::nullopt);
  EXPECT_EQ(budget.Spend(kNoisy, begin + seconds(1)), 501U);
  EXPECT_EQ(budget.Spend(kNoisy, begin + seconds(1)), std::nullopt) << "one line more each second";
}

TEST(LogBudgetTest, WhoIsSilentForLongMaySaySoMuchAgainAndNoMore) {
  LogBudget budget;
  const LogBudget::Clock::time_point begin(seconds(100)), later = begin + std::chrono::hours(1);
  for (int i = 0; i < 2 * LogBudget::kAtOnce; ++i) budget.Spend(kNoisy, begin);
  EXPECT_EQ(budget.Spend(kNoisy, later), 20U);
  for (int i = 1; i < LogBudget::kAtOnce; ++i) EXPECT_EQ(budget.Spend(kNoisy, later), 0U);
  EXPECT_EQ(budget.Spend(kNoisy, later), std::nullopt);
}

}  // namespace
}  // namespace shunt
