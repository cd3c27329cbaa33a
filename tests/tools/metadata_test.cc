// SPDX-License-Identifier: Apache-2.0
// What containers' metadata says about the handling of their calls.

#include "tools/metadata.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "absl/strings/str_cat.h"

namespace shunt {
namespace {

using std::chrono::nanoseconds;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

TEST(SplitMetadataTest, EndsItemsAtLinesAndPartsThemAtTheFirstEqualSign) {
  EXPECT_THAT(SplitMetadata("A=b=c; d\nALONE\n=nothing\n\n SPACED = x \nA=2\n"),
              ElementsAre(Setting{"A", "b=c; d"}, Setting{"ALONE", ""}, Setting{" SPACED ", " x "},
                          Setting{"A", "2"}));
}

TEST(SplitMetadataTest, TakesTheFormOfTheOciSpecificationOnlyWhereThereIsNoLineEnd) {
  EXPECT_THAT(
      SplitMetadata("MKNOD=/dev/null,/dev/net/tun;BPF_MAP_TYPES=hash,array"),
      ElementsAre(Setting{"MKNOD", "/dev/null,/dev/net/tun"}, Setting{"BPF_MAP_TYPES", "hash,array"}));
  EXPECT_THAT(SplitMetadata("MKNOD=/dev/a;B=c\n"), ElementsAre(Setting{"MKNOD", "/dev/a;B=c"}));
}

TEST(SplitMetadataTest, LeavesOurOwnKeysToTheirReader) {
  EXPECT_THAT(SplitMetadata("shunt.traps=1; shunt.publish = 8080:80;MKNOD=/dev/null"),
              ElementsAre(Setting{"MKNOD", "/dev/null"}));
}

class ObeyTest : public ::testing::Test {
 protected:
  ObeyTest() { context_.pod = {.identity = {"default", "mynotifypod", "container1"}, .pid = 12, .pid1 = 7}; }

  Policy Policed(absl::string_view metadata) {
    Policy policy;
    mistakes_ = Obey(SplitMetadata(metadata), context_, policy);
    return policy;
  }
  // Of metadata that has no mistake.
  Policy Good(absl::string_view metadata) {
    Policy policy = Policed(metadata);
    EXPECT_THAT(mistakes_, IsEmpty()) << metadata;
    return policy;
  }
  // The one mistake; nothing of the rest is in force.
  std::string Mistake(absl::string_view metadata) {
    Policy policy = Policed(metadata);
    policy.identity = {};
    EXPECT_EQ(policy, Policy()) << metadata;
    EXPECT_EQ(mistakes_.size(), 1u) << metadata;
    return mistakes_.empty() ? "" : mistakes_[0];
  }

