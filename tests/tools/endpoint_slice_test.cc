// SPDX-License-Identifier: Apache-2.0
// What EndpointSlices say, and which backends that makes.

#include "tools/endpoint_slice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tools/service_config.h"

namespace shunt {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kHttp[] = R"({"name":"http","port":8080,"protocol":"TCP"})";

std::string SliceText(const std::string& name, const std::string& endpoints, const std::string& ports = kHttp,
                      const std::string& type = "IPv4") {
  return absl::StrCat(R"({"metadata":{"name":")", name,
                      R"(","labels":{"kubernetes.io/service-name":"orders"}},"addressType":")", type,
                      R"(","ports":[)", ports, R"(],"endpoints":[)", endpoints, "]}");
}

std::string PageText(const std::vector<std::string>& slices) {
  std::string items;
  for (const std::string& slice : slices) absl::StrAppend(&items, items.empty() ? "" : ",", slice);
  return absl::StrCat(R"({"kind":"EndpointSliceList","metadata":{"resourceVersion":"7"},"items":[)", items,
                      "]}");
}

std::string EventText(const std::string& type, const std::string& name, const std::string& version) {
  return absl::StrCat(R"({"type":")", type, R"(","object":{"kind":"EndpointSlice","addressType":"IPv4",)",
                      R"("metadata":{"name":")", name, R"(","resourceVersion":")", version, R"("}}})");
}

absl::StatusOr<EndpointSlices::Backends> BackendsIn(const std::vector<std::string>& slices,
                                                    const std::string& port = "") {
  absl::StatusOr<KubePage> page = ReadKubePage(PageText(slices), kEndpointSlices);
  if (!page.ok()) return page.status();
  EndpointSlices all;
  for (const nlohmann::json& object : page->objects) {
    absl::StatusOr<EndpointSlice> slice = ReadSlice(object);
    if (!slice.ok()) return slice.status();
    if (absl::Status status = all.Put(*std::move(slice)); !status.ok()) return status;
  }
  return all.BackendsAt(port);
}

// "10.0.0.1:8080 zone backup"
std::vector<std::string> TextsIn(const std::vector<std::string>& slices, const std::string& port = "") {
  const absl::StatusOr<EndpointSlices::Backends> found = BackendsIn(slices, port);
  EXPECT_TRUE(found.ok()) << found.status();
  std::vector<std::string> texts;
  if (!found.ok()) return texts;
  for (const net::BackendSpec& backend : found->list) {
    texts.push_back(absl::StrCat(backend.address.ToString(), backend.zone.empty() ? "" : " ", backend.zone,
                                 backend.backup ? " backup" : ""));
  }
  return texts;
}

std::string MessageFor(const std::vector<std::string>& slices, const std::string& port = "") {
  return std::string(BackendsIn(slices, port).status().message());
}

