// SPDX-License-Identifier: Apache-2.0
// What is asked of an API server about a Service, and what becomes of its answers.

#include "tools/kube_watcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace shunt {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr char kList[] =
    "/apis/discovery.k8s.io/v1/namespaces/default/"
    "endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dorders";

// As a real server's watch has it, shortened.
std::string Orders(const std::string& name, const std::string& version, const std::string& address,
                   const std::string& conditions = R"({"ready":true})",
                   const std::string& service = "orders") {
  return absl::StrCat(
      R"({"addressType":"IPv4","apiVersion":"discovery.k8s.io/v1","endpoints":[{"addresses":[")", address,
      R"("],"conditions":)", conditions,
      R"(,"hints":{"forZones":[{"name":"b"}]},"zone":"b"}],"kind":"EndpointSlice","metadata":{)",
      R"("creationTimestamp":"2026-11-23T05:06:18Z","generation":2,"labels":{)",
      R"("kubernetes.io/service-name":")", service, R"("},"managedFields":[{"manager":"curl"}],)",
      R"("name":")", name, R"(","namespace":"default","resourceVersion":")", version,
      R"("},"ports":[{"name":"http","port":8080,"protocol":"TCP"}]})");
}

std::string Event(const std::string& type, const std::string& object) {
  return absl::StrCat(R"({"type":")", type, R"(","object":)", object, "}");
}

std::string Bookmark(const std::string& version) {
  return Event("BOOKMARK",
               absl::StrCat(R"({"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":)",
                            R"({"resourceVersion":")", version,
                            R"(","creationTimestamp":null},"addressType":"","endpoints":null})"));
}

std::string ErrorEvent(int code, const std::string& message) {
  return Event("ERROR",
               absl::StrCat(R"({"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",)",
                            R"("message":")", message, R"(","code":)", code, "}"));
}

HttpAnswer Refusal(long code, const std::string& message) {
  return {.code = code,
          .body = absl::StrCat(R"({"kind":"Status","message":")", message, R"(","code":)", code, "}"),
          .failure = {}};
}

HttpAnswer List(const std::string& version, const std::vector<std::string>& slices,
                const std::string& next = "") {
  std::string items;
  for (const std::string& slice : slices) absl::StrAppend(&items, items.empty() ? "" : ",", slice);
  return {.code = 200,
          .body = absl::StrCat(R"({"kind":"EndpointSliceList","metadata":{"resourceVersion":")", version,
                               R"(","continue":")", next, R"("},"items":[)", items, "]}"),
          .failure = {}};
}

class KubeWatcherTest : public ::testing::Test {
 protected:
  KubeWatcherTest() : kubeconfig_(::testing::TempDir() + "kubeconfig_XXXXXX") {
    close(mkstemp(kubeconfig_.data()));
    WriteKubeconfig("https://10.0.0.1:6443");
  }
  ~KubeWatcherTest() override { unlink(kubeconfig_.c_str()); }

  void WriteKubeconfig(const std::string& url) {
    std::ofstream(kubeconfig_)
        << "current-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n"
        << "clusters: [{name: c, cluster: {server: '" << url << "'}}]\n"
        << "users: [{name: u, user: {token: t0ken}}]\n";
  }

