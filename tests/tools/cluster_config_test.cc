// SPDX-License-Identifier: Apache-2.0
// Entries of the configuration that stand for all services of a cluster.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/agent_config.h"

namespace shunt {
namespace {

using ::testing::HasSubstr;

net::ServiceSpec ClusterSpecIn(const std::string& text) {
  const absl::StatusOr<AgentConfig> config = ParseAgentConfig(text, "f");
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() && config->services.size() == 1 ? config->services[0] : net::ServiceSpec();
}

TEST(ClusterConfigTest, AnEntryMayFindServicesAndHasNoAddressThen) {
  const net::ServiceSpec all = ClusterSpecIn(
      "services: [{name: cluster, discover: {kubernetes: {services: all, kubeconfig: /k}}, "
      "connect: {attempts: 5}, health: true, network: host}]");
  EXPECT_TRUE(all.addresses.empty());
  EXPECT_TRUE(all.discover.finds_services());
  EXPECT_FALSE(all.discover.none());
  EXPECT_EQ(all.discover.Where(), "kubernetes services: all");
  EXPECT_EQ(all.connect.attempts, 5);
  EXPECT_EQ(all.network, net::ServiceNetwork::kHost);
  EXPECT_EQ(ClusterSpecIn("services: [{name: prod, discover: {kubernetes: {services: prod}}}]").discover,
            net::DiscoverSpec{.kubernetes = {.services = "prod"}});
  for (const char* more : {"address: 10.96.0.1:80", "backends: [10.0.0.1:80]", "subset: {a: b}"}) {
    const std::string text =
        absl::StrCat("services:\n- name: cluster\n  discover: {kubernetes: {services: all}}\n  ", more);
    EXPECT_THAT(std::string(ParseAgentConfig(text, "f").status().message()),
                HasSubstr("should be left out where services are found"))
        << more;
  }
}

TEST(ClusterConfigTest, AnEntryIsForOneServiceOrForAll) {
  for (const auto& [keys, complaint] :
       {std::pair{"service: a/b, services: all", "should be service: NAMESPACE/NAME, or else services:"},
        std::pair{"port: http", "should be service: NAMESPACE/NAME, or else services:"},
        std::pair{"services: a/b", "should be all, or a NAMESPACE"},
        std::pair{"services: all, port: http", "should be no port beside services"}}) {
    const std::string text = absl::StrCat("services:\n- {name: a, discover: {kubernetes: {", keys, "}}}");
    EXPECT_THAT(std::string(ParseAgentConfig(text, "f").status().message()), HasSubstr(complaint)) << keys;
  }
}

TEST(ClusterConfigTest, TellsTheSourceOfServicesWhichNodeThisIs) {
  const auto node_in = [](const std::string& more) {
    const std::string services = "services: [{name: cluster, discover: {kubernetes: {services: all}}}]\n";
    const absl::StatusOr<AgentConfig> config = ParseAgentConfig(services + more, "f");
    EXPECT_TRUE(config.ok()) << config.status();
    return config->AllServices()[0].discover.kubernetes.node;
  };
  setenv("NODE_NAME", "node-1", 1);
  EXPECT_EQ(node_in(""), "node-1");
  EXPECT_EQ(node_in("node-name: node-2"), "node-2");
  unsetenv("NODE_NAME");
  EXPECT_EQ(node_in(""), "");
}

}  // namespace
}  // namespace shunt
