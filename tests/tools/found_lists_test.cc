// SPDX-License-Identifier: Apache-2.0
// What sources have found, written and read again.

#include "tools/found_lists.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tools/agent_settings.h"

namespace shunt {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

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
  FoundLists lists;
  lists.Note({etcd, kubernetes});
  EXPECT_THAT(ReadBack(lists), ElementsAre(etcd, kubernetes));
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
