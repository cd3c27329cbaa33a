// SPDX-License-Identifier: Apache-2.0
// What the API server says of pods, and what of it a container becomes.

#include "tools/pod_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tools/undecided.h"

namespace shunt {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;
using ::testing::Pair;

constexpr char kUid[] = "8d6a3ee2-6d3b-4a3e-9b49-2f1c1f3a9b10";
constexpr char kId[] = "76ade0df80339e2c9e1bb4e8c19d5f2f7e98f3048beac288accc81f08d517507";

// As kube-apiserver 1.20 answers, shortened.
std::string Pod(const std::string& kind = R"("kind":"Pod",)") {
  return absl::StrCat(
      "{", kind, R"("apiVersion":"v1","metadata":{"name":"web-1","namespace":"prod","uid":")", kUid,
      R"(","labels":{"app":"web","odd":1},"annotations":{"tier":"front"},"managedFields":[{"a":{}}]},)",
      R"("spec":{"containers":[{"name":"nginx","image":"nginx:1"},{"name":"log","image":"log:2"}],)",
      R"("initContainers":[{"name":"init","image":"init:3"}],"nodeName":"n1"},)",
      R"("status":{"phase":"Running","containerStatuses":[{"name":"log","containerID":"containerd://)", kId,
      R"("},{"name":"nginx"}]}})");
}

TEST(PodRecordTest, ReadsAPod) {
  const absl::StatusOr<PodRecord> record = ReadPod(Pod(), {"prod", "web-1", kUid});
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_EQ(record->uid, kUid);
  EXPECT_THAT(record->labels, ElementsAre(Pair("app", "web")));
  EXPECT_THAT(record->annotations, ElementsAre(Pair("tier", "front")));
  ASSERT_EQ(record->containers.size(), 3u);
  EXPECT_EQ(record->containers[0].name, "nginx");
  EXPECT_EQ(record->containers[0].image, "nginx:1");
  EXPECT_EQ(record->containers[0].id, "");
  EXPECT_EQ(record->containers[1].id, kId);
  EXPECT_EQ(record->containers[2].name, "init");
}

TEST(PodRecordTest, APodOfTheSameNameIsNotThePod) {
  EXPECT_TRUE(ReadPod(Pod(), {"prod", "web-1", ""}).ok());
  EXPECT_TRUE(
      absl::IsNotFound(ReadPod(Pod(), {"prod", "web-1", "00000000-6d3b-4a3e-9b49-2f1c1f3a9b10"}).status()));
  EXPECT_TRUE(absl::IsNotFound(ReadPod(Pod(), {"prod", "web-2", kUid}).status()));
  EXPECT_TRUE(absl::IsNotFound(ReadPod(Pod(), {"test", "web-1", kUid}).status()));
}

TEST(PodRecordTest, FindsAPodOfANodeByItsUid) {
  const std::string other = R"({"metadata":{"name":"a","namespace":"b","uid":"c"}})";
  const std::string list =
      absl::StrCat(R"({"kind":"PodList","items":[1,)", other, ",", Pod(""), R"(],"metadata":{}})");
  const absl::StatusOr<PodRecord> record = ReadPod(list, {"", "", kUid});
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_EQ(record->pod, "web-1");
  EXPECT_EQ(record->containers.size(), 3u);
  EXPECT_TRUE(absl::IsNotFound(ReadPod(list, {"", "", "d"}).status()));
}

TEST(PodRecordTest, APodOfAFileOfTheNodesIsKnownByItsOwnUid) {
  const std::string mirror =
      R"({"kind":"Pod","metadata":{"name":"etcd-n1","namespace":"kube-system","uid":"x",)"
      R"("annotations":{"kubernetes.io/config.mirror":"0123456789abcdef0123456789abcdef"}}})";
  const PodQuery query = {"kube-system", "etcd-n1", "0123456789abcdef0123456789abcdef"};
  const absl::StatusOr<PodRecord> record = ReadPod(mirror, query);
  ASSERT_TRUE(record.ok()) << record.status();
  ContainerOrigin origin;
  AddRecord(*record, "", origin);
  EXPECT_EQ(origin.pod_uid, query.uid);
}