  SettingContext context_;
  std::vector<std::string> mistakes_;
};

TEST_F(ObeyTest, NothingSaidIsNothingDoneButKnowingWhoItIs) {
  Policy expected;
  expected.identity = context_.pod.identity;
  EXPECT_EQ(Good(""), expected);
}

TEST_F(ObeyTest, ExpandsTheTemplateOfMkdir) {
  EXPECT_EQ(Good("MKDIR_TMPL=-{{.Namespace}}-{{.Pod}}-{{.Container}}").mkdir_suffix,
            "-default-mynotifypod-container1");
  EXPECT_EQ(Good("MKDIR_TMPL=").mkdir_suffix, "");
  EXPECT_THAT(Mistake("MKDIR_TMPL={{.Node}}"), StartsWith("MKDIR_TMPL: \"{{.Node}}\" cannot be expanded"));
  EXPECT_THAT(Mistake("MKDIR_TMPL=" + std::string(4096, 'x')), HasSubstr("part of a path"));
  EXPECT_THAT(Mistake(std::string("MKDIR_TMPL=a\0b", 14)), HasSubstr("part of a path"));
}

TEST_F(ObeyTest, DelaysAProgramOnlyIfBothHalvesAreThere) {
  const Policy policy = Good("EXEC_PATTERN=/bin/true\nEXEC_DURATION=1m2.5s");
  EXPECT_EQ(policy.exec_pattern, "/bin/true");
  EXPECT_EQ(policy.exec_delay, nanoseconds(62'500'000'000));
  EXPECT_THAT(Mistake("EXEC_PATTERN=/bin/true"), StartsWith("EXEC_PATTERN: "));
  EXPECT_THAT(Mistake("EXEC_DURATION=1s"), StartsWith("EXEC_DURATION: "));
}

TEST_F(ObeyTest, ABadDurationIsNamedWithItsKey) {
  for (const char* bad : {"2", "1s1", "soon", "-1s", "8761h"}) {
    Policed(absl::StrCat("EXEC_PATTERN=/x\nEXEC_DURATION=", bad));
    EXPECT_THAT(mistakes_, ::testing::Contains(AllOf(StartsWith("EXEC_DURATION: "), HasSubstr(bad)))) << bad;
  }
}

TEST_F(ObeyTest, ContainersThatAreNoSidecarsBeginLater) {
  EXPECT_EQ(Good("SIDECARS=envoy,proxy\nSIDECARS_DELAY=3s").start_delay, nanoseconds(3'000'000'000));
  EXPECT_EQ(Good("SIDECARS=envoy,container1\nSIDECARS_DELAY=3s").start_delay, nanoseconds(0));
  EXPECT_EQ(Good("SIDECARS=\nSIDECARS_DELAY=3s").start_delay, nanoseconds(3'000'000'000));
  context_.begins = false;
  EXPECT_EQ(Good("SIDECARS=envoy\nSIDECARS_DELAY=3s").start_delay, nanoseconds(0));
  EXPECT_THAT(Mistake("SIDECARS=envoy"), StartsWith("SIDECARS: "));
  EXPECT_THAT(Mistake("SIDECARS_DELAY=3s"), StartsWith("SIDECARS_DELAY: "));
}

TEST_F(ObeyTest, BothKindsOfDelayHoldAtOnce) {
  const Policy policy = Good("SIDECARS=a\nSIDECARS_DELAY=3s\nEXEC_PATTERN=/x\nEXEC_DURATION=2s");
  EXPECT_EQ(policy.start_delay, nanoseconds(3'000'000'000));
  EXPECT_EQ(policy.exec_delay, nanoseconds(2'000'000'000));
}

TEST_F(ObeyTest, ReadsWhatMayBeMounted) {
  const Policy policy =
      Good("MOUNT_PROC=true\nMOUNT_SYSFS=true\nMOUNT_OTHER_FS_LIST=cifs,nfs\nMOUNT_NEED_CAP_ADMIN=false");
  EXPECT_EQ(policy.mounts,
            (MountPolicy{.proc = true, .sysfs = true, .other = {"cifs", "nfs"}, .need_cap_admin = false}));
  EXPECT_TRUE(Good("MOUNT_PROC=true").mounts.need_cap_admin);
  EXPECT_FALSE(Good("MOUNT_PROC=false").mounts.proc);
  EXPECT_THAT(Mistake("MOUNT_PROC=True"), StartsWith("MOUNT_PROC: \"True\""));
  EXPECT_THAT(Mistake("MOUNT_NEED_CAP_ADMIN=yes"), StartsWith("MOUNT_NEED_CAP_ADMIN: "));
}

TEST_F(ObeyTest, ReadsTheDefaultAction) {
  EXPECT_EQ(Good("DEFAULT_ACTION=kill-container").default_action, DefaultAction::kKillContainer);
  EXPECT_EQ(Good("DEFAULT_ACTION=freeze-container").default_action, DefaultAction::kFreezeContainer);
  EXPECT_EQ(Good("DEFAULT_ACTION").default_action, DefaultAction::kContinue);
  EXPECT_EQ(Good("DEFAULT_ACTION=continue").default_action, DefaultAction::kContinue);
  EXPECT_EQ(Good("DEFAULT_ACTION=errno").default_action, DefaultAction::kFail);
  EXPECT_EQ(Good("DEFAULT_ACTION=errno").default_error, EPERM);
  EXPECT_EQ(Good("DEFAULT_ACTION=errno:EACCES").default_error, EACCES);
  EXPECT_EQ(Good("DEFAULT_ACTION=errno:38").default_error, ENOSYS);
  for (const char* bad : {"kill", "EACCES", "errno:", "errno:0", "errno:4096", "errno:EWHAT", " continue"})
    EXPECT_THAT(Mistake(absl::StrCat("DEFAULT_ACTION=", bad)), StartsWith("DEFAULT_ACTION: ")) << bad;
}

TEST_F(ObeyTest, KnowsOneMiddleware) {
  EXPECT_THAT(Good("MIDDLEWARE=prometheus,prometheus").middleware, ElementsAre("prometheus"));
  EXPECT_THAT(Policed("MIDDLEWARE=falco,prometheus").middleware, ElementsAre("prometheus"));
  EXPECT_THAT(mistakes_, ElementsAre(StartsWith("MIDDLEWARE: \"falco\"")));
}

TEST_F(ObeyTest, LetsAnyCallFail) {
  EXPECT_THAT(Good("ERRNO=chmod:EBADMSG,fchmod:13,sync:ENOTSUP").errors,
              UnorderedElementsAre(Pair("chmod", EBADMSG), Pair("fchmod", EACCES), Pair("sync", EOPNOTSUPP)));
  EXPECT_THAT(Policed("ERRNO=chmud:EPERM,chmod:EPERM,mkdir,sync:EWHAT,sync:+1").errors,
              ElementsAre(Pair("chmod", EPERM)));
  EXPECT_THAT(mistakes_, ElementsAre(HasSubstr("\"chmud\" is no system call"), HasSubstr("CALL:ERRNO"),
                                     HasSubstr("\"EWHAT\""), HasSubstr("\"+1\"")));
}

TEST_F(ObeyTest, ReadsTheExampleOfTheOciSpecification) {
  const Policy policy = Good("MKNOD=/dev/null,/dev/net/tun;BPF_MAP_TYPES=hash,array");
  EXPECT_THAT(policy.devices,
              ElementsAre(DeviceRule{false, 1, 3, "/dev/null"}, DeviceRule{false, 10, 200, "/dev/net/tun"}));
  EXPECT_THAT(policy.bpf_map_types, ElementsAre("hash", "array"));
}

TEST_F(ObeyTest, DevicesArePathsOrNumbers) {
  EXPECT_THAT(Good("MKNOD=c 10:200,b 7:*").devices,
              ElementsAre(DeviceRule{false, 10, 200, ""}, DeviceRule{true, 7, std::nullopt, ""}));
  for (const char* bad : {"null", "c 1", "c 1:2:3", "c 1:-2", "d 1:2", "c 1:99999999999", "c :"})
    EXPECT_THAT(Mistake(absl::StrCat("MKNOD=", bad)), StartsWith("MKNOD: ")) << bad;
  EXPECT_THAT(Mistake("BPF_MAP_TYPES=hasch"), StartsWith("BPF_MAP_TYPES: \"hasch\""));
}

TEST_F(ObeyTest, OfSeveralWithOneKeyTheLastCounts) {
  EXPECT_EQ(Good("MKDIR_TMPL=a\nMKDIR_TMPL=b").mkdir_suffix, "b");
  EXPECT_EQ(Policed("MKDIR_TMPL=a\nMKDIR_TMPL={{").mkdir_suffix, std::nullopt);
}

TEST_F(ObeyTest, WhatIsWrongHoldsNothingElseBack) {
  const Policy policy = Policed("MKDIR_TMPL=x\nMKDIR_TEMPLATE=y\nMOUNT_PROC=maybe\nDEFAULT_ACTION=errno");
  EXPECT_EQ(policy.mkdir_suffix, "x");
  EXPECT_EQ(policy.default_action, DefaultAction::kFail);
  EXPECT_FALSE(policy.mounts.proc);
  EXPECT_THAT(mistakes_, UnorderedElementsAre(StartsWith("MKDIR_TEMPLATE: unknown key: known are MKDIR_TMPL"),
                                              StartsWith("MOUNT_PROC: ")));
}

}  // namespace
}  // namespace shunt