  KubeWatcher& Watch(const std::string& port = "http") {
    watcher_.emplace(
        net::KubernetesSpec{.service = "default/orders", .port = port, .kubeconfig = kubeconfig_});
    watcher_->TellTo([this](std::vector<net::BackendSpec> backends, absl::Status missing) {
      told_.clear();
      for (const net::BackendSpec& backend : backends)
        told_.push_back(absl::StrCat(backend.address.ToString(), backend.backup ? " backup" : ""));
      ++times_told_;
      missing_ = std::string(missing.message());
    });
    return *watcher_;
  }
  // What is asked next.
  std::string Path() {
    const absl::StatusOr<Watcher::Ask> ask = watcher_->Next();
    EXPECT_TRUE(ask.ok()) << ask.status();
    return ask.ok() ? ask->path : "";
  }
  std::string VersionAsked() {
    const std::string path = Path();
    const size_t begin = path.find("resourceVersion=");
    if (begin == std::string::npos) return "a list";
    return path.substr(begin + 16, path.find('&', begin) - begin - 16);
  }
  void BeginWatch() {
    EXPECT_THAT(Path(), HasSubstr("&watch=1"));
    watcher_->OnStream();
  }
  // As far as a watch.
  void GetOn(const std::string& port = "http") {
    Watch(port);
    Path();
    EXPECT_TRUE(watcher_->OnAnswer(List("100", {Orders("orders-1", "90", "10.0.0.1")})).ok());
    BeginWatch();
  }
  bool Line(const std::string& line) {
    line_ = watcher_->OnLine(line);
    return line_.ok();
  }
  // What comes of it when the stream has ended with that.
  absl::Status AfterLine() { return watcher_->OnFailure(line_); }
  absl::Status Broken() { return watcher_->OnFailure(absl::UnavailableError("Connection reset by peer")); }

  std::string kubeconfig_;
  std::optional<KubeWatcher> watcher_;
  std::vector<std::string> told_;
  std::string missing_;
  int times_told_ = 0;
  absl::Status line_;
};

TEST_F(KubeWatcherTest, ListsAndThenWatches) {
  EXPECT_EQ(Watch().Title(), "kubernetes default/orders");
  absl::StatusOr<Watcher::Ask> ask = watcher_->Next();
  ASSERT_TRUE(ask.ok()) << ask.status();
  EXPECT_EQ(ask->origin.url, "https://10.0.0.1:6443");
  EXPECT_EQ(*ask->origin.token.Read(), "t0ken");
  EXPECT_EQ(ask->path, absl::StrCat(kList, "&limit=100"));
  EXPECT_FALSE(ask->streams);
  EXPECT_FALSE(ask->post.has_value());
  EXPECT_TRUE(watcher_->OnAnswer(List("100", {Orders("orders-1", "90", "10.0.0.1")})).ok());
  EXPECT_THAT(told_, ElementsAre("10.0.0.1:8080"));

  ask = watcher_->Next();
  ASSERT_TRUE(ask.ok()) << ask.status();
  EXPECT_EQ(ask->path,
            absl::StrCat(kList, "&watch=1&allowWatchBookmarks=true&resourceVersion=100&timeoutSeconds=300"));
  EXPECT_TRUE(ask->streams);
  EXPECT_GT(ask->longest, std::chrono::seconds(300));
}

TEST_F(KubeWatcherTest, AListComesInPages) {
  Watch();
  Path();
  EXPECT_TRUE(watcher_->OnAnswer(List("100", {Orders("orders-1", "90", "10.0.0.1")}, "a+b/c=")).ok());
  EXPECT_EQ(times_told_, 0);
  EXPECT_EQ(Path(), absl::StrCat(kList, "&limit=100&continue=a%2Bb%2Fc%3D"));
  // A failure does not lose the place.
  EXPECT_FALSE(Broken().ok());
  EXPECT_THAT(Path(), HasSubstr("&continue=a%2Bb%2Fc%3D"));
  EXPECT_TRUE(watcher_->OnAnswer(List("101", {Orders("orders-2", "91", "10.0.0.2")})).ok());
  EXPECT_THAT(told_, ElementsAre("10.0.0.1:8080", "10.0.0.2:8080"));
  EXPECT_EQ(VersionAsked(), "100");
}

TEST_F(KubeWatcherTest, AListWhosePagesAreForgottenIsReadAsAWhole) {
  Watch();
  Path();
  EXPECT_TRUE(watcher_->OnAnswer(List("100", {Orders("orders-1", "90", "10.0.0.1")}, "next")).ok());
  Path();
  EXPECT_TRUE(watcher_->OnAnswer(Refusal(410, "The provided continue parameter is too old")).ok());
  EXPECT_EQ(Path(), kList);
  EXPECT_TRUE(watcher_->OnAnswer(List("200", {Orders("orders-2", "190", "10.0.0.2")})).ok());
  EXPECT_THAT(told_, ElementsAre("10.0.0.2:8080"));
  EXPECT_EQ(VersionAsked(), "200");
}

