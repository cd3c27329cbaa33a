// SPDX-License-Identifier: Apache-2.0
// Files of backends, which `discover: {file: PATH}` names: what is read, and what is said of each mistake.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tools/service_config.h"

namespace shunt {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;
using ::testing::StartsWith;

net::SockAddr BackendAt(const char* text) {
  return *net::SockAddr::FromText(text);
}

struct BadBackends {
  const char* text;
  const char* complaint;
};

TEST(BackendFileTest, IsAListOrAMappingInYamlOrJson) {
  const char* const texts[] = {
      "- 192.168.7.11:8080\n- {address: '[fd00::1]:80', weight: 0, labels: {a: b}}\n",
      "backends:\n- 192.168.7.11:8080\n- {address: '[fd00::1]:80', weight: 0, labels: {a: b}}\n",
      "[\n\t\"192.168.7.11:8080\",\n\t{\"address\": \"[fd00::1]:80\", \"weight\": 0,\n\t\t\"labels\": "
      "{\"a\": "
      "\"b\"}}\n]\n",
      "{\"backends\":[\"192.168.7.11:8080\",{\"address\":\"[fd00::1]:80\",\"weight\":0,\"labels\":{\"a\":"
      "\"b\"}}]}",
  };
  for (const char* text : texts) {
    const auto backends = ParseBackendFile(text, "b");
    ASSERT_TRUE(backends.ok()) << backends.status() << text;
    EXPECT_THAT(*backends,
                ElementsAre(net::BackendSpec{.address = BackendAt("192.168.7.11:8080")},
                            net::BackendSpec{
                                .address = BackendAt("[fd00::1]:80"), .weight = 0, .labels = {{"a", "b"}}}))
        << text;
  }
  for (const char* none : {"[]", "backends: []"}) {
    const auto backends = ParseBackendFile(none, "b");
    ASSERT_TRUE(backends.ok()) << backends.status();
    EXPECT_THAT(*backends, SizeIs(0));
  }
}

TEST(BackendFileTest, OfABackendThatIsThereTwiceTheFirstCounts) {
  const auto backends = ParseBackendFile(
      "- {address: 1.2.3.4:5, weight: 7}\n- {address: '[::ffff:1.2.3.4]:5', weight: 8}\n", "b");
  ASSERT_TRUE(backends.ok()) << backends.status();
  EXPECT_THAT(*backends, ElementsAre(net::BackendSpec{.address = BackendAt("1.2.3.4:5"), .weight = 7}));
}

TEST(BackendFileTest, NamesFileLineKeyAndRemedyOfAMistake) {
  const BadBackends cases[] = {
      {"", "b: should be a list of backends, or a mapping with backends: such a list; none are []"},
      {"# being written\n", "b: should be a list of backends"},
      {"1.2.3.4:5", "b:1: should be a list of backends"},
      {"{}", "b:1: should be a list of backends; none are []"},
      {"backend: []", "b:1: unknown key \"backend\": known are backends"},
      {"backends: x", "b:1: \"backends\": should be a list of backends"},
      {"- 1.2.3.4:5\n- 1.2.3.4", "b:2: \"backends[1]\": \"1.2.3.4\" should be ADDRESS:PORT"},
      {"backends:\n- {address: 1.2.3.4:5,\n   weight: x}",
       "b:3: \"backends[0].weight\": should be a whole number from 0 to 65535"},
      {"- [", "b:1: "},
      {"\t- x", "b:1: "},
  };
  for (const BadBackends& bad : cases) {
    const auto backends = ParseBackendFile(bad.text, "b");
    ASSERT_FALSE(backends.ok()) << bad.text;
    EXPECT_THAT(std::string(backends.status().message()), StartsWith(bad.complaint)) << bad.text;
  }
}

}  // namespace
}  // namespace shunt
