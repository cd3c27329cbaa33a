// SPDX-License-Identifier: Apache-2.0
// The agent's configuration file, and what it makes of containers' wishes.

#include "tools/agent_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace shunt {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

net::IpAddress Ip(const char* text) {
  return *net::IpAddress::Parse(text);
}

std::vector<std::string> Texts(const std::vector<net::Publish>& ports) {
  std::vector<std::string> texts;
  for (const net::Publish& port : ports) texts.push_back(port.ToString());
  return texts;
}

TEST(AgentConfigTest, ReadsEveryKey) {
  const auto config = ParseAgentConfig(
      "allow-uids: [1000, 0]\n"
      "ignore: [10.0.0.0/8, 'fd00::/8']\n"
      "publish:\n"
      "  enabled: false\n"
      "  host-ip: 127.0.0.1\n"
      "  host-ports: 1024-65535\n"
      "log: {level: warning}\n"
      "metrics-bind-address: 127.0.0.1:9464\n"
      "middleware: [prometheus]\n",
      "f");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->allow_uids, ElementsAre(1000u, 0u));
  EXPECT_TRUE(config->ignore.Contains(Ip("10.1.2.3")));
  EXPECT_TRUE(config->ignore.Contains(Ip("fd00::1")));
  EXPECT_FALSE(config->ignore.Contains(Ip("11.1.2.3")));
  EXPECT_FALSE(config->publish.enabled);
  EXPECT_EQ(config->publish.host_ip, Ip("127.0.0.1"));
  EXPECT_EQ(config->publish.first_host_port, 1024);
  EXPECT_EQ(config->publish.last_host_port, 65535);
  EXPECT_EQ(config->log_level, log::Level::kWarning);
  EXPECT_EQ(config->metrics_bind_address, "127.0.0.1:9464");
  EXPECT_THAT(config->middleware, ElementsAre("prometheus"));
}

TEST(AgentConfigTest, AnEmptyFileLeavesTheDefaults) {
  for (const char* text : {"", "# nothing\n", "---\n"}) {
    const auto config = ParseAgentConfig(text, "f");
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_THAT(config->allow_uids, IsEmpty());
    EXPECT_TRUE(config->publish.enabled);
  }
}

struct BadFile {
  const char* text;
  const char* complaint;
};

TEST(AgentConfigTest, NamesFileLineAndKeyOfAMistake) {
  const BadFile cases[] = {
      {"ignroe: []",
       "f:1: unknown key \"ignroe\": known are allow-uids, containers, ignore, log, metrics-bind-address, "
       "middleware, multinode, node-name, publish, services, strict, zone"},
      {"\n\npublish:\n  hostip: x",
       "f:4: unknown key \"publish.hostip\": known are enabled, host-ip, host-ports"},
      {"ignore: []\nignore: []", "f:2: \"ignore\" is there twice"},
      {"log:\n  level: info\n  level: info", "f:3: \"log.level\" is there twice"},
      {"- a", "f:1: should be a mapping"},
      {"middleware: [falco]", "f:1: \"middleware\": should be a list of prometheus"},
      {"\nmetrics-bind-address: 9464",
       "f:2: \"metrics-bind-address\": \"9464\" should be ADDRESS:PORT or :PORT"},
      {"\nlog: loud", "f:2: \"log\": should be a mapping"},
      {"\nlog:\n  level: loud", "f:3: \"log.level\": should be debug, info, warning or error"},
      {"allow-uids: 5", "f:1: \"allow-uids\": should be a list"},
      {"allow-uids: {}", "f:1: \"allow-uids\": should be a list"},
      {"allow-uids: [[]]", "f:1: \"allow-uids\": should be a list"},
      {"allow-uids: [bob]", "f:1: \"allow-uids\": \"bob\" should be a user id"},
      {"allow-uids: [-1]", "should be a user id"},
      {"allow-uids: [4294967295]", "should be a user id"},
      {"allow-uids: [4294967296]", "should be a user id"},
      {"ignore: [10.0.0.0/33]", "f:1: \"ignore\": "},
      {"publish: {enabled: yes}", "f:1: \"publish.enabled\": should be true or false"},
      {"publish: {host-ip: localhost}", "f:1: \"publish.host-ip\": "},
      {"publish: {host-ports: 80}", "f:1: \"publish.host-ports\": should be FIRST-LAST"},
      {"publish: {host-ports: 0-80}", "should be FIRST-LAST"},
      {"publish: {host-ports: 90-80}", "should be FIRST-LAST"},
      {"publish: {host-ports: 1-65536}", "should be FIRST-LAST"},
      {"publish: {host-ports: 1-2-3}", "should be FIRST-LAST"},
      {"ignore: [", "f:1: "},
      {"a: b: c", "f:1: "},
      {"? [1]\n: 2", "f:1: unknown key"},
  };
  for (const BadFile& bad : cases) {
    const auto config = ParseAgentConfig(bad.text, "f");
    ASSERT_FALSE(config.ok()) << bad.text;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(bad.complaint)) << bad.text;
  }
}

TEST(AgentConfigTest, SaysWhichNetworkIsOneTooMany) {
  std::string text = "ignore:\n";
  for (int i = 0; i <= 64; ++i) text += "  - 10." + std::to_string(2 * i) + ".0.0/16\n";
  const auto config = ParseAgentConfig(text, "f");
  ASSERT_FALSE(config.ok());
  EXPECT_THAT(std::string(config.status().message()), HasSubstr("\"10.128.0.0/16\" is one network too many"));
}