TEST_F(KubeWatcherTest, PagesThatNeverEndAreAnError) {
  Watch();
  Path();
  EXPECT_TRUE(watcher_->OnAnswer(List("100", {Orders("orders-1", "90", "10.0.0.1")}, "next")).ok());
  EXPECT_FALSE(watcher_->OnAnswer(List("100", {Orders("orders-1", "90", "10.0.0.1")}, "next")).ok());
  EXPECT_EQ(Path(), absl::StrCat(kList, "&limit=100"));
}

// Of the objects it does nothing.
class ListReader : public KubeListWatch {
 public:
  ListReader(const std::string& kubeconfig, size_t most)
      : KubeListWatch({.kind = kEndpointSlices,
                       .space = "default",
                       .selector = "",
                       .since = "",
                       .page = 2,
                       .most = most},
                      kubeconfig, "service:") {}
  std::string Title() const override { return "slices"; }
  int lists() const { return lists_; }

 private:
  void OnListBegins() override {}
  absl::Status OnListed(const nlohmann::json&) override { return absl::OkStatus(); }
  absl::Status OnChanged(const nlohmann::json&) override { return absl::OkStatus(); }
  absl::Status OnListEnds(const Names&) override { return ++lists_, absl::OkStatus(); }
  absl::Status OnDeleted(const nlohmann::json&) override { return absl::OkStatus(); }
  void OnRight() override {}

  int lists_ = 0;
};

TEST_F(KubeWatcherTest, PagesThatAlwaysHaveSomethingNewAreAnErrorInTheEnd) {
  ListReader reader(kubeconfig_, /*most=*/7);
  const auto page = [](int number, const std::string& next) {
    return List("100",
                {Orders(absl::StrCat("a", number), "90", "10.0.0.1"),
                 Orders(absl::StrCat("b", number), "90", "10.0.0.1")},
                next);
  };
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 3; ++i) {
      ASSERT_EQ(absl::StrContains(reader.Next()->path, "&continue=on"), i > 0);
      ASSERT_TRUE(reader.OnAnswer(page(i, "on")).ok());
    }
    ASSERT_TRUE(reader.Next().ok());
    const absl::Status status = reader.OnAnswer(page(3, "on"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("there are more than 7 EndpointSlices"));
  }
  EXPECT_EQ(reader.lists(), 0);
  ASSERT_TRUE(reader.Next().ok());
  EXPECT_TRUE(reader.OnAnswer(page(0, "")).ok());
  EXPECT_EQ(reader.lists(), 1);
}

TEST_F(KubeWatcherTest, NamesAreNoLongerThanTheApiHasThem) {
  Watch();
  Path();
  EXPECT_FALSE(watcher_->OnAnswer(List("100", {Orders(std::string(254, 'a'), "90", "10.0.0.1")})).ok());
  EXPECT_EQ(times_told_, 0);
  EXPECT_TRUE(watcher_->OnAnswer(List("100", {Orders(std::string(253, 'a'), "90", "10.0.0.1")})).ok());
  EXPECT_THAT(told_, ElementsAre("10.0.0.1:8080"));
}

TEST_F(KubeWatcherTest, WhatChangesIsToldAtOnce) {
  GetOn();
  EXPECT_TRUE(Line(Event("ADDED", Orders("orders-2", "101", "10.0.0.2"))));
  EXPECT_THAT(told_, ElementsAre("10.0.0.1:8080", "10.0.0.2:8080"));
  EXPECT_TRUE(Line(Event("MODIFIED", Orders("orders-1", "102", "10.0.0.1",
                                            R"({"ready":false,"serving":true,"terminating":true})"))));
  EXPECT_THAT(told_, ElementsAre("10.0.0.1:8080 backup", "10.0.0.2:8080"));
  EXPECT_TRUE(Line(Event("DELETED", Orders("orders-1", "103", "10.0.0.1"))));
  EXPECT_THAT(told_, ElementsAre("10.0.0.2:8080"));
  EXPECT_TRUE(Line(Event("DELETED", Orders("orders-2", "104", "10.0.0.2"))));
  EXPECT_THAT(told_, IsEmpty());
  EXPECT_EQ(VersionAsked(), "104");
}

