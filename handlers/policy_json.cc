// SPDX-License-Identifier: Apache-2.0
#include "handlers/policy_json.h"

namespace shunt {

using Json = nlohmann::json;

namespace {

Json ToJson(const std::optional<uint32_t>& number) {
  return number ? Json(*number) : Json();
}

std::optional<uint32_t> ToNumber(const Json& json) {
  return json.is_null() ? std::nullopt : std::optional(json.get<uint32_t>());
}

Json MasksToJson(const std::vector<Mask>& masks) {
  Json json = Json::array();
  for (const Mask& mask : masks) json.push_back({{"path", mask.path}, {"hides", mask.hides}});
  return json;
}

Json DevicesToJson(const std::vector<DeviceRule>& devices) {
  Json json = Json::array();
  for (const DeviceRule& rule : devices)
    json.push_back({{"block", rule.block},
                    {"major", ToJson(rule.major)},
                    {"minor", ToJson(rule.minor)},
                    {"path", rule.path}});
  return json;
}

}  // namespace

Json PolicyToJson(const Policy& policy) {
  return {{"refuse", policy.refuse},
          {"default_action", static_cast<uint8_t>(policy.default_action)},
          {"default_error", policy.default_error},
          {"errors", policy.errors},
          {"mkdir_suffix", policy.mkdir_suffix ? Json(*policy.mkdir_suffix) : Json()},
          {"exec_pattern", policy.exec_pattern},
          {"exec_delay_ns", policy.exec_delay.count()},
          {"start_delay_ns", policy.start_delay.count()},
          {"mounts",
           {{"proc", policy.mounts.proc},
            {"sysfs", policy.mounts.sysfs},
            {"other", policy.mounts.other},
            {"need_cap_admin", policy.mounts.need_cap_admin},
            {"masks", MasksToJson(policy.mounts.masks)},
            {"sysfs_read_only", policy.mounts.sysfs_read_only}}},
          {"devices", DevicesToJson(policy.devices)},
          {"bpf_map_types", policy.bpf_map_types},
          {"middleware", policy.middleware},
          {"pod_namespace", policy.identity.pod_namespace},
          {"pod", policy.identity.pod},
          {"container", policy.identity.container}};
}

Policy PolicyFromJson(const Json& json) {
  Policy policy;
  json.at("refuse").get_to(policy.refuse);
  policy.default_action = static_cast<DefaultAction>(json.at("default_action").get<uint8_t>());
  json.at("default_error").get_to(policy.default_error);
  json.at("errors").get_to(policy.errors);
  if (const Json& suffix = json.at("mkdir_suffix"); !suffix.is_null())
    policy.mkdir_suffix = suffix.get<std::string>();
  json.at("exec_pattern").get_to(policy.exec_pattern);
  policy.exec_delay = std::chrono::nanoseconds(json.at("exec_delay_ns").get<int64_t>());
  policy.start_delay = std::chrono::nanoseconds(json.at("start_delay_ns").get<int64_t>());
  const Json& mounts = json.at("mounts");
  mounts.at("proc").get_to(policy.mounts.proc);
  mounts.at("sysfs").get_to(policy.mounts.sysfs);
  mounts.at("other").get_to(policy.mounts.other);
  mounts.at("need_cap_admin").get_to(policy.mounts.need_cap_admin);
  mounts.at("sysfs_read_only").get_to(policy.mounts.sysfs_read_only);
  for (const Json& mask : mounts.at("masks"))
    policy.mounts.masks.push_back({mask.at("path").get<std::string>(), mask.at("hides").get<bool>()});
  for (const Json& rule : json.at("devices"))
    policy.devices.push_back({.block = rule.at("block").get<bool>(),
                              .major = ToNumber(rule.at("major")),
                              .minor = ToNumber(rule.at("minor")),
                              .path = rule.at("path").get<std::string>()});
  json.at("bpf_map_types").get_to(policy.bpf_map_types);
  json.at("middleware").get_to(policy.middleware);
  json.at("pod_namespace").get_to(policy.identity.pod_namespace);
  json.at("pod").get_to(policy.identity.pod);
  json.at("container").get_to(policy.identity.container);
  return policy;
}

}  // namespace shunt