class SpecForTest : public ::testing::Test {
 protected:
  SpecForTest() { state_.id = "c"; }

  std::string Complaint() const { return std::string(SpecFor(state_, config_).status().message()); }

  ContainerState state_;
  AgentConfig config_;
};

TEST_F(SpecForTest, WantsNothingByDefaultButTheOperatorsIgnoreList) {
  ASSERT_TRUE(config_.ignore.Add(*net::ParseSubnet("10.0.0.0/8")));
  const auto spec = SpecFor(state_, config_);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->name, "c");
  EXPECT_EQ(spec->pid, 0);
  EXPECT_THAT(spec->publish, IsEmpty());
  EXPECT_TRUE(spec->ignore.Contains(Ip("10.1.1.1")));
}

TEST_F(SpecForTest, ReadsMetadataWithEitherSeparatorAndLeavesTheKeysOfOthersAlone) {
  for (const char* metadata :
       {"MKNOD=/dev/null;shunt.publish=8080:80, 8443:443 ;shunt.ignore=10.0.0.0/8,fd00::/8;pod=x",
        "MKNOD=/dev/null\nshunt.publish = 8080:80,8443:443\nshunt.ignore=10.0.0.0/8,fd00::/8\n",
        "shunt.publish=8080:80;shunt.publish=8443:443;shunt.ignore=fd00::/8;shunt.ignore=10.0.0.0/8"}) {
    state_.metadata = metadata;
    const auto spec = SpecFor(state_, config_);
    ASSERT_TRUE(spec.ok()) << metadata << ": " << spec.status();
    EXPECT_THAT(Texts(spec->publish), ElementsAre("8080:80", "8443:443")) << metadata;
    EXPECT_TRUE(spec->ignore.Contains(Ip("10.1.1.1")) && spec->ignore.Contains(Ip("fd00::1"))) << metadata;
    EXPECT_THAT(spec->ignore, SizeIs(2)) << metadata;
  }
}

TEST_F(SpecForTest, BelievesOnlyAProfileOfThisVersionThatItTrapsEverything) {
  EXPECT_FALSE(SpecFor(state_, config_)->exact_traps);
  state_.metadata = "shunt.traps=1;pod=x";
  EXPECT_TRUE(SpecFor(state_, config_)->exact_traps);
  state_.metadata = "shunt.traps=0";
  EXPECT_FALSE(SpecFor(state_, config_)->exact_traps);
}

TEST_F(SpecForTest, AnnotationsAndMetadataAddUpAndMaySayTheSame) {
  state_.metadata = "shunt.publish=8080:80";
  state_.annotations = {
      {"shunt/publish", "8080:80,8443:443"}, {"shunt/ignore", "10.0.0.0/8"}, {"other/publish", "x"}};
  const auto spec = SpecFor(state_, config_);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_THAT(Texts(spec->publish), ElementsAre("8080:80", "8443:443"));
  EXPECT_THAT(spec->ignore, SizeIs(1));
}

TEST_F(SpecForTest, NamesTheWishThatIsWrong) {
  state_.metadata = "shunt.publish=8080";
  EXPECT_THAT(Complaint(), HasSubstr("listenerMetadata shunt.publish: "));
  state_.metadata = "shunt.ignore=10.0.0.0/99";
  EXPECT_THAT(Complaint(), HasSubstr("listenerMetadata shunt.ignore: "));
  state_.metadata = "shunt.pubish=8080:80";
  EXPECT_THAT(Complaint(), HasSubstr("listenerMetadata shunt.pubish: unknown key"));
  state_.metadata = "";
  state_.annotations = {{"shunt/publish", "x"}};
  EXPECT_THAT(Complaint(), HasSubstr("annotation shunt/publish: "));
  state_.annotations = {{"shunt/publish", "8080:80,8080:81"}};
  EXPECT_THAT(Complaint(), HasSubstr("8080:81"));
}

TEST_F(SpecForTest, GrantsOnlyWhatThePublishPolicyAllows) {
  state_.metadata = "shunt.publish=8080:80,[::1]:8443:443";
  config_.publish.host_ip = Ip("127.0.0.1");
  const auto spec = SpecFor(state_, config_);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_THAT(Texts(spec->publish), ElementsAre("127.0.0.1:8080:80", "[::1]:8443:443"));

  config_.publish.first_host_port = 8081;
  EXPECT_THAT(Complaint(), HasSubstr("only host ports 8081-65535 are allowed"));
  config_.publish.first_host_port = 8080;
  config_.publish.last_host_port = 8442;
  EXPECT_THAT(Complaint(), HasSubstr("\"[::1]:8443:443\": only host ports 8080-8442"));
  config_.publish.enabled = false;
  EXPECT_THAT(Complaint(), HasSubstr("publish.enabled"));
  state_.metadata = "shunt.publish=";
  EXPECT_TRUE(SpecFor(state_, config_).ok());
}

TEST(OrdinarySpecTest, AcceleratesNothing) {
  const ContainerSpec spec = OrdinarySpec("c");
  for (const char* ip : {"0.0.0.0", "127.0.0.1", "8.8.8.8", "255.255.255.255", "::", "::1", "2001:db8::1"}) {
    EXPECT_TRUE(spec.ignore.Contains(Ip(ip))) << ip;
  }
  EXPECT_THAT(spec.publish, IsEmpty());
}

}  // namespace
}  // namespace shunt