TEST_F(KubeWatcherTest, AWatchGoesOnFromWhatWasHeardLast) {
  GetOn();
  EXPECT_TRUE(Line(Event("MODIFIED", Orders("orders-1", "198", "10.0.0.2"))));
  EXPECT_TRUE(watcher_->OnAnswer({.code = 200, .body = "", .failure = {}}).ok());
  EXPECT_EQ(VersionAsked(), "198");
  watcher_->OnStream();
  EXPECT_TRUE(Line(Bookmark("250")));
  // Who breaks off after that is asked again without a word; if he does not answer then, that is told.
  EXPECT_TRUE(Broken().ok());
  EXPECT_EQ(VersionAsked(), "250");
  const absl::Status status = Broken();
  EXPECT_EQ(status.message(), "https://10.0.0.1:6443: Connection reset by peer");
  EXPECT_EQ(VersionAsked(), "250");
  EXPECT_THAT(told_, ElementsAre("10.0.0.2:8080"));
}

TEST_F(KubeWatcherTest, TheListIsToldAgainWhenAWatchBegins) {
  GetOn();
  EXPECT_FALSE(Broken().ok());
  const int before = times_told_;
  BeginWatch();
  EXPECT_EQ(times_told_, before + 1);
  EXPECT_THAT(told_, ElementsAre("10.0.0.1:8080"));
}

TEST_F(KubeWatcherTest, WhatTheServerHasForgottenIsListedAnewWithoutAWord) {
  GetOn();
  EXPECT_TRUE(Line(Bookmark("150")));
  EXPECT_FALSE(Line(ErrorEvent(410, "too old resource version: 150 (300)")));
  EXPECT_TRUE(AfterLine().ok());
  EXPECT_THAT(told_, ElementsAre("10.0.0.1:8080"));
  EXPECT_EQ(Path(), absl::StrCat(kList, "&limit=100"));
  EXPECT_TRUE(watcher_->OnAnswer(List("300", {Orders("orders-1", "290", "10.0.0.7")})).ok());
  EXPECT_THAT(told_, ElementsAre("10.0.0.7:8080"));
  EXPECT_EQ(VersionAsked(), "300");
  // Again, but at once: who is asked so might be asked for ever.
  EXPECT_THAT(std::string(watcher_->OnAnswer(Refusal(410, "too old")).message()), HasSubstr("too old"));
  EXPECT_EQ(VersionAsked(), "a list");
}

TEST_F(KubeWatcherTest, NobodyHearsOfItEitherIfNothingHasHappened) {
  GetOn();
  EXPECT_TRUE(watcher_->OnAnswer({.code = 200, .body = "", .failure = {}}).ok());
  EXPECT_EQ(VersionAsked(), "100");
  EXPECT_TRUE(watcher_->OnAnswer(Refusal(410, "too old")).ok());
  EXPECT_EQ(VersionAsked(), "a list");
}

TEST_F(KubeWatcherTest, OtherErrorsOfAWatchAreToldAndListedAfter) {
  GetOn();
  EXPECT_TRUE(Line(Bookmark("150")));
  EXPECT_FALSE(Line(ErrorEvent(500, "etcd is away")));
  EXPECT_THAT(std::string(AfterLine().message()), HasSubstr("it ends the watch: 500 etcd is away"));
  EXPECT_EQ(VersionAsked(), "a list");
  EXPECT_THAT(told_, ElementsAre("10.0.0.1:8080"));
}

