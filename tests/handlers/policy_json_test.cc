// SPDX-License-Identifier: Apache-2.0
// The next engine has the policy that this one had.

#include "handlers/policy_json.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace shunt {
namespace {

TEST(PolicyJsonTest, ComesBackAsItWas) {
  EXPECT_EQ(PolicyFromJson(PolicyToJson(Policy())), Policy());
  Policy policy;
  policy.refuse = EACCES;
  policy.default_action = DefaultAction::kFreezeContainer;
  policy.default_error = ENOSYS;
  policy.errors = {{"chmod", EBADMSG}, {"sync", EIO}};
  policy.mkdir_suffix = "";
  policy.exec_pattern = "/bin/\"true\"";
  policy.exec_delay = std::chrono::hours(8760);
  policy.start_delay = std::chrono::nanoseconds(1);
  policy.mounts = {.proc = true, .sysfs = true, .other = {"cifs"}, .need_cap_admin = false};
  policy.devices = {{.block = false, .major = 10, .minor = 200, .path = "/dev/net/tun"},
                    {.block = true, .major = 7, .minor = {}, .path = {}}};
  policy.mounts.masks = {{.path = "/proc/sys", .hides = false}, {.path = "/proc/kcore"}};
  policy.mounts.sysfs_read_only = true;
  policy.bpf_map_types = {"hash"};
  policy.middleware = {"prometheus"};
  policy.identity = {"n", "p", "c"};
  const std::string text = PolicyToJson(policy).dump();
  EXPECT_EQ(PolicyFromJson(nlohmann::json::parse(text)), policy);
}

TEST(PolicyJsonTest, WhatIsMissingOrOfAnotherTypeIsAnError) {
  const nlohmann::json whole = PolicyToJson(Policy());
  for (const auto& [key, value] : whole.items()) {
    nlohmann::json without = whole;
    without.erase(key);
    EXPECT_THROW((void)PolicyFromJson(without), nlohmann::json::exception) << key;
    nlohmann::json other = whole;
    other[key] = nlohmann::json::array({nlohmann::json::object()});
    EXPECT_THROW((void)PolicyFromJson(other), nlohmann::json::exception) << key;
  }
}

}  // namespace
}  // namespace shunt
