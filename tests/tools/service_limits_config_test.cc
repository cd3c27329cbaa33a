// SPDX-License-Identifier: Apache-2.0
// Limits of connections and races in the agent's configuration: what holds with and without being told.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tools/agent_config.h"

namespace shunt {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<AgentConfig> ConfigWith(const std::string& address, const std::string& more) {
  return ParseAgentConfig(
      "services:\n- {name: a, address: '" + address + "', backends: [10.2.3.4:1]" + more + "}", "f");
}

net::ServiceSpec ServiceWith(const std::string& more) {
  const absl::StatusOr<AgentConfig> config = ConfigWith("10.0.0.1:1", more);
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? config->services.at(0) : net::ServiceSpec();
}

TEST(ServiceLimitsConfigTest, LimitsAreOfEachBackendAndNobodyWaitsUnlessToldSo) {
  EXPECT_FALSE(ServiceWith("").limits.enabled());
  EXPECT_EQ(ServiceWith(", limits: {max-connections: 100, queue: 20, queue-timeout: 1500ms}").limits,
            (net::LimitSpec{
                .max_connections = 100, .queue = 20, .queue_timeout = std::chrono::milliseconds(1500)}));
  EXPECT_EQ(ServiceWith(", limits: {max-connections: 1}").limits,
            (net::LimitSpec{.max_connections = 1, .queue = 0, .queue_timeout = std::chrono::seconds(1)}));
}

TEST(ServiceLimitsConfigTest, ConnectionsOfUdpAreNotCounted) {
  const absl::StatusOr<AgentConfig> config = ConfigWith("10.0.0.1:1/udp", ", limits: {max-connections: 1}");
  EXPECT_THAT(std::string(config.status().message()),
              HasSubstr("\"services[0].limits\": counts connections in the host's network"));
}

TEST(ServiceLimitsConfigTest, NobodyRacesUnlessToldSo) {
  EXPECT_EQ(ServiceWith("").connect.race_after.count(), 0);
  EXPECT_EQ(ServiceWith(", connect: {race-after: 250ms}").connect.race_after, std::chrono::milliseconds(250));
}

}  // namespace
}  // namespace shunt
