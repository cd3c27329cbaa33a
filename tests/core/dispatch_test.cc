// SPDX-License-Identifier: Apache-2.0
#include "core/dispatch.h"

#include <gtest/gtest.h>
#include <linux/audit.h>
#include <sys/syscall.h>

#include <array>
#include <cstdint>

#include "core/filter.h"

namespace shunt {
namespace {

Reply Routed(Call& /*call*/) {
  return Reply::Continue();
}
Reply Other(Call& /*call*/) {
  return Reply::Continue();
}

constexpr std::array kRoutes{Route{"execve", Routed}};

TEST(Dispatch, FindsARouteInEveryInterfaceOfTheMachine) {
  const Dispatch dispatch(kRoutes, Other);
  ASSERT_FALSE(NumbersOf("execve").empty());
  for (const SyscallNumber& number : NumbersOf("execve"))
    EXPECT_EQ(dispatch.Find(number.audit_arch, static_cast<int>(number.number)), Routed);
}

TEST(Dispatch, GivesNumbersThatNobodyKnowsToTheOther) {
  const Dispatch dispatch(kRoutes, Other);
  const uint32_t native = NumbersOf("execve").front().audit_arch;
  for (const int number : {-1, 999, 1023, 1024, 5000, INT32_MAX, INT32_MIN, 0x40000000, 0x40000000 + 5000})
    EXPECT_EQ(dispatch.Find(native, number), Other) << number;
  EXPECT_EQ(dispatch.Find(AUDIT_ARCH_MIPS, SYS_execve), Other);
  EXPECT_EQ(dispatch.Find(0, 0), Other);
  EXPECT_EQ(dispatch.Find(UINT32_MAX, SYS_execve), Other);
}

}  // namespace
}  // namespace shunt
