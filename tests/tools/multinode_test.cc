// SPDX-License-Identifier: Apache-2.0
// Multinode: what the configuration may say, and what is made of keys that anybody may have written.

#include "tools/multinode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "tools/agent_config.h"

namespace shunt {
namespace {

using testing::HasSubstr;

constexpr char kKeyPrefix[] = "bypass4netns/multinode/";

// "SERVICE -> BACKEND", or what is wrong.
std::string WhatIsRead(const std::string& key, const std::string& value) {
  const absl::StatusOr<net::BackendSpec> found = ReadMultinodeKey(key, value, kKeyPrefix + key);
  if (!found.ok()) return std::string(found.status().message());
  return absl::StrCat(found->service.ToString(), " -> ", found->address.ToString());
}

TEST(MultinodeKeyTest, SaysWhereAPortOfAContainerIs) {
  EXPECT_EQ(WhatIsRead("10.88.0.5:80", "192.168.7.11:8080"), "10.88.0.5:80 -> 192.168.7.11:8080");
  EXPECT_EQ(WhatIsRead("10.88.0.5:80", "192.168.7.11:8080\n"), "10.88.0.5:80 -> 192.168.7.11:8080");
  EXPECT_EQ(WhatIsRead("[fd00::5]:80", "[fd07::b]:8080"), "[fd00::5]:80 -> [fd07::b]:8080");
  EXPECT_EQ(WhatIsRead("[::ffff:10.88.0.5]:80", "[::ffff:192.168.7.11]:8080"),
            "10.88.0.5:80 -> 192.168.7.11:8080");
}

TEST(MultinodeKeyTest, ThatMeansNoContainerIsTurnedDownByItsName) {
  for (const char* key :
       {"", "10.88.0.5", "10.88.0.5:0", "10.88.0.5:65536", "10.88.0.5:80/tcp", "a/10.88.0.5:80", "host:80",
        "fd00::5:80", "[fe80::1%2]:80", "10.88.0.0/16:80", " 10.88.0.5:80"}) {
    EXPECT_THAT(WhatIsRead(key, "192.168.7.11:8080"), HasSubstr(absl::StrCat(kKeyPrefix, key, ": its name")))
        << key;
  }
  for (const char* key :
       {"127.0.0.1:80", "0.0.0.0:80", "[::]:80", "[::1]:80", "224.0.0.1:80", "169.254.169.254:80",
        "255.255.255.255:80", "[fe80::1]:80", "[::ffff:127.0.0.1]:80"}) {
    EXPECT_THAT(WhatIsRead(key, "192.168.7.11:8080"), HasSubstr("the same container on every machine"))
        << key;
  }
  EXPECT_THAT(WhatIsRead(std::string(1 << 20, '1'), "192.168.7.11:8080"), HasSubstr("its name"));
}

TEST(MultinodeKeyTest, ThatLeadsNowhereIsTurnedDownByItsValue) {
  for (const char* value : {"", "192.168.7.11", "192.168.7.11:0", "host:80", "0.0.0.0:80", "224.0.0.1:80",
                            "255.255.255.255:80", "{address: 192.168.7.11:8080}", "10.88.0.5:80"}) {
    EXPECT_THAT(WhatIsRead("10.88.0.5:80", value), HasSubstr("/10.88.0.5:80: its value")) << value;
  }
  EXPECT_THAT(WhatIsRead("10.88.0.5:80", std::string(1 << 20, '1')), HasSubstr("its value"));
}

absl::StatusOr<AgentConfig> ParsedMultinode(const std::string& text) {
  return ParseAgentConfig(text, "agent.yaml");
}

std::string MultinodeMistake(const std::string& text) {
  return std::string(ParsedMultinode(text).status().message());
}

TEST(MultinodeConfigTest, EndpointsAreEnough) {
  const auto config = ParsedMultinode("multinode: {etcd: {endpoints: ['http://127.0.0.1:2379']}}");
  ASSERT_TRUE(config.ok()) << config.status();
  const std::vector<net::ServiceSpec> services = config->AllServices();
  ASSERT_EQ(services.size(), 1u);
  EXPECT_EQ(services[0].discover.etcd.prefix, "bypass4netns/multinode");
  EXPECT_TRUE(services[0].discover.finds_services());
  for (const net::Subnet& network : services[0].discover.services_in)
    EXPECT_FALSE(network.Contains(*net::IpAddress::Parse("192.0.2.1"))) << network.ToString();
}

TEST(MultinodeConfigTest, SaysWhereKeysAreAndWhatTheyMayBeAbout) {
  const auto config = ParsedMultinode(
      "multinode:\n"
      "  etcd: {endpoints: ['https://a:1', 'https://b:2'], prefix: /p, user: u, password-file: /w}\n"
      "  networks: [10.88.0.0/16, 'fd88::/64']\n"
      "  register: true\n"
      "  host-address: 'fd07::b'\n");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->multinode.etcd.prefix, "/p");
  EXPECT_EQ(config->multinode.etcd.user, "u");
  ASSERT_EQ(config->multinode.networks.size(), 2u);
  EXPECT_EQ(config->multinode.networks[1].ToString(), "fd88::/64");
  EXPECT_TRUE(config->multinode.registers);
  EXPECT_EQ(config->multinode.host_address->ToString(), "fd07::b");
  EXPECT_TRUE(ParsedMultinode("strict: true").value().AllServices().empty());
}

TEST(MultinodeConfigTest, MistakesAreNamed) {
  EXPECT_THAT(MultinodeMistake("multinode: {etcd: {endpoints: ['http://a:1']}, register: true}"),
              HasSubstr("has no host-address"));
  for (const char* address :
       {"x", "0.0.0.0", "127.0.0.1", "'::1'", "224.0.0.1", "169.254.0.1", "[]", "10.0.0.1:80"}) {
    EXPECT_THAT(MultinodeMistake(absl::StrCat(
                    "multinode: {etcd: {endpoints: ['http://a:1']}, host-address: ", address, "}")),
                HasSubstr("\"multinode.host-address\": should be an address of this machine"))
        << address;
  }
  EXPECT_THAT(MultinodeMistake("multinode: {}"), HasSubstr("has no etcd"));
  EXPECT_THAT(MultinodeMistake("multinode: {etcd: {}}"), HasSubstr("has no endpoints"));
  EXPECT_THAT(MultinodeMistake("multinode: {etcd: {endpoints: ['http://a:1'], prefix: ''}}"),
              HasSubstr("prefix"));
  EXPECT_THAT(MultinodeMistake("multinode: {etcd: {endpoints: ['http://a:1']}, networks: []}"),
              HasSubstr("networks"));
  EXPECT_THAT(MultinodeMistake("multinode: {etcd: {endpoints: ['http://a:1']}, networks: [x]}"),
              HasSubstr("networks"));
  EXPECT_THAT(MultinodeMistake("multinode: {etcd: {endpoints: ['http://a:1']}, prefix: x}"),
              HasSubstr("prefix"));
  EXPECT_THAT(
      MultinodeMistake("multinode: {etcd: {endpoints: ['http://a:1']}}\n"
                       "services: [{name: multinode, address: '10.0.0.1:1', backends: ['10.0.0.2:1']}]\n"),
      HasSubstr("multinode"));
}

}  // namespace
}  // namespace shunt
