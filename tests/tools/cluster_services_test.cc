// SPDX-License-Identifier: Apache-2.0
// What an API server says of Services, and which services follow from that and from their EndpointSlices.

#include "tools/cluster_services.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tools/cluster_watcher.h"
#include "tools/service_values.h"

namespace shunt {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;
using Json = nlohmann::json;
using Part = ClusterServices::Part;

Json ServiceJson(const std::string& name, const Json& spec, const std::string& space = "prod") {
  return {{"metadata", {{"name", name}, {"namespace", space}}}, {"spec", spec}};
}

Json PortJson(const std::string& name, int number, const std::string& protocol = "TCP") {
  return {{"name", name}, {"port", number}, {"protocol", protocol}};
}

// Braces alone are an object, or a copy, as soon as they can be.
Json ListOf(const std::vector<Json>& items) {
  return Json(items);
}

// With one port, 80 named "http", at 10.96.1.1.
Json WebJson() {
  return ServiceJson("web", {{"clusterIP", "10.96.1.1"},
                             {"clusterIPs", ListOf({"10.96.1.1"})},
                             {"ports", ListOf({PortJson("http", 80)})}});
}

Json SliceJson(const std::string& name, const std::vector<std::string>& addresses,
               const Json& ports = ListOf({PortJson("http", 8080)}), const std::string& service = "web",
               const std::string& space = "prod") {
  Json endpoints = Json::array();
  for (const std::string& address : addresses)
    endpoints.push_back(Json::object({{"addresses", ListOf({address})}}));
  return {{"metadata",
           {{"name", name}, {"namespace", space}, {"labels", {{"kubernetes.io/service-name", service}}}}},
          {"addressType", addresses.empty() || addresses[0].find(':') == std::string::npos ? "IPv4" : "IPv6"},
          {"ports", ports},
          {"endpoints", endpoints}};
}

// Numbers are others than those that are written here.
Json AsRead(const Json& json) {
  return Json::parse(json.dump());
}

std::string TextOfFound(const net::FoundService& service) {
  return absl::StrCat(absl::StrJoin(service.addresses, " ",
                                    [](std::string* out, const net::ServiceAddress& address) {
                                      out->append(ServiceAddressText(address));
                                    }),
                      " -> ",
                      absl::StrJoin(service.backends, " ", [](std::string* out, const net::BackendSpec& one) {
                        absl::StrAppend(out, one.address.ToString(), one.backup ? "(backup)" : "");
                      }));
}

class ClusterServicesTest : public ::testing::Test {
 protected:
  void Put(const Json& service) { cluster_.Put(Part::kServices, AsRead(service)); }
  void PutSlice(const Json& slice) { cluster_.Put(Part::kSlices, AsRead(slice)); }
  // Both lists are there, with all that was put so far.
  void Listed() {
    cluster_.Keep(Part::kServices, {"prod/web", "prod/other", "prod/db"});
    cluster_.Keep(Part::kSlices, {"prod/web-1", "prod/web-2", "prod/web-6", "prod/db-1"});
  }
  // What has changed, "NAME: ADDRESSES -> BACKENDS", or "NAME: gone".
  std::vector<std::string> Changes() {
    last_ = cluster_.Take();
    std::vector<std::string> texts;
    for (const auto& [name, service] : last_.services)
      texts.push_back(absl::StrCat(name, ": ", service == nullptr ? "gone" : TextOfFound(*service)));
    return texts;
  }

