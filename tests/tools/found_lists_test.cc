// SPDX-License-Identifier: Apache-2.0
// What sources have found, written and read again.

#include "tools/found_lists.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tools/agent_settings.h"
#include "tools/service_values.h"

namespace shunt {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pointee;
using ::testing::UnorderedElementsAre;

net::FoundBackends FoundAt(const std::string& service, const std::string& address) {
  return {.service = service,
          .source = {.file = "/etc/shunt/" + service},
          .backends = {{.address = *net::SockAddr::FromText(address)}},
          .found_at = 7};
}

std::vector<net::FoundBackends> ReadBack(const FoundLists& lists) {
  const absl::StatusOr<Fd> file = lists.ToFile();
  EXPECT_TRUE(file.ok()) << file.status();
  const auto found = FoundLists::FromFile(file->get());
  EXPECT_TRUE(found.ok()) << found.status();
  return *found;
}

TEST(FoundListsTest, AreReadAsTheyWereWritten) {
  net::FoundBackends web = FoundAt("web", "192.168.7.11:80");
  web.source = {.dns = "_http._tcp.web.svc"};
  web.found_at = int64_t{1} << 60;
  web.backends.push_back({.address = *net::SockAddr::FromText("[fe80::1%2]:443"),
                          .weight = 0,
                          .backup = true,
                          .zone = "a \"zone\"\n",
                          .labels = {{"version", "v2"}, {"empty", ""}}});
  const net::FoundBackends none{.service = "none", .source = {.file = "/none"}, .found_at = 1};
  FoundLists lists;
  EXPECT_THAT(ReadBack(lists), IsEmpty());
  lists.Note({web, none});
  EXPECT_THAT(ReadBack(lists), ElementsAre(none, web));
}

TEST(FoundListsTest, KnowBackendsThatHaveAZoneAndNothingElse) {
  net::FoundBackends web = FoundAt("web", "[fe80::1%2]:443");
  for (const char* zone : {"a", "a zone", " ", "\"\n\\"}) {
    web.backends.push_back(web.backends[0]);
    web.backends.back().zone = zone;
  }
  FoundLists lists;
  lists.Note({web});
  EXPECT_THAT(ReadBack(lists), ElementsAre(web));
}

// An engine of an earlier version may have written them.
TEST(FoundListsTest, ReadBackendsThatAreWrittenInFull) {
  const absl::StatusOr<Fd> file =
      HeldText(R"({"service":"web","source":{"file":"/etc/shunt/web","dns":""},"found_at":7,"backends":)"
               R"([{"address":"10.0.0.1:80"},{"address":"10.0.0.2:80","zone":"a"},"10.0.0.3:80 b"]})"
               "\n");
  ASSERT_TRUE(file.ok());
  net::FoundBackends web = FoundAt("web", "10.0.0.1:80");
  web.backends.push_back({.address = *net::SockAddr::FromText("10.0.0.2:80"), .zone = "a"});
  web.backends.push_back({.address = *net::SockAddr::FromText("10.0.0.3:80"), .zone = "b"});
  const auto found = FoundLists::FromFile(file->get());
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(*found, ElementsAre(web));
}

TEST(FoundListsTest, KnowServicesThatWereFound) {
  net::FoundBackends multinode = FoundAt("multinode", "192.168.7.11:8080");
  multinode.source = {.etcd = {.endpoints = {"https://a:1"}, .prefix = "/a"},
                      .services_in = {*net::ParseSubnet("10.88.0.0/16"), *net::ParseSubnet("fd88::/64")}};
  multinode.backends[0].service = *net::SockAddr::FromText("10.88.0.5:80");
  FoundLists lists;
  lists.Note({multinode});
  EXPECT_THAT(ReadBack(lists), ElementsAre(multinode));
}

TEST(FoundListsTest, KnowTheirSourcesWhole) {
  net::FoundBackends etcd = FoundAt("a", "10.0.0.1:80");
  etcd.source = {.etcd = {.endpoints = {"https://a:1", "https://b:2"},
                          .prefix = "/a",
                          .authority = "/ca",
                          .certificate = "/cert",
                          .key = "/key",
                          .user = "reader",
                          .password_file = "/word"}};
  net::FoundBackends kubernetes = FoundAt("b", "10.0.0.2:80");
  kubernetes.source = {
      .kubernetes = {.service = "default/orders", .port = "http", .kubeconfig = "/etc/kubeconfig"}};
  net::FoundBackends cluster = FoundAt("c", "10.0.0.3:80");
  cluster.source = {.kubernetes = {.kubeconfig = "/k", .services = "all", .node = "node-1"}};
  FoundLists lists;
  lists.Note({etcd, kubernetes, cluster});
  EXPECT_THAT(ReadBack(lists), ElementsAre(etcd, kubernetes, cluster));
}

TEST(FoundListsTest, KnowServicesOneByOne) {
  const auto service = [](const std::string& name, const std::string& backend) {
    net::FoundService one;
    one.name = name;
    one.addresses = {*ParseServiceAddress("10.96.1.1:80/tcp"), *ParseServiceAddress("[fd00::1]:80/tcp")};
    one.backends = {{.address = *net::SockAddr::FromText(backend), .backup = true, .zone = "a"}};
    return one;
  };
  net::FoundService dns = service("kube-system/dns:dns", "10.0.0.1:53");
  dns.addresses = {*ParseServiceAddress("10.96.0.10:53/udp")};
  dns.sticky = true;
  dns.sticky_for = std::chrono::hours(3);
  dns.trouble = "something";
  net::FoundBackends cluster;
  cluster.service = "cluster";
  cluster.source = {.kubernetes = {.services = "all"}};
  const auto web = std::make_shared<const net::FoundService>(service("prod/web", "10.0.0.2:80"));
  cluster.services = {std::make_shared<const net::FoundService>(dns), web};
  FoundLists lists;
  lists.Note({FoundAt("a", "10.0.0.9:80"), cluster, FoundAt("x", "10.0.0.9:80")});
  std::vector<net::FoundBackends> found = ReadBack(lists);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_THAT(found[0].services, IsEmpty());
  ASSERT_EQ(found[1].services.size(), 2u);
  EXPECT_THAT(found[1].services, UnorderedElementsAre(Pointee(dns), Pointee(*web)));
  EXPECT_EQ(found[1].source, cluster.source);

  const auto other = std::make_shared<const net::FoundService>(service("prod/web", "10.0.0.3:80"));
  cluster.services = {other};
  lists.Note({cluster});
  found = ReadBack(lists);
  ASSERT_EQ(found[1].services.size(), 1u);
  EXPECT_EQ(*found[1].services[0], *other);
  lists.Note({{.service = "cluster"}});
  EXPECT_EQ(ReadBack(lists).size(), 2u);
}

TEST(FoundListsTest, LeaveNothingOutHoweverManyThereAre) {
  net::FoundBackends cluster;
  cluster.service = "cluster";
  cluster.source = {.kubernetes = {.services = "all"}};
  for (int i = 0; i < 10'000; ++i) {
    net::FoundService one;
    one.name = absl::StrCat("prod/web-", i);
    one.backends.resize(10,
                        {.address = *net::SockAddr::FromText("10.0.0.1:80"), .zone = "a zone of a machine"});
    cluster.services.push_back(std::make_shared<const net::FoundService>(std::move(one)));
  }
  FoundLists lists;
  lists.Note({cluster});
  const std::vector<net::FoundBackends> found = ReadBack(lists);
  ASSERT_EQ(found.size(), 1u);
  ASSERT_EQ(found[0].services.size(), 10'000u);
  EXPECT_EQ(found[0].services.back()->backends.size(), 10u);
}

TEST(FoundListsTest, KnowOfEachServiceTheLastWord) {
  FoundLists lists;
  lists.Note({FoundAt("a", "10.0.0.1:80"), FoundAt("b", "10.0.0.2:80"), FoundAt("c", "10.0.0.3:80")});
  lists.Note({FoundAt("a", "10.0.0.4:80"), net::FoundBackends{.service = "b"}});
  EXPECT_THAT(ReadBack(lists), ElementsAre(FoundAt("a", "10.0.0.4:80"), FoundAt("c", "10.0.0.3:80")));
}

TEST(FoundListsTest, AreRefusedIfTheyAreSomethingElse) {
  for (const char* const text : {"{", "[]", "{}", "{\"service\": 1}", "1"}) {
    const absl::StatusOr<Fd> file = HeldText(text);
    ASSERT_TRUE(file.ok());
    EXPECT_THAT(FoundLists::FromFile(file->get()).status().message(),
                HasSubstr("what sources had found, as it is held: "))
        << text;
  }
}

}  // namespace
}  // namespace shunt