TEST_F(KubeWatcherTest, RefusalsSayWhatWouldHelp) {
  const auto told_for = [this](long code, const std::string& message) {
    Watch();
    Path();
    return std::string(watcher_->OnAnswer(Refusal(code, message)).message());
  };
  EXPECT_EQ(
      told_for(401, "Unauthorized"),
      "https://10.0.0.1:6443: it answers 401: Unauthorized; give the agent a token that is valid there");
  EXPECT_THAT(told_for(403, "is forbidden"),
              HasSubstr("403: is forbidden; give the agent's account the right to list "
                        "and watch endpointslices (deploy/kubernetes/rbac.yaml)"));
  EXPECT_THAT(told_for(404, "not found"), HasSubstr("Kubernetes 1.21"));
  EXPECT_THAT(told_for(429, "slowly"), HasSubstr("429: slowly"));
  EXPECT_LT(told_for(500, std::string(100'000, 'x')).size(), 1000u);
  EXPECT_EQ(times_told_, 0);
}

TEST_F(KubeWatcherTest, ARefusedWatchKeepsItsPlaceIfThatMayPass) {
  GetOn();
  for (const long code : {401, 403, 429, 503}) {
    EXPECT_FALSE(watcher_->OnAnswer(Refusal(code, "no")).ok());
    EXPECT_EQ(VersionAsked(), "100") << code;
  }
  EXPECT_FALSE(watcher_->OnAnswer(Refusal(400, "invalid resource version")).ok());
  EXPECT_EQ(VersionAsked(), "a list");
}

TEST_F(KubeWatcherTest, GarbageLosesNothing) {
  for (const char* garbage : {"", "<html>", R"({"type":"ADDED","object":{"kind":"EndpointSlice"}})",
                              R"({"type":"MODIFIED","object":[]})"}) {
    GetOn();
    EXPECT_TRUE(Line(Bookmark("150")));
    EXPECT_FALSE(Line(garbage));
    EXPECT_THAT(std::string(AfterLine().message()), HasSubstr("a line of the watch is not what")) << garbage;
    EXPECT_THAT(told_, ElementsAre("10.0.0.1:8080"));
    EXPECT_EQ(VersionAsked(), "a list");
    const int before = times_told_;
    EXPECT_FALSE(watcher_->OnAnswer({.code = 200, .body = garbage, .failure = {}}).ok());
    EXPECT_EQ(times_told_, before);
    EXPECT_EQ(VersionAsked(), "a list");
    EXPECT_TRUE(watcher_->OnAnswer(List("300", {Orders("orders-1", "290", "10.0.0.1")})).ok());
    EXPECT_EQ(times_told_, before + 1);
  }
}

TEST_F(KubeWatcherTest, ASliceThatIsBrokenKeepsWhatItHadAndStopsNoOther) {
  const auto broken = [](const std::string& name, const std::string& version) {
    std::string slice = Orders(name, version, "10.0.0.9");
    return slice.replace(slice.find("8080"), 4, "70000");
  };
  GetOn();
  EXPECT_TRUE(Line(Event("MODIFIED", broken("orders-1", "101"))));
  EXPECT_THAT(told_, ElementsAre("10.0.0.1:8080"));
  EXPECT_THAT(missing_, HasSubstr("EndpointSlice orders-1: there is no port 70000"));
  EXPECT_TRUE(Line(Event("ADDED", Orders("orders-2", "102", "10.0.0.2"))));
  EXPECT_THAT(told_, ElementsAre("10.0.0.1:8080", "10.0.0.2:8080"));
  EXPECT_THAT(missing_, HasSubstr("there is no port 70000"));
  EXPECT_EQ(VersionAsked(), "102");
  // Also where it is listed.
  EXPECT_TRUE(watcher_->OnAnswer(Refusal(410, "too old")).ok());
  Path();
  EXPECT_TRUE(watcher_
                  ->OnAnswer(List("300", {broken("orders-1", "101"), broken("orders-3", "103"),
                                          Orders("orders-2", "290", "10.0.0.3")}))
                  .ok());
  EXPECT_THAT(told_, ElementsAre("10.0.0.1:8080", "10.0.0.3:8080"));
  EXPECT_THAT(missing_, HasSubstr("(and 1 more)"));
  BeginWatch();
  EXPECT_TRUE(Line(Event("MODIFIED", Orders("orders-1", "301", "10.0.0.4"))));
  EXPECT_TRUE(Line(Event("DELETED", broken("orders-3", "302"))));
  EXPECT_THAT(told_, ElementsAre("10.0.0.4:8080", "10.0.0.3:8080"));
  EXPECT_EQ(missing_, "");
}

TEST_F(KubeWatcherTest, PagesThatAreTooLargeAreAskedForInSmallerOnes) {
  Watch();
  Path();
  EXPECT_TRUE(watcher_->OnFailure(absl::OutOfRangeError("the answer has more than 7 bytes")).ok());
  EXPECT_EQ(Path(), absl::StrCat(kList, "&limit=25"));
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(watcher_->OnFailure(absl::OutOfRangeError("too large")).ok());
  EXPECT_EQ(Path(), absl::StrCat(kList, "&limit=1"));
  EXPECT_FALSE(watcher_->OnFailure(absl::OutOfRangeError("too large")).ok());
}

TEST_F(KubeWatcherTest, SlicesOfOtherServicesDoNotCount) {
  Watch();
  Path();
  EXPECT_TRUE(watcher_
                  ->OnAnswer(List("100", {Orders("orders-1", "90", "10.0.0.1"),
                                          Orders("other-1", "91", "10.0.0.9", "{}", "other")}))
                  .ok());
  EXPECT_THAT(told_, ElementsAre("10.0.0.1:8080"));
  BeginWatch();
  EXPECT_TRUE(Line(Event("MODIFIED", Orders("orders-1", "101", "10.0.0.1", "{}", "other"))));
  EXPECT_THAT(told_, IsEmpty());
}

TEST_F(KubeWatcherTest, APortThatIsNotThereIsToldWhileTheWatchGoesOn) {
  Watch("web");
  Path();
  const absl::Status first = watcher_->OnAnswer(List("100", {Orders("orders-1", "90", "10.0.0.1")}));
  EXPECT_THAT(std::string(first.message()), HasSubstr("no TCP or UDP port web; there are: http (8080/TCP)"));
  EXPECT_EQ(VersionAsked(), "100");
  GetOn();
  std::string event = Event("MODIFIED", Orders("orders-1", "101", "10.0.0.1"));
  event.replace(event.find("http"), 4, "web");
  EXPECT_TRUE(Line(event));
  EXPECT_THAT(told_, ElementsAre("10.0.0.1:8080"));
  EXPECT_THAT(missing_, HasSubstr("no TCP or UDP port http; there are: web (8080/TCP)"));
  EXPECT_TRUE(Line(Event("MODIFIED", Orders("orders-1", "102", "10.0.0.3"))));
  EXPECT_THAT(told_, ElementsAre("10.0.0.3:8080"));
  EXPECT_EQ(missing_, "");
}

TEST_F(KubeWatcherTest, AnotherServerIsAskedForAList) {
  GetOn();
  WriteKubeconfig("https://10.0.0.2:6443");
  EXPECT_EQ(VersionAsked(), "a list");
  EXPECT_THAT(told_, ElementsAre("10.0.0.1:8080"));
}

TEST_F(KubeWatcherTest, WithoutAServerItSaysHowToGiveOne) {
  Watch();
  unlink(kubeconfig_.c_str());
  const std::string broken(watcher_->Next().status().message());
  EXPECT_THAT(broken, HasSubstr(kubeconfig_));
  EXPECT_THAT(broken, Not(HasSubstr("--kubeconfig")));
  for (const char* name : {"KUBECONFIG", "KUBERNETES_SERVICE_HOST"}) unsetenv(name);
  watcher_.emplace(net::KubernetesSpec{.service = "default/orders", .port = {}, .kubeconfig = {}});
  EXPECT_THAT(
      std::string(watcher_->Next().status().message()),
      HasSubstr("give kubeconfig: FILE beside service:, or the agent KUBECONFIG, or run it in a pod"));
}

}  // namespace
}  // namespace shunt
