// SPDX-License-Identifier: Apache-2.0
// What becomes of a container: resolvers, rules of the configuration, strict mode, and the explanation of a
// configuration.

#include "tools/container_decision.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/check_config.h"

namespace shunt {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::Not;
using ::testing::Pair;
using ::testing::StartsWith;

// As containerd 1.6's CRI hands one over.
ContainerState OfContainerd() {
  return {.id = "76ade0df",
          .pid = 21003,
          .state_pid = 21003,
          .status = "creating",
          .metadata = "MKDIR_TMPL=-{{.Namespace}}-{{.Pod}}-{{.Container}}",
          .annotations = {{"io.kubernetes.cri.container-name", "container1"},
                          {"io.kubernetes.cri.image-name", "docker.io/library/bb:latest"},
                          {"io.kubernetes.cri.sandbox-name", "mynotifypod"},
                          {"io.kubernetes.cri.sandbox-namespace", "default"}}};
}

class DecideTest : public ::testing::Test {
 protected:
  void Configure(const std::string& text) {
    absl::StatusOr<AgentConfig> config = ParseAgentConfig(text, "f");
    ASSERT_TRUE(config.ok()) << config.status();
    config_ = *std::move(config);
  }
  Decision Made(Resolver resolver = Resolver::kMetadata, bool strict = false) const {
    return Decide(state_, 0, 1000, {.config = config_, .resolver = resolver, .strict = strict});
  }
  Policy Made(const std::string& rules) {
    Configure(rules);
    return Made().spec.policy;
  }

