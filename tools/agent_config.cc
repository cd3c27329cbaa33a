// SPDX-License-Identifier: Apache-2.0
// AgentConfig: see agent_config.h.

#include "tools/agent_config.h"

#include <fcntl.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/check.h"
#include "core/fd.h"
#include "net/publish.h"
#include "tools/kube_server.h"
#include "tools/metrics_socket.h"
#include "tools/network_reading.h"
#include "tools/service_config.h"
#include "tools/service_values.h"
#include "tools/yaml_reading.h"

namespace shunt {
namespace {

// ---- the file

// The most services and backends with a dozen labels each; what is longer is another file.
constexpr size_t kLongestFile = size_t{64} << 20;

absl::Status ReadHostIp(const YAML::Node& value, std::optional<net::IpAddress>& ip) {
  if (!value.IsScalar()) return Should("an address");
  const auto parsed = net::IpAddress::Parse(value.Scalar());
  if (!parsed.ok()) return parsed.status();
  ip = *parsed;
  return absl::OkStatus();
}

absl::Status ReadPortRange(const YAML::Node& value, PublishPolicy& policy) {
  const auto wrong = [] { return Should("FIRST-LAST with ports from 1 to 65535, for example 1024-65535"); };
  if (!value.IsScalar()) return wrong();
  const std::vector<std::string> ends = absl::StrSplit(value.Scalar(), '-');
  int first = 0;
  int last = 0;
  if (ends.size() != 2 || !absl::SimpleAtoi(ends[0], &first) || !absl::SimpleAtoi(ends[1], &last))
    return wrong();
  if (first < 1 || last > 65535 || first > last) return wrong();
  policy.first_host_port = static_cast<uint16_t>(first);
  policy.last_host_port = static_cast<uint16_t>(last);
  return absl::OkStatus();
}

absl::Status ReadLevel(const YAML::Node& value, log::Level& level) {
  static const std::map<std::string, log::Level> kLevels = {{"debug", log::Level::kDebug},
                                                            {"info", log::Level::kInfo},
                                                            {"warning", log::Level::kWarning},
                                                            {"error", log::Level::kError}};
  const auto found = value.IsScalar() ? kLevels.find(value.Scalar()) : kLevels.end();
  if (found == kLevels.end()) return Should("debug, info, warning or error");
  level = found->second;
  return absl::OkStatus();
}

absl::Status ReadMetricsAddress(const YAML::Node& value, std::string& address) {
  if (!value.IsScalar()) return Should("an address and a port");
  address = value.Scalar();
  return address.empty() ? absl::OkStatus() : ParseMetricsAddress(address).status();
}

absl::Status ReadMiddleware(const YAML::Node& value, std::vector<std::string>& middleware) {
  const absl::StatusOr<std::vector<std::string>> names = Texts(value);
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    if (name != kPrometheus) return Should(absl::StrCat("a list of ", kPrometheus));
  }
  middleware = *names;
  return absl::OkStatus();
}

// ---- the wishes of a container

absl::Status AddPublish(absl::string_view list, const PublishPolicy& policy, ContainerSpec& spec) {
  for (const absl::string_view text : absl::StrSplit(list, ',', absl::SkipWhitespace())) {
    auto publish = net::ParsePublish(absl::StripAsciiWhitespace(text));
    if (!publish.ok()) return publish.status();
    if (!policy.enabled) {
      return absl::PermissionDeniedError(absl::StrCat(
          "publishing \"", text, "\" is not enabled: see publish.enabled in the agent's configuration"));
    }
    if (publish->host_port < policy.first_host_port || publish->host_port > policy.last_host_port) {
      return absl::PermissionDeniedError(absl::StrCat("publishing \"", text, "\": only host ports ",
                                                      policy.first_host_port, "-", policy.last_host_port,
                                                      " are allowed (publish.host-ports)"));
    }
    if (!publish->host_ip) publish->host_ip = policy.host_ip;
    // An annotation and the metadata may say the same.
    if (std::find(spec.publish.begin(), spec.publish.end(), *publish) == spec.publish.end()) {
      spec.publish.push_back(*publish);
    }
  }
  return absl::OkStatus();
}

absl::Status AddIgnore(absl::string_view list, ContainerSpec& spec) {
  for (const absl::string_view text : absl::StrSplit(list, ',', absl::SkipWhitespace())) {
    if (absl::Status status = AddSubnet(absl::StripAsciiWhitespace(text), spec.ignore); !status.ok())
      return status;
  }
  return absl::OkStatus();
}

// One wish, of which `key` is "publish" or "ignore".
absl::Status AddWish(absl::string_view source, absl::string_view key, absl::string_view value,
                     const AgentConfig& config, ContainerSpec& spec) {
  absl::Status status;
  if (key == "publish") {
    status = AddPublish(value, config.publish, spec);
  } else if (key == "ignore") {
    status = AddIgnore(value, spec);
  } else {
    status = absl::InvalidArgumentError("unknown key: known are publish and ignore");
  }
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(source, key, ": ", status.message()));
}

}  // namespace

