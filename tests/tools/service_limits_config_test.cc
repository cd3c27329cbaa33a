// SPDX-License-Identifier: Apache-2.0
// Limits of connections and races in the agent's configuration: what holds with and without being told.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

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

TEST(ServiceLimitsConfigTest, NamesKeyAndRemedyOfAMistake) {
  const std::pair<const char*, const char*> mistakes[] = {
      {"limits: {max-connections: 5}, network: container",
       "\"services[0].limits\": counts connections in the host's network: should be left out with"},
      {"limits: {queue: 5}",
       "\"services[0].limits\": should have max-connections: how many each backend may have"},
      {"limits: {max-connections: 0}",
       "\"services[0].limits.max-connections\": should be a whole number from 1 to 1000000"},
      {"limits: {max-connections: 5, queue-timeout: 0s}",
       "\"services[0].limits.queue-timeout\": \"0s\" should be a duration from 1ms to 10m"},
      {"connect: {race-after: 50ms}",
       "\"services[0].connect.race-after\": \"50ms\" should be a duration from 100ms to 2s"}};
  for (const auto& [text, complaint] : mistakes) {
    const absl::StatusOr<AgentConfig> config = ConfigWith("10.0.0.1:1", std::string(", ") + text);
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(complaint)) << text;
  }
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