  ContainerState state_ = OfContainerd();
  AgentConfig config_;
};

TEST_F(DecideTest, ObeysMetadataForThePodThatAnnotationsName) {
  for (const Resolver resolver : {Resolver::kMetadata, Resolver::kKubernetes}) {
    const Decision decision = Made(resolver);
    EXPECT_EQ(decision.spec.policy.mkdir_suffix, "-default-mynotifypod-container1");
    EXPECT_EQ(decision.spec.policy.identity, (PodIdentity{"default", "mynotifypod", "container1"}));
    EXPECT_THAT(decision.mistakes, IsEmpty());
    EXPECT_TRUE(decision.wishes.ok());
  }
}

TEST_F(DecideTest, WithNoResolverOnlyOurOwnKeysAreObeyed) {
  state_.metadata = "MKDIR_TMPL=x\nNONSENSE\nshunt.publish=8080:80";
  const Decision decision = Made(Resolver::kNone, /*strict=*/true);
  EXPECT_EQ(decision.spec.policy.mkdir_suffix, std::nullopt);
  EXPECT_EQ(decision.spec.policy.refuse, 0);
  EXPECT_EQ(decision.spec.publish.size(), 1u);
  EXPECT_EQ(decision.spec.policy.identity.pod, "mynotifypod");
}

TEST_F(DecideTest, TheDemoIsTheSameForAll) {
  state_.pid = 99;
  const Policy policy = Made(Resolver::kDemoBasic).spec.policy;
  EXPECT_EQ(policy.mkdir_suffix, "-pid-99");
  EXPECT_THAT(policy.errors, Contains(Pair("fchmodat", EBADMSG)));
  EXPECT_TRUE(policy.mounts.proc);
}

// One who is not the agent's user, and root.
constexpr uid_t kOrdinary = 4711;

// A user's container may be no container at all, but a program of the user's on the host.
TEST_F(DecideTest, NoUserGivesItselfRightsOnTheHost) {
  const auto made = [this](uid_t uid, Resolver resolver = Resolver::kMetadata) {
    return Decide(state_, 0, uid, {.config = config_, .resolver = resolver});
  };
  for (const char* right :
       {"MKNOD=/dev/null", "MKNOD=c *:*;MKNOD=b 8:0", "MOUNT_OTHER_FS_LIST=tmpfs,nfs",
        "MOUNT_PROC=true;MOUNT_NEED_CAP_ADMIN=false", "MKNOD=/dev/null;MKNOD=/dev/zero"}) {
    state_.metadata = right;
    for (const Resolver resolver : {Resolver::kMetadata, Resolver::kKubernetes}) {
      const Decision ordinary = made(kOrdinary, resolver);
      EXPECT_THAT(ordinary.spec.policy.devices, IsEmpty()) << right;
      EXPECT_THAT(ordinary.spec.policy.mounts.other, IsEmpty()) << right;
      EXPECT_TRUE(ordinary.spec.policy.mounts.need_cap_admin) << right;
      EXPECT_THAT(ordinary.mistakes, Contains(HasSubstr("user 4711 cannot give it to itself"))) << right;
      const Policy of_root = made(0, resolver).spec.policy;
      EXPECT_TRUE(!of_root.devices.empty() || !of_root.mounts.other.empty() || !of_root.mounts.need_cap_admin)
          << right;
    }
  }
  EXPECT_TRUE(made(kOrdinary, Resolver::kDemoBasic).spec.policy.mounts.need_cap_admin);
  EXPECT_FALSE(made(0, Resolver::kDemoBasic).spec.policy.mounts.need_cap_admin);
  state_.metadata = "MOUNT_NEED_CAP_ADMIN=true";
  EXPECT_THAT(made(kOrdinary).mistakes, IsEmpty());
}

TEST_F(DecideTest, TheConfigurationGivesThemToItsUsers) {
  Configure(
      "containers:\n"
      "  - select: {uid: [4711]}\n"
      "    handlers: {mount-other: [tmpfs], mount-need-cap-admin: false, devices: [/dev/null]}\n");
  state_.metadata = "MKNOD=/dev/zero";
  const Policy policy =
      Decide(state_, 0, kOrdinary, {.config = config_, .resolver = Resolver::kMetadata}).spec.policy;
  EXPECT_THAT(policy.mounts.other, ElementsAre("tmpfs"));
  EXPECT_FALSE(policy.mounts.need_cap_admin);
  ASSERT_EQ(policy.devices.size(), 1u);
  EXPECT_EQ(policy.devices[0].path, "/dev/null");
}

TEST_F(DecideTest, OnlyTheContainersOwnBeginningIsDelayed) {
  state_.metadata = "SIDECARS=envoy\nSIDECARS_DELAY=2s";
  EXPECT_EQ(Made().spec.policy.start_delay, std::chrono::seconds(2));
  state_.status = "running";
  EXPECT_EQ(Made().spec.policy.start_delay, std::chrono::seconds(0));
  state_.status = "";
  state_.pid = 21025;
  EXPECT_EQ(Made().spec.policy.start_delay, std::chrono::seconds(0));
  state_.pid = 0;
  EXPECT_EQ(Made().spec.policy.start_delay, std::chrono::seconds(2));
}

TEST_F(DecideTest, StrictModeRefusesWhereThereIsAMistakeAndKeepsTheRest) {
  for (const char* bad : {"MKDIR_TMPL=x\nNONSENSE=1", "EXEC_PATTERN=/x\nEXEC_DURATION=2", "MKDIR_TMPL={{if}}",
                          "DEFAULT_ACTION=explode", "MIDDLEWARE=falco", "shunt.pubish=1:2"}) {
    state_.metadata = bad;
    EXPECT_EQ(Made().spec.policy.refuse, 0) << bad;
    EXPECT_EQ(Made(Resolver::kMetadata, /*strict=*/true).spec.policy.refuse, EPERM) << bad;
  }
  state_.metadata = "MKDIR_TMPL=x\nNONSENSE=1";
  EXPECT_THAT(Made().mistakes, ElementsAre(StartsWith("NONSENSE: unknown key")));
  EXPECT_EQ(Made().spec.policy.mkdir_suffix, "x");
  state_.metadata = "MKDIR_TMPL=x;shunt.traps=1";
  EXPECT_EQ(Made(Resolver::kMetadata, /*strict=*/true).spec.policy.refuse, 0);
}

TEST_F(DecideTest, ABadWishForPortsLeavesThePolicyInForce) {
  state_.metadata = "DEFAULT_ACTION=errno;shunt.publish=x";
  const Decision decision = Made();
  EXPECT_FALSE(decision.wishes.ok());
  EXPECT_EQ(decision.spec.policy.default_action, DefaultAction::kFail);
  EXPECT_TRUE(decision.spec.ignore.Contains(*net::IpAddress::Parse("8.8.8.8")));
}

TEST_F(DecideTest, EachSelectorSeesWhatItSays) {
  const char* const fitting[] = {"namespace: default",
                                 "namespace: [other, 'def*']",
                                 "pod: 'mynotifyp?d'",
                                 "container: container1",
                                 "image: 'docker.io/*:latest'",
                                 "id: '76*'",
                                 "uid: [0, 1000]",
                                 "annotations: {io.kubernetes.cri.sandbox-name: 'my*'}",
                                 "pod: my*, namespace: default"};
  for (const char* select : fitting) {
    EXPECT_EQ(Made(std::string("containers: [{select: {") + select + "}, handlers: {mkdir-template: r}}]")
                  .mkdir_suffix,
              "r")
        << select;
  }
  const char* const others[] = {"namespace: prod",
                                "pod: my",
                                "container: CONTAINER1",
                                "image: bb",
                                "id: '77*'",
                                "uid: [1001]",
                                "annotations: {io.kubernetes.cri.sandbox-name: x}",
                                "annotations: {none: '*'}",
                                "labels: {app: '*'}",
                                "pod: my*, namespace: prod"};
  for (const char* select : others) {
    EXPECT_NE(Made(std::string("containers: [{select: {") + select + "}, handlers: {mkdir-template: r}}]")
                  .mkdir_suffix,
              "r")
        << select;
  }
}

TEST_F(DecideTest, WhatIsNotKnownFitsNoPattern) {
  state_.annotations.clear();
  EXPECT_NE(Made("containers: [{select: {pod: '*'}, handlers: {mkdir-template: r}}]").mkdir_suffix, "r");
}

TEST_F(DecideTest, LabelsCountWhereTheStateHasThem) {
  state_.annotations = {{"io.kubernetes.cri-o.Labels", R"({"app":"web"})"}};
  EXPECT_EQ(Made("containers: [{select: {labels: {app: w*}}, handlers: {mkdir-template: r}}]").mkdir_suffix,
            "r");
}

TEST_F(DecideTest, TheFirstRuleThatSelectsHoldsAlone) {
  const std::string rules =
      "containers:\n"
      "  - {select: {pod: other}, handlers: {mkdir-template: '1'}}\n"
      "  - {name: second, handlers: {default-action: errno}}\n"
      "  - {handlers: {mkdir-template: '3', default-action: continue}}\n";
  EXPECT_EQ(Made(rules).default_action, DefaultAction::kFail);
  EXPECT_EQ(Made().rule, "second");
  EXPECT_EQ(Made().spec.policy.mkdir_suffix, "-default-mynotifypod-container1");
}

TEST_F(DecideTest, ARuleHasTheLastWordOverMetadataKeyByKey) {
  state_.metadata = "MKDIR_TMPL=m\nEXEC_PATTERN=/bin/true\nMOUNT_PROC=true";
  const Policy policy = Made("containers: [{handlers: {mkdir-template: r, exec-duration: 2s}}]");
  EXPECT_EQ(policy.mkdir_suffix, "r");
  EXPECT_EQ(policy.exec_pattern, "/bin/true");
  EXPECT_EQ(policy.exec_delay, std::chrono::seconds(2));
  EXPECT_TRUE(policy.mounts.proc);
  EXPECT_FALSE(Made("containers: [{metadata: false}]").mounts.proc);
}

TEST_F(DecideTest, HalfOfAPairHasNoEffectAndStrictModeRefusesItWhereverItIsSaid) {
  const std::pair<std::string, std::string> halves[] = {{"EXEC_PATTERN=/bin/true", "exec-pattern: /bin/true"},
                                                        {"EXEC_DURATION=2s", "exec-duration: 2s"},
                                                        {"SIDECARS=envoy", "sidecars: [envoy]"},
                                                        {"SIDECARS_DELAY=3s", "sidecars-delay: 3s"}};
  for (const auto& [in_metadata, in_rule] : halves) {
    for (const bool by_rule : {false, true}) {
      for (const bool strict : {false, true}) {
        state_.metadata = by_rule ? "" : in_metadata;
        Configure(absl::StrCat("containers: [{handlers: {", by_rule ? in_rule : "", "}}]"));
        const Policy policy = Made(Resolver::kMetadata, strict).spec.policy;
        EXPECT_EQ(policy.refuse, strict ? EPERM : 0) << in_metadata;
        EXPECT_EQ(policy.exec_pattern, "");
        EXPECT_EQ(policy.start_delay, std::chrono::nanoseconds(0));
      }
    }
  }
}

TEST_F(DecideTest, ARuleGivesEveryHandlerAndNetwork) {
  state_.metadata = "";
  const Policy policy = Made(
      "containers:\n"
      "  - handlers:\n"
      "      mkdir-template: '-{{.Pod}}'\n"
      "      exec-pattern: /bin/true\n"
      "      exec-duration: 100ms\n"
      "      sidecars: [envoy]\n"
      "      sidecars-delay: 3s\n"
      "      mount-proc: true\n"
      "      mount-sysfs: true\n"
      "      mount-other: [cifs, nfs]\n"
      "      mount-need-cap-admin: false\n"
      "      default-action: errno:EACCES\n"
      "      middleware: [prometheus]\n"
      "      errors: {chmod: EBADMSG, fchmod: 74}\n"
      "      devices: [/dev/net/tun, 'c 1:3']\n"
      "      bpf-map-types: [hash]\n"
      "    ignore: [10.0.0.0/8]\n"
      "    publish: ['8080:80']\n");
  Policy expected;
  expected.identity = policy.identity;
  expected.mkdir_suffix = "-mynotifypod";
  expected.exec_pattern = "/bin/true";
  expected.exec_delay = std::chrono::milliseconds(100);
  expected.start_delay = std::chrono::seconds(3);
  expected.mounts = {.proc = true, .sysfs = true, .other = {"cifs", "nfs"}, .need_cap_admin = false};
  expected.mounts.masks = policy.mounts.masks;  // this container has no description
  expected.mounts.sysfs_read_only = true;
  expected.default_action = DefaultAction::kFail;
  expected.default_error = EACCES;
  expected.middleware = {"prometheus"};
  expected.errors = {{"chmod", EBADMSG}, {"fchmod", EBADMSG}};
  expected.devices = {{.block = false, .major = 10, .minor = 200, .path = "/dev/net/tun"},
                      {.block = false, .major = 1, .minor = 3, .path = {}}};
  expected.bpf_map_types = {"hash"};
  EXPECT_EQ(policy, expected);
  const Decision decision = Made();
  EXPECT_TRUE(decision.spec.ignore.Contains(*net::IpAddress::Parse("10.1.1.1")));
  ASSERT_EQ(decision.spec.publish.size(), 1u);
  EXPECT_EQ(decision.spec.publish[0].ToString(), "8080:80");
}

TEST(ContainerRuleTest, NamesLineAndKeyOfAMistake) {
  const std::pair<const char*, const char*> cases[] = {
      {"containers: {}", "f:1: \"containers\": should be a list of rules"},
      {"containers:\n  - 5", "f:2: should be a mapping"},
      {"containers:\n  - selct: {}", "f:2: unknown key \"containers.selct\""},
      {"containers:\n  - select:\n      pood: x", "f:3: unknown key \"containers.select.pood\""},
      {"containers:\n  - select:\n      pod: ''", "f:3: \"containers.select.pod\": should be patterns"},
      {"containers:\n  - select:\n      pod: []", "should be a pattern, or a list"},
      {"containers:\n  - select: {uid: []}", "should be a list of user ids"},
      {"containers:\n  - select: {uid: [bob]}", "should be a user id"},
      {"containers:\n  - select: {labels: app}", "should be a mapping of keys to patterns"},
      {"containers:\n  - handlers:\n      MKDIR_TMPL: x",
       "f:3: unknown key \"containers.handlers.MKDIR_TMPL\""},
      {"containers:\n  - handlers:\n      mkdir-template: '{{if}}'",
       "f:3: \"containers.handlers.mkdir-template\": "},
      {"containers:\n  - handlers: {exec-duration: 2}", "should be a duration"},
      {"containers:\n  - handlers: {sidecars-delay: -2s}", "should be a delay"},
      {"containers:\n  - handlers: {default-action: explode}", "should be continue, errno"},
      {"containers:\n  - handlers: {errors: {chmud: EPERM}}", "\"chmud\" is no system call"},
      {"containers:\n  - handlers: {errors: [chmod]}", "should be a mapping"},
      {"containers:\n  - handlers: {mount-proc: yes}", "should be true or false"},
      {"containers:\n  - handlers: {mount-other: ['a,b']}", "hold no comma"},
      {"containers:\n  - publish: [80]", "f:2: \"containers.publish\": "},
      {"containers:\n  - ignore: [10.0.0.0/33]", "f:2: \"containers.ignore\": "},
      {"strict: maybe", "f:1: \"strict\": should be true or false"},
  };
  for (const auto& [text, complaint] : cases) {
    const auto config = ParseAgentConfig(text, "f");
    ASSERT_FALSE(config.ok()) << text;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(complaint)) << text;
  }
}