absl::StatusOr<AgentConfig> ParseAgentConfig(const std::string& text, const std::string& name) {
  AgentConfig config;
  const Keys publish = {
      {"enabled", [&](const YAML::Node& value) { return ReadBool(value, config.publish.enabled); }},
      {"host-ip", [&](const YAML::Node& value) { return ReadHostIp(value, config.publish.host_ip); }},
      {"host-ports", [&](const YAML::Node& value) { return ReadPortRange(value, config.publish); }},
  };
  const Keys logging = {
      {"level", [&](const YAML::Node& value) { return ReadLevel(value, config.log_level); }},
  };
  const Keys top = {
      {"allow-uids", [&](const YAML::Node& value) { return ReadUids(value, config.allow_uids); }},
      {"ignore", [&](const YAML::Node& value) { return ReadSubnets(value, config.ignore); }},
      {"publish", [&](const YAML::Node& value) { return ReadMapping(name, "publish.", value, publish); }},
      {"metrics-bind-address",
       [&](const YAML::Node& value) { return ReadMetricsAddress(value, config.metrics_bind_address); }},
      {"middleware", [&](const YAML::Node& value) { return ReadMiddleware(value, config.middleware); }},
      {"strict", [&](const YAML::Node& value) { return ReadBool(value, config.strict); }},
      {"containers", [&](const YAML::Node& value) { return ReadContainerRules(name, value, config.rules); }},
      {"log", [&](const YAML::Node& value) { return ReadMapping(name, "log.", value, logging); }},
      {"zone", [&](const YAML::Node& value) { return ReadWord(value, config.zone); }},
      {"node-name", [&](const YAML::Node& value) { return ReadWord(value, config.node_name); }},
      {"services", [&](const YAML::Node& value) { return ReadServices(name, value, config.services); }},
      {"multinode", [&](const YAML::Node& value) { return ReadMultinode(name, value, config.multinode); }},
  };
  if (absl::Status status = ReadYaml(text, name, top); !status.ok()) return status;
  if (config.multinode.enabled() && std::ranges::any_of(config.services, [](const net::ServiceSpec& one) {
        return one.name == kMultinodeName;
      })) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": \"", kMultinodeName, "\" should be no service's name beside the key multinode"));
  }
  return config;
}

std::vector<net::ServiceSpec> AgentConfig::AllServices() const {
  std::vector<net::ServiceSpec> all = services;
  for (net::ServiceSpec& service : all) {
    net::KubernetesSpec& kubernetes = service.discover.kubernetes;
    if (!kubernetes.services.empty())
      kubernetes.node = node_name.empty() ? FindNodeName().value_or("") : node_name;
  }
  if (multinode.enabled()) all.push_back(MultinodeService(multinode));
  return all;
}

absl::StatusOr<std::string> ReadConfigText(const std::string& path) {
  const auto cannot = [&path] {
    return absl::NotFoundError(
        absl::StrCat("cannot read the configuration ", path, ": ", std::strerror(errno)));
  };
  const Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return cannot();
  std::string text;
  std::array<char, 65536> chunk;
  for (;;) {
    const ssize_t got = read(file.get(), chunk.data(), chunk.size());
    if (got < 0) return cannot();
    if (got == 0) return text;
    text.append(chunk.data(), static_cast<size_t>(got));
    if (text.size() > kLongestFile) {
      return absl::InvalidArgumentError(absl::StrCat(path, " is longer than a configuration can be"));
    }
  }
}

absl::StatusOr<AgentConfig> ReadAgentConfig(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadConfigText(path);
  if (!text.ok()) return text.status();
  return ParseAgentConfig(*text, path);
}

absl::StatusOr<ContainerSpec> SpecFor(const ContainerState& state, const AgentConfig& config,
                                      const ContainerRule* rule) {
  constexpr absl::string_view kMetadataPrefix = "shunt.";
  constexpr absl::string_view kAnnotationPrefix = "shunt/";
  constexpr absl::string_view kTrapsKey = "traps";
  ContainerSpec spec;
  spec.name = state.id;
  spec.ignore = config.ignore;
  if (rule != nullptr && !spec.ignore.AddAll(rule->ignore)) {
    return absl::InvalidArgumentError(absl::StrCat("rule ", rule->Title(),
                                                   ": its networks are more than fit beside "
                                                   "those that are ignored for every container"));
  }
  if (rule != nullptr) spec.publish = rule->publish;
  for (absl::string_view item : absl::StrSplit(state.metadata, absl::ByAnyChar(";\n"))) {
    const std::pair<absl::string_view, absl::string_view> wish =
        absl::StrSplit(absl::StripAsciiWhitespace(item), absl::MaxSplits('=', 1));
    absl::string_view key = absl::StripTrailingAsciiWhitespace(wish.first);
    if (!absl::ConsumePrefix(&key, kMetadataPrefix)) continue;
    if (key == kTrapsKey) {
      spec.exact_traps = wish.second == kTrapsVersion;
      continue;
    }
    const absl::Status status = AddWish("listenerMetadata shunt.", key, wish.second, config, spec);
    if (!status.ok()) return status;
  }
  for (const auto& [name, value] : state.annotations) {
    absl::string_view key = name;
    if (!absl::ConsumePrefix(&key, kAnnotationPrefix)) continue;
    const absl::Status status = AddWish("annotation shunt/", key, value, config, spec);
    if (!status.ok()) return status;
  }
  if (absl::Status status = net::CheckPublishList(spec.publish); !status.ok()) return status;
  return spec;
}

ContainerSpec OrdinarySpec(std::string name) {
  ContainerSpec spec;
  spec.name = std::move(name);
  for (const char* everything : {"0.0.0.0/0", "::/0"})
    SHUNT_CHECK(spec.ignore.Add(*net::ParseSubnet(everything)));
  return spec;
}

}  // namespace shunt