TEST(PodRecordTest, WhatIsNoPodIsAnError) {
  for (const char* text :
       {"", "{", "[]", "null", "{}", R"({"kind":"Pod"})", R"({"kind":"Pod","metadata":[]})",
        R"({"kind":"Pod","metadata":{"name":"web-1","namespace":"prod","uid":5}})", R"({"kind":"PodList"})",
        R"({"kind":"PodList","items":{}})", R"({"kind":"Status","code":403,"message":"no"})", "<html>"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ReadPod(text, {"prod", "web-1", ""}).status())) << text;
  }
  EXPECT_EQ(RefusalIn(R"({"kind":"Status","code":403,"message":"no"})"), "no");
  EXPECT_EQ(RefusalIn("<html>"), "");
}

TEST(PodRecordTest, FillsInWhatRuntimesHaveNotTold) {
  const PodRecord record = *ReadPod(Pod(), {"prod", "web-1", kUid});
  ContainerOrigin nothing;
  AddRecord(record, kId, nothing);
  EXPECT_EQ(nothing.identity, (PodIdentity{"prod", "web-1", "log"}));
  EXPECT_EQ(nothing.pod_uid, kUid);
  EXPECT_EQ(nothing.image, "log:2");
  EXPECT_THAT(nothing.labels, Optional(ElementsAre(Pair("app", "web"))));

  ContainerOrigin told;
  told.identity = {"prod", "web-1", "nginx"};
  told.image = "told";
  told.labels.emplace()["app"] = "told";
  AddRecord(record, kId, told);
  EXPECT_EQ(told.identity.container, "nginx");
  EXPECT_EQ(told.image, "told");
  EXPECT_THAT(told.labels, Optional(ElementsAre(Pair("app", "told"))));

  ContainerOrigin unknown;
  AddRecord(record, "another", unknown);
  EXPECT_EQ(unknown.identity.container, "");  // one of three
}

TEST(PodRecordTest, NamesThatNoPodCanHaveAreNotAskedFor) {
  EXPECT_TRUE(IsPodName("web-1.a"));
  for (const char* name : {"", ".", "..", "../secrets", "a/b", "a?b", "a%2fb", "A", "-a", "a-", "a\n", "a b"})
    EXPECT_FALSE(IsPodName(name)) << name;
  EXPECT_FALSE(IsPodName(std::string(254, 'a')));
}

TEST(UndecidedTest, IsTheSameForTheNextEngine) {
  Undecided container;
  container.state = {
      .id = kId, .pid = 5, .state_pid = 6, .status = "running", .bundle = "/b", .metadata = "A=\"b\"\n"};
  container.state.annotations = {{"k", "v\xc3\xa4"}};
  container.peer = {.uid = 1000, .pid = 7};
  container.origin.identity = {"n", "p", "c"};
  container.origin.pod_uid = kUid;
  container.origin.container_id = kId;
  container.origin.image = "i";
  for (const bool with_labels : {false, true}) {
    if (with_labels) container.origin.labels.emplace()["a"] = "b";
    const absl::StatusOr<Undecided> again = UndecidedFrom(ToText(container));
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(ToText(*again), ToText(container));
    EXPECT_EQ(again->state.annotations, container.state.annotations);
    EXPECT_EQ(again->query(), (PodQuery{"n", "p", kUid}));
    EXPECT_EQ(again->origin.labels.has_value(), with_labels);
    EXPECT_EQ(again->pid.Get(), 0);  // may be another's by now
  }
  EXPECT_FALSE(UndecidedFrom("{}").ok());
  EXPECT_FALSE(UndecidedFrom("").ok());
}

}  // namespace
}  // namespace shunt