  ClusterServices cluster_{"node-1"};
  net::FoundChanges last_;
};

TEST_F(ClusterServicesTest, NothingFollowsBeforeBothAreListed) {
  Put(WebJson());
  cluster_.Keep(Part::kServices, {"prod/web"});
  EXPECT_TRUE(cluster_.Take().empty());
  PutSlice(SliceJson("web-1", {"10.0.0.1"}));
  EXPECT_TRUE(cluster_.Take().empty());
  cluster_.Keep(Part::kSlices, {"prod/web-1"});
  EXPECT_THAT(Changes(), ElementsAre("prod/web:http: 10.96.1.1:80/tcp -> 10.0.0.1:8080"));
  EXPECT_TRUE(last_.whole);
  EXPECT_TRUE(cluster_.Take().empty());
}

// A server may tell of one thing for ever, and never come to the end of its list of the other.
TEST_F(ClusterServicesTest, WhatComesAndGoesBeforeThatLeavesNothing) {
  for (int i = 0; i < 100; ++i) {
    const std::string name = absl::StrCat("s", i);
    Json broken = SliceJson(absl::StrCat(name, "-2"), {"10.0.0.1"}, PortJson("http", 8080), name);
    for (const auto& [part, object] : std::vector<std::pair<Part, Json>>{
             {Part::kServices, ServiceJson(name, {{"ports", ListOf({PortJson("http", 80)})}})},
             {Part::kSlices, SliceJson(absl::StrCat(name, "-1"), {"10.0.0.1"}, Json::array(), name)},
             {Part::kSlices, broken}}) {
      cluster_.Put(part, AsRead(object));
      EXPECT_EQ(cluster_.kept(), 1u) << object;
      cluster_.Remove(part, AsRead(object));
      EXPECT_EQ(cluster_.kept(), 0u) << object;
    }
  }
}

TEST_F(ClusterServicesTest, EachPortIsOneWithAllAddressesAndAllSlices) {
  Json web = WebJson();
  web["spec"]["clusterIPs"] = {"10.96.1.1", "fd00::1"};
  web["spec"]["ports"] = ListOf({PortJson("http", 80), PortJson("dns", 53, "UDP"), PortJson("dns-tcp", 53),
                                 PortJson("sig", 9, "SCTP")});
  Put(web);
  PutSlice(SliceJson("web-1", {"10.0.0.1", "10.0.0.2"},
                     ListOf({PortJson("http", 8080), PortJson("dns", 5353, "UDP")})));
  PutSlice(SliceJson("web-2", {"10.0.0.3"}, ListOf({PortJson("http", 8081), PortJson("dns-tcp", 5353)})));
  PutSlice(SliceJson("web-6", {"fd01::1"}));
  Listed();
  EXPECT_THAT(Changes(), UnorderedElementsAre(
                             "prod/web:http: 10.96.1.1:80/tcp [fd00::1]:80/tcp -> 10.0.0.1:8080 "
                             "10.0.0.2:8080 10.0.0.3:8081 [fd01::1]:8080",
                             "prod/web:dns: 10.96.1.1:53/udp [fd00::1]:53/udp -> 10.0.0.1:5353 10.0.0.2:5353",
                             "prod/web:dns-tcp: 10.96.1.1:53/tcp [fd00::1]:53/tcp -> 10.0.0.3:5353"));
  EXPECT_THAT(last_.remarks, ElementsAre(HasSubstr("prod/web: SCTP is not balanced")));
}

TEST_F(ClusterServicesTest, OnlyWhatHasChangedIsTold) {
  Put(WebJson());
  Json other = WebJson();
  other["metadata"]["name"] = "other";
  other["spec"]["clusterIPs"] = {"10.96.1.2"};
  Put(other);
  PutSlice(SliceJson("web-1", {"10.0.0.1"}));
  Listed();
  EXPECT_THAT(Changes(), UnorderedElementsAre("prod/web:http: 10.96.1.1:80/tcp -> 10.0.0.1:8080",
                                              "prod/other:http: 10.96.1.2:80/tcp -> "));
  PutSlice(SliceJson("web-1", {"10.0.0.2"}));
  EXPECT_THAT(Changes(), ElementsAre("prod/web:http: 10.96.1.1:80/tcp -> 10.0.0.2:8080"));
  EXPECT_FALSE(last_.whole);
  PutSlice(SliceJson("web-1", {"10.0.0.2"}));
  Put(WebJson());
  EXPECT_THAT(Changes(), IsEmpty());
  // A slice that becomes another's.
  PutSlice(SliceJson("web-1", {"10.0.0.2"}, ListOf({PortJson("http", 8080)}), "other"));
  EXPECT_THAT(Changes(), UnorderedElementsAre("prod/web:http: 10.96.1.1:80/tcp -> ",
                                              "prod/other:http: 10.96.1.2:80/tcp -> 10.0.0.2:8080"));
  Json renamed = WebJson();
  renamed["spec"]["ports"] = ListOf({PortJson("", 8080)});
  Put(renamed);
  EXPECT_THAT(Changes(), UnorderedElementsAre("prod/web:http: gone", "prod/web: 10.96.1.1:8080/tcp -> "));
  cluster_.Remove(Part::kServices, WebJson());
  cluster_.Remove(Part::kSlices, SliceJson("web-1", {}));
  EXPECT_THAT(Changes(), UnorderedElementsAre("prod/web: gone", "prod/other:http: 10.96.1.2:80/tcp -> "));
}

TEST_F(ClusterServicesTest, WhatIsNotListedAnyMoreIsGone) {
  Put(WebJson());
  PutSlice(SliceJson("web-1", {"10.0.0.1"}));
  PutSlice(SliceJson("web-2", {"10.0.0.2"}));
  Listed();
  Changes();
  cluster_.Keep(Part::kSlices, {"prod/web-2"});
  EXPECT_THAT(Changes(), ElementsAre("prod/web:http: 10.96.1.1:80/tcp -> 10.0.0.2:8080"));
  cluster_.Keep(Part::kServices, {});
  EXPECT_THAT(Changes(), ElementsAre("prod/web:http: gone"));
}

TEST_F(ClusterServicesTest, HeadlessOnesAndOtherNamesAreNothing) {
  const Json ports = ListOf({PortJson("", 80)});
  for (const char* text :
       {R"({"clusterIP":"None","clusterIPs":["None"]})",
        R"({"type":"ExternalName","externalName":"a.example"})",
        R"({"type":"ExternalName","clusterIP":"10.96.1.1"})", R"({"clusterIP":""})", "{}"}) {
    Json spec = Json::parse(text);
    spec["ports"] = ports;
    Put(ServiceJson("web", spec));
    PutSlice(SliceJson("web-1", {"10.0.0.1"}, ports));
    Listed();
    EXPECT_THAT(Changes(), IsEmpty()) << spec;
    EXPECT_THAT(last_.remarks, IsEmpty()) << spec;
  }
}

TEST_F(ClusterServicesTest, AServerThatKnowsOneFamilyHasOneAddress) {
  Put(ServiceJson("web", {{"clusterIP", "10.96.1.1"}, {"ports", ListOf({Json::object({{"port", 80}})})}}));
  Listed();
  EXPECT_THAT(Changes(), ElementsAre("prod/web: 10.96.1.1:80/tcp -> "));
}

TEST_F(ClusterServicesTest, SessionsStayWithAClientForAsLongAsIsSaid) {
  Json web = WebJson();
  web["spec"]["sessionAffinity"] = "ClientIP";
  Put(web);
  Listed();
  Changes();
  EXPECT_TRUE(last_.services.at("prod/web:http")->sticky);
  EXPECT_EQ(last_.services.at("prod/web:http")->sticky_for, std::chrono::hours(3));
  web["spec"]["sessionAffinityConfig"] = {{"clientIP", {{"timeoutSeconds", 600}}}};
  Put(web);
  Changes();
  EXPECT_EQ(last_.services.at("prod/web:http")->sticky_for, std::chrono::minutes(10));
  Put(WebJson());
  Changes();
  EXPECT_FALSE(last_.services.at("prod/web:http")->sticky);
}

TEST_F(ClusterServicesTest, LocalTrafficGoesToTheOwnNode) {
  Json web = WebJson();
  web["spec"]["internalTrafficPolicy"] = "Local";
  Json slice = SliceJson("web-1", {"10.0.0.1", "10.0.0.2", "10.0.0.3"});
  slice["endpoints"][0]["nodeName"] = "node-2";
  slice["endpoints"][1]["nodeName"] = "node-1";
  slice["endpoints"][2]["nodeName"] = nullptr;
  Put(web);
  PutSlice(slice);
  Listed();
  EXPECT_THAT(Changes(), ElementsAre("prod/web:http: 10.96.1.1:80/tcp -> 10.0.0.2:8080"));
  EXPECT_THAT(last_.remarks, IsEmpty());

  ClusterServices nowhere("");
  nowhere.Put(Part::kServices, AsRead(web));
  nowhere.Put(Part::kSlices, AsRead(slice));
  nowhere.Keep(Part::kServices, {"prod/web"});
  nowhere.Keep(Part::kSlices, {"prod/web-1"});
  const net::FoundChanges changes = nowhere.Take();
  EXPECT_EQ(changes.services.at("prod/web:http")->backends.size(), 3u);
  EXPECT_THAT(changes.remarks, ElementsAre(HasSubstr("say node-name: NAME")));
  slice["endpoints"].erase(2);
  nowhere.Put(Part::kSlices, AsRead(slice));
  EXPECT_THAT(nowhere.Take().remarks, IsEmpty()) << "that was told";
}

TEST_F(ClusterServicesTest, ABrokenObjectCountsAsItWasAndStopsNoOther) {
  Put(WebJson());
  PutSlice(SliceJson("web-1", {"10.0.0.1"}));
  Listed();
  Changes();
  PutSlice(SliceJson("web-1", {"10.0.0.9"}, ListOf({PortJson("http", 70000)})));
  EXPECT_THAT(Changes(), ElementsAre("prod/web:http: 10.96.1.1:80/tcp -> 10.0.0.1:8080"));
  EXPECT_EQ(last_.services.at("prod/web:http")->trouble,
            "EndpointSlice web-1: there is no port 70000: it counts as it was before");
  EXPECT_THAT(last_.remarks,
              ElementsAre("EndpointSlice web-1: there is no port 70000; it counts as it was before"));
  PutSlice(SliceJson("web-1", {"10.0.0.9"}, ListOf({PortJson("http", 70000)})));
  EXPECT_TRUE(cluster_.Take().empty()) << "that was told";
  PutSlice(SliceJson("web-2", {"10.0.0.2"}));
  EXPECT_THAT(Changes(), ElementsAre("prod/web:http: 10.96.1.1:80/tcp -> 10.0.0.1:8080 10.0.0.2:8080"));
  Json broken = WebJson();
  broken["spec"]["ports"][0]["port"] = 0;
  Put(broken);
  EXPECT_THAT(Changes(), ElementsAre(HasSubstr("-> 10.0.0.1:8080 10.0.0.2:8080")));
  EXPECT_THAT(last_.services.at("prod/web:http")->trouble, HasSubstr("(and 1 more)"));
  Put(WebJson());
  // Of the broken one nothing is there any more.
  cluster_.Remove(Part::kSlices, SliceJson("web-1", {}));
  EXPECT_THAT(Changes(), ElementsAre("prod/web:http: 10.96.1.1:80/tcp -> 10.0.0.2:8080"));
  EXPECT_EQ(last_.services.at("prod/web:http")->trouble, "");
  // One that has never been right says so at its Service.
  PutSlice(SliceJson("web-6", {"fd00::1"}, ListOf({PortJson("http", 70000)})));
  Changes();
  EXPECT_THAT(last_.services.at("prod/web:http")->trouble, HasSubstr("EndpointSlice web-6"));
  cluster_.Keep(Part::kSlices, {"prod/web-2"});
  Changes();
  EXPECT_EQ(last_.services.at("prod/web:http")->trouble, "");
}

TEST_F(ClusterServicesTest, ManyMistakesAreToldInAFewLines) {
  for (int i = 0; i < 1000; ++i) Put(ServiceJson(absl::StrCat("web-", i), {{"clusterIP", "nonsense"}}));
  Listed();
  EXPECT_THAT(Changes(), IsEmpty());
  EXPECT_EQ(last_.remarks.size(), 9u);
  EXPECT_THAT(last_.remarks.back(), HasSubstr("992 more"));
}

TEST_F(ClusterServicesTest, AServiceIsNoEndpointOfItsOwn) {
  Put(WebJson());
  PutSlice(SliceJson("web-1", {"10.96.1.1", "127.0.0.1", "169.254.169.254", "10.0.0.1"}));
  Listed();
  EXPECT_THAT(Changes(), ElementsAre("prod/web:http: 10.96.1.1:80/tcp -> 10.0.0.1:8080"));
  EXPECT_THAT(last_.services.at("prod/web:http")->trouble,
              HasSubstr("10.96.1.1 of EndpointSlice web-1 is no address of one machine, nor are 2 more"));
}

TEST_F(ClusterServicesTest, ThereIsRoomForSoManyEndpointsAndNoMore) {
  absl::flat_hash_set<std::string> names;
  for (size_t i = 0; i < ClusterServices::kMostKubeServices; ++i) {
    Put(ServiceJson(absl::StrCat("web-", i), Json::object()));
    names.insert(absl::StrCat("prod/web-", i));
  }
  cluster_.Keep(Part::kServices, names);
  cluster_.Keep(Part::kSlices, {});
  Changes();
  // Whoever makes more of them takes nothing away from the others, and does not have all listed again.
  Json late = WebJson();
  late["metadata"]["name"] = "late";
  Put(late);
  EXPECT_THAT(Changes(), IsEmpty());
  EXPECT_THAT(last_.remarks,
              ElementsAre(HasSubstr("Service prod/late: there is no room for more than 50000 Services")));
  cluster_.Keep(Part::kServices, {"prod/web-1", "prod/late"});
  Put(late);
  EXPECT_THAT(Changes(), Contains(HasSubstr("prod/late:http")));
}

TEST_F(ClusterServicesTest, WhoeverHasEndpointsWithoutEndTakesThemFromNobody) {
  Put(WebJson());
  PutSlice(SliceJson("web-1", {"10.0.0.1"}));
  Listed();
  Changes();
  std::vector<std::string> thousand;
  for (int i = 0; i < 1000; ++i) thousand.push_back(absl::StrCat("10.1.", i / 250, ".", i % 250 + 1));
  Json many = SliceJson("web-many", thousand);
  for (size_t i = 0; i < ClusterServices::kMostEndpoints / 1000 + 20; ++i) {
    many["metadata"]["name"] = absl::StrCat("web-many-", i);
    PutSlice(many);
  }
  Changes();
  EXPECT_THAT(last_.remarks, Contains(HasSubstr("there is no room for more than 500000 endpoints")));
  EXPECT_LE(last_.remarks.size(), 9u);
  PutSlice(SliceJson("web-1", {"10.0.0.2"}));
  EXPECT_THAT(Changes(), Contains(HasSubstr("10.0.0.2:8080"))) << "what has a place keeps it";
}

TEST(KubeServiceTest, WhatIsSomethingElseIsAnErrorThatSaysWhat) {
  const auto why = [](const char* key, const Json& value) {
    Json web = WebJson();
    web["spec"][key] = value;
    return std::string(ReadKubeService(AsRead(web)).status().message());
  };
  EXPECT_THAT(why("clusterIPs", "10.96.1.1"), HasSubstr("Service prod/web: clusterIPs is no array"));
  for (const char* ip : {"127.0.0.1", "0.0.0.0", "224.0.0.1", "169.254.1.1", "nonsense", "::1"})
    EXPECT_THAT(why("clusterIPs", ListOf({ip})), HasSubstr(absl::StrCat(ip, " is no cluster IP")));
  for (const Json& port : {Json(0), Json(65536), Json(-1), Json(80.5), Json("80"), Json(nullptr)})
    EXPECT_THAT(why("ports", ListOf({Json::object({{"port", port}})})), HasSubstr("port")) << port;
  EXPECT_THAT(why("ports", ListOf({PortJson("a b", 80)})), HasSubstr("\"a b\" is no port's name"));
  EXPECT_THAT(why("ports", ListOf({PortJson("a", 80), PortJson("a", 81)})),
              HasSubstr("two ports are named \"a\""));
  EXPECT_THAT(why("ports", ListOf({7})), HasSubstr("ports has something else than objects"));
  EXPECT_THAT(why("sessionAffinity", 7), HasSubstr("sessionAffinity is no string"));
  EXPECT_THAT(std::string(ReadKubeService(ServiceJson("a\nb", Json::object())).status().message()),
              HasSubstr("that is no name of a Service"));
  EXPECT_FALSE(ReadKubeService(ServiceJson("web", 7)).ok());
  Json sticky = WebJson();
  sticky["spec"]["sessionAffinity"] = "ClientIP";
  for (const uint64_t seconds : {uint64_t{0}, uint64_t{86401}, ~uint64_t{0}}) {
    sticky["spec"]["sessionAffinityConfig"] = {{"clientIP", {{"timeoutSeconds", seconds}}}};
    EXPECT_THAT(std::string(ReadKubeService(AsRead(sticky)).status().message()), HasSubstr("timeoutSeconds"));
  }
}

TEST(ClusterWatcherTest, TwoOfThemListAndWatchTheWholeCluster) {
  const std::vector<std::unique_ptr<Watcher>> both = ClusterWatcher::Both({.services = "all"});
  ASSERT_EQ(both.size(), 2u);
  EXPECT_EQ(both[0]->Title(), "kubernetes Services");
  EXPECT_EQ(both[1]->Title(), "kubernetes EndpointSlices");
}

}  // namespace
}  // namespace shunt