TEST(EndpointSliceTest, ReadyEndpointsAreBackends) {
  EXPECT_THAT(
      TextsIn({SliceText("orders-1",
                         R"({"addresses":["10.0.0.1","10.0.9.9"],"conditions":{"ready":true},"zone":"a"},
                                    {"addresses":["10.0.0.2"],"conditions":{"ready":null}},
                                    {"addresses":["10.0.0.3"],"zone":null},
                                    {"addresses":["10.0.0.4"],"conditions":{}})")}),
      ElementsAre("10.0.0.1:8080 a", "10.0.0.2:8080", "10.0.0.3:8080", "10.0.0.4:8080"));
}

TEST(EndpointSliceTest, WhoIsAboutToEndIsABackupWhileHeServes) {
  EXPECT_THAT(TextsIn({SliceText("orders-1",
                                 R"({"addresses":["10.0.0.1"],"conditions":{"ready":false}},
                            {"addresses":["10.0.0.2"],"conditions":{"ready":false,"serving":true,"terminating":true}},
                            {"addresses":["10.0.0.3"],"conditions":{"ready":false,"serving":true,"terminating":false}},
                            {"addresses":["10.0.0.4"],"conditions":{"ready":false,"terminating":true}},
                            {"addresses":["10.0.0.5"],"conditions":{"ready":false,"serving":null,"terminating":true}})")}),
              ElementsAre("10.0.0.2:8080 backup"));
}

TEST(EndpointSliceTest, BothFamiliesAddUpAndNamesAreSkipped) {
  EXPECT_THAT(TextsIn({SliceText("orders-4", R"({"addresses":["10.0.0.1"]})"),
                       SliceText("orders-6", R"({"addresses":["fd00::1"]})", kHttp, "IPv6"),
                       SliceText("orders-n", R"({"addresses":["a.example"]})", kHttp, "FQDN")}),
              ElementsAre("10.0.0.1:8080", "[fd00::1]:8080"));
}

TEST(EndpointSliceTest, NobodyHearsOfNames) {
  const absl::StatusOr<EndpointSlices::Backends> found =
      BackendsIn({SliceText("n", R"({"addresses":["a.example"]})", kHttp, "FQDN")});
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_TRUE(found->missing.ok()) << found->missing;
}

TEST(EndpointSliceTest, AnAddressCountsOnceAndReadyWins) {
  constexpr char kEnding[] =
      R"({"addresses":["10.0.0.1"],"conditions":{"ready":false,"serving":true,"terminating":true}})";
  constexpr char kReady[] = R"({"addresses":["10.0.0.1"]})";
  EXPECT_THAT(TextsIn({SliceText("a", kEnding), SliceText("b", kReady)}), ElementsAre("10.0.0.1:8080"));
  EXPECT_THAT(TextsIn({SliceText("a", kReady), SliceText("b", kEnding)}), ElementsAre("10.0.0.1:8080"));
  EXPECT_THAT(TextsIn({SliceText("a", kEnding), SliceText("b", kEnding)}),
              ElementsAre("10.0.0.1:8080 backup"));
}

TEST(EndpointSliceTest, HintsAreTheZoneIfAllReadyEndpointsHaveThem) {
  const std::string first =
      R"({"addresses":["10.0.0.1"],"zone":"a","hints":{"forZones":[{"name":"b"},{"name":"c"}]}})";
  const std::string second = R"({"addresses":["10.0.0.2"],"zone":"a","hints":{"forZones":[{"name":"a"}]}})";
  const std::string without = R"({"addresses":["10.0.0.3"],"zone":"c","hints":{"forZones":null}})";
  EXPECT_THAT(TextsIn({SliceText("a", first), SliceText("b", second)}),
              ElementsAre("10.0.0.1:8080 b", "10.0.0.2:8080 a"));
  EXPECT_THAT(TextsIn({SliceText("a", first + "," + without), SliceText("b", second)}),
              ElementsAre("10.0.0.1:8080 a", "10.0.0.3:8080 c", "10.0.0.2:8080 a"));
  const std::string ending = absl::StrReplaceAll(
      without, {{"{\"addr", R"({"conditions":{"ready":false,"serving":true,"terminating":true},"addr)"}});
  EXPECT_THAT(TextsIn({SliceText("a", first + "," + ending)}),
              ElementsAre("10.0.0.1:8080 b", "10.0.0.3:8080 c backup"));
}

TEST(EndpointSliceTest, ThePortIsFoundByItsNameOrNumber) {
  const std::string endpoint = R"({"addresses":["10.0.0.1"]})";
  const std::string ports =
      absl::StrCat(kHttp, R"(,{"name":"grpc","port":9090},{"name":"dns","port":53,"protocol":"UDP"},
      {"name":"dns-tcp","port":53,"protocol":"TCP"},{"name":"sctp","port":7,"protocol":"SCTP"},{"name":"any"})");
  const std::vector<std::string> slices = {SliceText("a", endpoint, ports)};
  EXPECT_THAT(TextsIn(slices, "http"), ElementsAre("10.0.0.1:8080"));
  EXPECT_THAT(TextsIn(slices, "grpc"), ElementsAre("10.0.0.1:9090"));
  EXPECT_THAT(TextsIn(slices, "9090"), ElementsAre("10.0.0.1:9090"));
  EXPECT_THAT(TextsIn(slices, "dns"), ElementsAre("10.0.0.1:53"));
  EXPECT_THAT(TextsIn(slices, "53"), ElementsAre("10.0.0.1:53"));
  EXPECT_THAT(MessageFor(slices),
              HasSubstr("EndpointSlice a has several ports: http (8080/TCP), grpc (9090/TCP), dns (53/UDP)"));
  EXPECT_THAT(MessageFor(slices, "htp"),
              HasSubstr("no TCP or UDP port htp; there are: any (all ports/TCP), dns "));
  EXPECT_THAT(MessageFor(slices, "sctp"), HasSubstr("no TCP or UDP port sctp"));
  EXPECT_THAT(MessageFor(slices, "808"), HasSubstr("no TCP or UDP port 808"));
  EXPECT_THAT(MessageFor(slices, "any"), HasSubstr("any (all ports/TCP) is no single port"));
  EXPECT_THAT(TextsIn({SliceText("a", endpoint, R"({"port":5353,"protocol":"UDP","name":null})")}),
              ElementsAre("10.0.0.1:5353"));
  EXPECT_THAT(MessageFor({SliceText("a", endpoint, "")}), HasSubstr("EndpointSlice a has no port"));
}

TEST(EndpointSliceTest, PodsThatDoNotHaveThePortAreNoBackends) {
  EXPECT_THAT(TextsIn({SliceText("a", R"({"addresses":["10.0.0.1"]})", ""),
                       SliceText("b", R"({"addresses":["10.0.0.2"]})", R"({"name":"http","port":8081})"),
                       SliceText("c", R"({"addresses":["10.0.0.3"]})")},
                      "http"),
              ElementsAre("10.0.0.2:8081", "10.0.0.3:8080"));
}

TEST(EndpointSliceTest, AServiceWithoutPodsHasNoBackends) {
  // As the cluster's controller leaves it: without ports.
  const std::string none =
      R"({"metadata":{"name":"orders-1"},"addressType":"IPv4","ports":null,"endpoints":null})";
  EXPECT_THAT(TextsIn({none}, "http"), IsEmpty());
  EXPECT_THAT(TextsIn({none}), IsEmpty());
  EXPECT_THAT(TextsIn({}), IsEmpty());
}

TEST(EndpointSliceTest, WhatNoMachineIsAtIsLeftOutAndTold) {
  const absl::StatusOr<EndpointSlices::Backends> found = BackendsIn(
      {SliceText("a", R"({"addresses":["0.0.0.0"]},{"addresses":["10.0.0.1"]},{"addresses":["224.0.0.1"]},
                         {"addresses":["nonsense"]})")});
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->list.size(), 1u);
  EXPECT_THAT(std::string(found->missing.message()),
              HasSubstr("0.0.0.0 of EndpointSlice a is no address of one machine, nor are 2 more: left out"));
}

TEST(EndpointSliceTest, APageHasAVersionAndPerhapsANext) {
  const absl::StatusOr<KubePage> page = ReadKubePage(
      R"({"kind":"EndpointSliceList","metadata":{"resourceVersion":"7","continue":"abc"},"items":null})",
      kEndpointSlices);
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(page->version, "7");
  EXPECT_EQ(page->next, "abc");
  EXPECT_THAT(page->objects, IsEmpty());
}

TEST(EndpointSliceTest, EventsAreReadByTheirType) {
  for (const char* type : {"ADDED", "MODIFIED", "DELETED", "BOOKMARK"}) {
    const absl::StatusOr<KubeEvent> event = ReadKubeEvent(EventText(type, "a", "9"), kEndpointSlices);
    ASSERT_TRUE(event.ok()) << event.status();
    EXPECT_EQ(event->version, "9");
    if (event->what == KubeEvent::What::kBookmark) continue;
    EXPECT_EQ(KubeNameOf(event->object), "/a");
  }
  const absl::StatusOr<KubeEvent> error = ReadKubeEvent(
      R"({"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}})",
      kEndpointSlices);
  ASSERT_TRUE(error.ok()) << error.status();
  EXPECT_EQ(error->what, KubeEvent::What::kError);
  EXPECT_EQ(error->code, 410);
  EXPECT_EQ(error->message, "too old");
}

TEST(EndpointSliceTest, WhatIsSomethingElseIsAnErrorThatSaysWhat) {
  const auto why = [](const std::string& endpoints, const std::string& ports = kHttp) {
    return MessageFor({SliceText("a", endpoints, ports)});
  };
  EXPECT_THAT(why("7"), HasSubstr("EndpointSlice a: endpoints has something else than objects"));
  EXPECT_THAT(why(R"({"addresses":"10.0.0.1"})"), HasSubstr("addresses is no array"));
  EXPECT_THAT(why(R"({"addresses":[]})"), HasSubstr("addresses should begin with an address"));
  EXPECT_THAT(why(R"({"addresses":[1]})"), HasSubstr("addresses should begin with an address"));
  EXPECT_THAT(why(R"({"conditions":{"ready":true}})"), HasSubstr("addresses is missing"));
  EXPECT_THAT(why(R"({"addresses":["10.0.0.1"],"conditions":{"ready":"yes"}})"),
              HasSubstr("ready is no boolean"));
  EXPECT_THAT(why(R"({"addresses":["10.0.0.1"],"zone":3})"), HasSubstr("zone is no string"));
  for (const char* port : {"0", "65536", "-1", "80.5", "\"80\"", "18446744073709551617"})
    EXPECT_THAT(why("", absl::StrCat(R"({"port":)", port, "}")), HasSubstr("port")) << port;
  for (const char* text : {"", "nonsense", "7", "[]", "{}", "{\"kind\":\"EndpointSliceList\"}",
                           "{\"kind\":7}", R"({"kind":"PodList","metadata":{"resourceVersion":"7"}})",
                           R"({"kind":"EndpointSliceList","metadata":{"resourceVersion":7}})",
                           R"({"kind":"EndpointSliceList","metadata":{"resourceVersion":"7"},"items":{}})",
                           R"({"kind":"EndpointSliceList","metadata":{"resourceVersion":"7"},"items":[{}]})",
                           R"({"type":"ADDED"})", R"({"type":"GONE","object":{}})", R"({"type":"ERROR"})"}) {
    EXPECT_THAT(std::string(ReadKubePage(text, kEndpointSlices).status().message()),
                HasSubstr("is not what the API server says of EndpointSlices"))
        << text;
    EXPECT_THAT(std::string(ReadKubeEvent(text, kEndpointSlices).status().message()),
                HasSubstr("is not what the API server says of EndpointSlices"))
        << text;
  }
  EXPECT_FALSE(ReadKubeEvent(std::string(100'000, '['), kEndpointSlices).ok());
  EXPECT_LT(ReadKubeEvent(EventText(std::string(100'000, 'x'), "a", "9"), kEndpointSlices)
                .status()
                .message()
                .size(),
            1000u);
}

TEST(EndpointSliceTest, ThereIsRoomForSoManyEndpointsAndNoMore) {
  const auto slice_of = [](const std::string& name, size_t count) {
    EndpointSlice slice;
    slice.name = name;
    slice.ports.push_back({.name = "", .protocol = "TCP", .number = 80});
    slice.endpoints.resize(count, {.address = "10.0.0.1", .zone = {}, .hint = {}});
    return slice;
  };
  EndpointSlices all;
  EXPECT_TRUE(all.Put(slice_of("a", kMostBackends - 1)).ok());
  EXPECT_TRUE(all.Put(slice_of("b", 1)).ok());
  EXPECT_FALSE(all.Put(slice_of("c", 1)).ok());
  EXPECT_TRUE(all.Put(slice_of("a", 1)).ok());
  EXPECT_TRUE(all.Put(slice_of("c", kMostBackends - 2)).ok());
  all.Remove("c");
  all.Remove("c");
  EXPECT_EQ(all.size(), 2u);
  EXPECT_TRUE(all.Put(slice_of("c", kMostBackends - 2)).ok());
}

}  // namespace
}  // namespace shunt
