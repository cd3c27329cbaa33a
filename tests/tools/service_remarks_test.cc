// SPDX-License-Identifier: Apache-2.0
// What --check-config says of services that are right, and may not do what was meant.

#include "tools/service_remarks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tools/check_config.h"

namespace shunt {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// The lines with a word in capitals of these services, one in a line from line 2 on.
std::vector<std::string> RemarkedOn(const std::vector<std::string>& services) {
  std::string text = "services:\n";
  for (const std::string& service : services) absl::StrAppend(&text, "  - {", service, "}\n");
  const absl::StatusOr<std::string> explained = ExplainConfig(text, "f");
  EXPECT_TRUE(explained.ok()) << explained.status();
  std::vector<std::string> remarks;
  for (const absl::string_view line : absl::StrSplit(explained.value_or(""), '\n', absl::SkipEmpty())) {
    for (const char* const word : {"NOT ALL OF IT", "THE WHOLE NETWORK", "IN A CIRCLE", "NOBODY RACES"}) {
      if (line.find(word) != absl::string_view::npos) remarks.emplace_back(line);
    }
  }
  return remarks;
}

TEST(ServiceRemarksTest, NameWhoGetsAPartOfAnAddress) {
  EXPECT_THAT(
      RemarkedOn({"name: wide, address: '10.96.0.0/16:1-100', backends: [192.0.2.1:80]",
                  "name: one, address: '10.96.0.10:80', backends: [192.0.2.1:80]",
                  "name: ports, address: '10.96.0.0/16:50-60', backends: [192.0.2.1:80]"}),
      ElementsAre(
          "f:2:   address 10.96.0.0/16:1-100/tcp: NOT ALL OF IT: 10.96.0.10:80/tcp of service one (line 3) "
          "is narrower and comes first, with 1 more"));
  // Of ranges of one size the lower one counts, as it does in the table.
  EXPECT_THAT(
      RemarkedOn({"name: high, address: '10.96.0.1:90-110', backends: [192.0.2.1:80]",
                  "name: low, address: '10.96.0.1:80-100', backends: [192.0.2.1:80]"}),
      ElementsAre("f:2:   address 10.96.0.1:90-110/tcp: NOT ALL OF IT: 10.96.0.1:80-100/tcp of service low "
                  "(line 3) is narrower and comes first"));
  EXPECT_THAT(
      RemarkedOn({"name: six, address: '[fd00::/16]:80', backends: ['[fc00::1]:80']",
                  "name: all, address: '[::/0]:80', backends: ['[fc00::1]:80']"}),
      ElementsAre(
          "f:3:   address [::/0]:80/tcp: NOT ALL OF IT: [fd00::/16]:80/tcp of service six (line 2) is "
          "narrower and comes first"));
}

TEST(ServiceRemarksTest, SayNothingOfAddressesApart) {
  EXPECT_THAT(RemarkedOn({"name: a, address: ['10.96.0.0/16:80', '10.96.0.1:80'], backends: [192.0.2.1:80]",
                          "name: b, address: '10.96.0.1:81', backends: [192.0.2.1:80]",
                          "name: c, address: '10.96.0.1:80/udp', backends: [192.0.2.1:80]",
                          "name: d, address: '10.97.0.0/16:80', backends: [192.0.2.1:80]",
                          "name: e, address: '[::/0]:80', backends: ['[fc00::1]:80']"}),
              IsEmpty());
}

TEST(ServiceRemarksTest, TellAnAddressFromItsNetwork) {
  EXPECT_THAT(
      RemarkedOn({"name: a, address: ['10.95.0.0/16:80', '10.96.0.10/16:80'], backends: [192.0.2.1:80]",
                  "name: b, address: '[fd00::1/64]:80-81/udp', backends: ['[fc00::1]:80']",
                  "name: c, address: 10.97.0.10/32:80, backends: [192.0.2.1:80]"}),
      ElementsAre(
          "f:2:   address 10.96.0.10/16:80: THE WHOLE NETWORK: any address of 10.96.0.0/16; one alone is "
          "10.96.0.10:80/tcp",
          "f:3:   address [fd00::1/64]:80-81/udp: THE WHOLE NETWORK: any address of fd00::/64; one alone is "
          "[fd00::1]:80-81/udp"));
}

TEST(ServiceRemarksTest, NameServicesThatLeadToOneAnother) {
  EXPECT_THAT(
      RemarkedOn({"name: out, address: 10.96.0.9:80, backends: [10.96.0.1:80]",
                  "name: a, address: 10.96.0.1:80, backends: [192.0.2.1:80, 10.96.0.2:80]",
                  "name: b, address: 10.96.0.2:80, backends: [10.96.0.3:80, 10.96.0.4:80]",
                  "name: c, address: 10.96.0.3:80, backends: [192.0.2.1:80, 10.96.0.1:80]",
                  "name: end, address: 10.96.0.4:80, backends: [192.0.2.1:80]"}),
      ElementsAre(
          "f:5:   backend 10.96.0.1:80: IN A CIRCLE: services a, b, c lead to one another, and nothing "
          "is balanced twice"));
  // Chains, and backends inside of a network that another service names.
  EXPECT_THAT(RemarkedOn({"name: a, address: '10.0.0.0/8:80', backends: [192.168.0.1:80]",
                          "name: b, address: '192.168.0.0/16:80', backends: [10.0.0.1:80]"}),
              IsEmpty());
}

TEST(ServiceRemarksTest, SayThatNobodyRacesInsideAContainersNetwork) {
  EXPECT_THAT(
      RemarkedOn({"name: a, address: '10.96.0.1:80', backends: [192.0.2.1:80], connect: {race-after: 250ms}",
                  "name: b, address: '10.96.0.2:80', backends: [192.0.2.1:80], network: container, "
                  "connect: {race-after: 250ms}"}),
      ElementsAre("f:3:   race-after: NOBODY RACES with network: container: one backend is tried after the "
                  "other, each for attempt-timeout"));
}

}  // namespace
}  // namespace shunt