TEST(ExplainConfigTest, SaysWhatEachLineMeansAndWhatSelectorsCannotSee) {
  const auto explained = ExplainConfig(
      "strict: true\n"
      "log:\n"
      "  level: info\n"
      "containers:\n"
      "  - name: web\n"
      "    select:\n"
      "      labels: {app: web}\n"
      "    handlers:\n"
      "      mkdir-template: \"-\\e[2J\"\n"
      "  - handlers: {}\n"
      "  - name: late\n",
      "f");
  ASSERT_TRUE(explained.ok()) << explained.status();
  EXPECT_THAT(*explained, HasSubstr("f:1: strict: true -- "));
  EXPECT_THAT(*explained, HasSubstr("f:3: level: info -- "));
  EXPECT_THAT(*explained, HasSubstr("f:5: rule web, 1 of 3: for containers that fit"));
  EXPECT_THAT(*explained, HasSubstr("f:7:   labels: {app: web} -- the pod's labels, as they were"));
  EXPECT_THAT(*explained, HasSubstr("f:9:   mkdir-template: -\\x1b[2J -- mkdir and mkdirat append"));
  EXPECT_THAT(*explained, HasSubstr("(metadata: MKDIR_TMPL)"));
  EXPECT_THAT(*explained, HasSubstr("f:10: rule of line 10, 2 of 3: for every container, if no rule above"));
  EXPECT_THAT(*explained, HasSubstr("f:11:   NEVER USED: rule of line 10 above"));
  EXPECT_FALSE(ExplainConfig("strct: true", "f").ok());
}

