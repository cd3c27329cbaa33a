// SPDX-License-Identifier: Apache-2.0
// Services on the control socket: the lines and the answers, and what people are shown of these.

#include "tools/service_control.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_split.h"
#include "tests/tools/service_reports.h"
#include "tools/ctl_services.h"

namespace shunt {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Le;
using ::testing::Not;
using ::testing::SizeIs;
using Json = nlohmann::json;
using Kind = net::BackendCommand::Kind;

std::optional<ServiceRequest> Parsed(const char* line) {
  const auto request = ParseServiceRequest(line);
  EXPECT_TRUE(request.ok()) << line << ": " << request.status();
  return request.ok() ? *request : std::nullopt;
}

TEST(ServiceRequestTest, OtherCommandsAreForOthers) {
  for (const char* line : {"", " ", "status", "upgrade", "service", "drained a b"})
    EXPECT_EQ(Parsed(line), std::nullopt) << line;
}

TEST(ServiceRequestTest, AsksForAllServicesOrOne) {
  EXPECT_EQ(std::get<ServiceQuery>(*Parsed("services")).service, "");
  EXPECT_EQ(std::get<ServiceQuery>(*Parsed("services orders")).service, "orders");
}

TEST(ServiceRequestTest, TellsABackendWhatToDo) {
  const std::pair<const char*, Kind> orders[] = {
      {"drain", Kind::kDrain}, {"disable", Kind::kDisable}, {"enable", Kind::kEnable}};
  for (const auto& [word, kind] : orders) {
    const std::string line = std::string(word) + " orders [fd00::1]:80";
    const auto order = std::get<BackendOrder>(*Parsed(line.c_str()));
    EXPECT_EQ(order.service, "orders");
    EXPECT_EQ(order.backend, "[fd00::1]:80");
    EXPECT_EQ(order.command.kind, kind) << word;
  }
  const auto weight = std::get<BackendOrder>(*Parsed("weight orders 1.2.3.4:5 65535"));
  EXPECT_EQ(weight.command.kind, Kind::kWeight);
  EXPECT_EQ(weight.command.weight, 65535u);
}

TEST(ServiceRequestTest, SaysHowACommandIsWritten) {
  const std::pair<const char*, const char*> mistakes[] = {
      {"services a b", "should be: services [SERVICE]"},
      {"drain orders", "should be: drain SERVICE BACKEND"},
      {"enable orders 1.2.3.4:5 6", "should be: enable SERVICE BACKEND"},
      {"weight orders 1.2.3.4:5", "should be: weight SERVICE BACKEND N"},
      {"weight orders 1.2.3.4:5 65536", "the weight \"65536\" should be a whole number from 0 to 65535"},
      {"weight orders 1.2.3.4:5 -1", "the weight \"-1\" should be"},
      {"weight orders 1.2.3.4:5 many", "the weight \"many\" should be"}};
  for (const auto& [line, complaint] : mistakes) {
    const auto request = ParseServiceRequest(line);
    ASSERT_FALSE(request.ok()) << line;
    EXPECT_THAT(std::string(request.status().message()), HasSubstr(complaint)) << line;
  }
}

TEST(ServicesToJsonTest, HasEveryMemberOfTheReports) {
  const Json json = ServicesToJson(TwoServices());
  ASSERT_THAT(json["services"], SizeIs(2));
  const Json& orders = json["services"][0];
  EXPECT_EQ(orders["backends"][0], Json::parse(R"({
      "address": "192.168.7.11:8080", "zone": "a", "weight": 3, "effective_weight": 3.0, "backup": false,
      "state": "up", "picks": 1200, "connected": 1000, "failed": 7, "ejections": 2, "in_flight": 4,
      "mean_connect_us": 250.5, "last_error": ""})"));
  EXPECT_EQ(orders["backends"][2]["last_error"], "refused");
  Json other = json["services"][1];
  EXPECT_EQ(other, Json::parse(R"({
      "name": "a\"b\\c\n\u001b[2J", "addresses": ["10.96.0.11:1-65535/udp"], "policy": "maglev",
      "affinity": "container", "panic": true, "source": "/etc/shunt/orders.yaml", "source_error": "gone",
      "source_age_s": 312.5, "backends": []})"));
}

TEST(AnswerQueryTest, ShowsOneOrAllAndNamesThoseThereAre) {
  const auto reports = TwoServices();
  EXPECT_EQ(AnswerQuery({}, reports), ServicesToJson(reports));
  EXPECT_EQ(AnswerQuery({"orders"}, reports), ServicesToJson({reports[0]}));
  EXPECT_THAT(AnswerQuery({"order"}, reports)["error"].get<std::string>(),
              HasSubstr("there is no service \"order\"; there are orders, a\"b"));
  EXPECT_EQ(AnswerQuery({"order"}, {})["error"], "there is no service \"order\"; none is configured");
  std::vector<net::ServiceReport> many(22);
  EXPECT_THAT(AnswerQuery({"x"}, many)["error"].get<std::string>(), HasSubstr(" and 2 more"));
}

TEST(ServicesTextTest, HasOneLineForEachBackendAndFitsATerminal) {
  const std::string text = ServicesText(ServicesToJson(TwoServices()));
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  for (const std::string& line : lines) EXPECT_THAT(line, SizeIs(Le(100u)));
  EXPECT_THAT(
      lines,
      ElementsAre(
          "SERVICE            ADDRESS                 POLICY",
          "  BACKEND            WEIGHT  STATE                PICKS  FAILED  CONNECT  EJECTIONS  IN-FLIGHT  "
          "ZONE",
          "", "orders             10.96.0.10:80/tcp       least-request",
          "                   [fd00:96::10]:80/tcp",
          "  192.168.7.11:8080       3  up                    1200       7    250us          2          4  a",
          "  192.168.7.12:8080  2.5/10  slow-start (backup)      0       0    1.2ms          0          0",
          "  192.168.7.13:8080       1  down                     0       0        -          0          0",
          "    check: refused", "", "a\"b\\\\c\\x0a\\x1b[2J  10.96.0.11:1-65535/udp  maglev, by container",
          "  ! panic: too few backends are available, so all of them are used",
          "  ! from /etc/shunt/orders.yaml, 5m12s ago, and since then: gone", "  (no backends)", ""));
}

TEST(ServicesTextTest, ShowsLimitsWhereThereAreSome) {
  auto reports = TwoServices();
  reports[0].limited = true;
  reports[0].queued = 2;
  reports[0].refused = 17;
  reports[0].waited = 4;
  reports[0].waited_s = 0.05;
  reports[0].backends[0].limit = 30;
  reports[0].backends[0].open = 30;
  reports[0].backends[0].state = "full";
  const Json json = ServicesToJson(reports);
  EXPECT_EQ(json["services"][0]["queue"],
            Json::parse(R"({"waiting": 2, "refused": 17, "waited": 4, "waited_s": 0.05})"));
  EXPECT_EQ(json["services"][0]["backends"][0]["limit"], 30);
  const std::string text = ServicesText(json);
  EXPECT_THAT(text, HasSubstr("IN-FLIGHT  LIMIT  ZONE\n"));
  EXPECT_THAT(text, HasSubstr("\n  at the limit: 2 wait, 4 have waited (12.5ms), 17 were refused\n"));
  EXPECT_THAT(text,
              HasSubstr("  full                  1200       7    250us          2    30 open     30  a\n"));
}

TEST(ServicesTextTest, SaysWhereBackendsCameFromAndThatThereAreNoServices) {
  auto reports = TwoServices();
  reports[1].source_error.clear();
  reports[1].panic = false;
  const std::string text = ServicesText(ServicesToJson(reports));
  EXPECT_THAT(text, HasSubstr("\n  from /etc/shunt/orders.yaml, 5m12s ago\n"));
  EXPECT_THAT(text, Not(HasSubstr("!")));
  EXPECT_EQ(ServicesText(ServicesToJson({})), "no services are configured\n");
}

// Another version may answer with less.
TEST(ServicesTextTest, MissesNothingThatIsNotThere) {
  EXPECT_THAT(ServicesText(Json::parse(R"({"services": [{"name": "a", "backends": [{"address": "b"}]}]})")),
              HasSubstr("\na\n  b "));
  EXPECT_EQ(ServicesText(Json::object()), "no services are configured\n");
}

}  // namespace
}  // namespace shunt
