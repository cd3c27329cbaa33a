// SPDX-License-Identifier: Apache-2.0
#include "handlers/proc_options.h"

#include <gtest/gtest.h>

namespace shunt {
namespace {

constexpr char kMap[] = "         0       1000          1\n         1     700001      65535\n";

TEST(ProcOptions, OfAGroupAreThoseOfWhoMounts) {
  EXPECT_EQ(ProcOptions("gid=0,hidepid=2", kMap), "gid=1000,hidepid=2");
  EXPECT_EQ(ProcOptions("gid=65535", kMap), "gid=765535");
  EXPECT_EQ(ProcOptions("gid=4294967295", "0 0 4294967295\n"), std::nullopt);
  for (const char* wrong : {"gid=65536", "gid=", "gid=x", "gid=1x", "gid=-1", "gid=99999999999999999999"})
    EXPECT_EQ(ProcOptions(wrong, kMap), std::nullopt) << wrong;
  EXPECT_EQ(ProcOptions("gid=0", ""), std::nullopt);
}

TEST(ProcOptions, ThatOpenSomethingAreNone) {
  for (const char* wrong :
       {"pidns=/proc/1/ns/pid", "hidepid=1,subset=pid", "subset=", "source=x", "hidepid=0,x=y"})
    EXPECT_EQ(ProcOptions(wrong, kMap), std::nullopt) << wrong;
}

// What the kernel makes of these is the caller's business.
TEST(ProcOptions, WithoutAValuePass) {
  EXPECT_EQ(ProcOptions("", kMap), "");
  EXPECT_EQ(ProcOptions("ro,,hidepid,=x", kMap), "ro,,hidepid,=x");
}

}  // namespace
}  // namespace shunt