TEST(ExplainConfigTest, SaysOfHalfOfAPairWhoHasToGiveTheOther) {
  const auto explained = ExplainConfig(
      "containers:\n"
      "  - select: {pod: a}\n"
      "    handlers:\n"
      "      exec-pattern: /bin/true\n"
      "  - handlers: {sidecars: [a], sidecars-delay: 3s}\n",
      "f");
  ASSERT_TRUE(explained.ok()) << explained.status();
  EXPECT_THAT(*explained,
              HasSubstr("f:4:   exec-pattern: HALF OF A PAIR: means nothing for a container whose "
                        "metadata has no right EXEC_DURATION, which strict mode refuses"));
  EXPECT_THAT(*explained, Not(HasSubstr("sidecars: HALF")));
}

TEST(ExplainConfigTest, HalfOfAPairIsAnErrorWhereNobodyElseCanGiveTheOther) {
  const std::pair<const char*, const char*> halves[] = {{"exec-pattern: /x", "exec-duration"},
                                                        {"exec-duration: 2s", "exec-pattern"},
                                                        {"sidecars: [a]", "sidecars-delay"},
                                                        {"sidecars-delay: 3s", "sidecars"}};
  for (const auto& [half, other] : halves) {
    const std::string config =
        absl::StrCat("containers:\n  - metadata: false\n    handlers:\n      ", half, "\n");
    EXPECT_THAT(
        std::string(ExplainConfig(config, "f").status().message()),
        AllOf(StartsWith("f:4: \"containers.handlers."), HasSubstr(absl::StrCat("without ", other, ","))));
  }
  EXPECT_TRUE(
      ExplainConfig("containers: [{metadata: false, handlers: {exec-pattern: /x, exec-duration: 2s}}]", "f")
          .ok());
}

TEST(ExplainConfigTest, EveryKeyOfARuleHasAMeaning) {
  const std::string keys[] = {"namespace: x", "pod: x",   "container: x",        "image: x",
                              "id: x",        "uid: [1]", "annotations: {a: x}", "labels: {a: x}"};
  for (const std::string& key : keys) {
    const auto explained = ExplainConfig("containers: [{select: {" + key + "}}]", "f");
    EXPECT_THAT(*explained, HasSubstr("  " + key.substr(0, key.find(':')) + ": ")) << key;
  }
}

}  // namespace
}  // namespace shunt
