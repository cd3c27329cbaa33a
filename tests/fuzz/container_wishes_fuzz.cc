// SPDX-License-Identifier: Apache-2.0
// What a container's configuration wishes for, with any bytes: its listenerMetadata, the annotations
// shunt/publish and shunt/ignore, and a third annotation's name, separated by NUL. Whatever is granted lies
// within what the agent's configuration allows.

#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "core/check.h"
#include "tools/agent_config.h"

namespace {

shunt::AgentConfig StrictConfig() {
  shunt::AgentConfig config;
  config.publish.host_ip = *shunt::net::IpAddress::Parse("127.0.0.1");
  config.publish.first_host_port = 1024;
  config.publish.last_host_port = 9999;
  SHUNT_CHECK(config.ignore.Add(*shunt::net::ParseSubnet("10.0.0.0/8")));
  return config;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const shunt::AgentConfig kConfig = StrictConfig();
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> parts = absl::StrSplit(text, '\0');
  parts.resize(4);
  shunt::ContainerState state{.id = "fuzzed", .metadata = parts[0]};
  if (!parts[1].empty()) state.annotations["shunt/publish"] = parts[1];
  if (!parts[2].empty()) state.annotations["shunt/ignore"] = parts[2];
  if (!parts[3].empty()) state.annotations.emplace(parts[3], std::string(1, '1'));
  const auto spec = shunt::SpecFor(state, kConfig);
  if (!spec.ok()) {
    SHUNT_CHECK(!spec.status().message().empty());
    return 0;
  }
  for (const shunt::net::Publish& publish : spec->publish) {
    SHUNT_CHECK(publish.host_port >= 1024 && publish.host_port <= 9999 && publish.host_ip.has_value());
  }
  SHUNT_CHECK(shunt::net::CheckPublishList(spec->publish).ok());
  SHUNT_CHECK(spec->ignore.Contains(*shunt::net::IpAddress::Parse("10.1.2.3")));
  return 0;
}
