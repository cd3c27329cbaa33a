// SPDX-License-Identifier: Apache-2.0
#include "tools/multinode.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "tools/discover_config.h"
#include "tools/service_values.h"
#include "tools/yaml_reading.h"

namespace shunt {
namespace {

constexpr char kUsualPrefix[] = "bypass4netns/multinode";
// "[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535", with room for blanks.
constexpr size_t kLongestAddress = 80;
constexpr size_t kMostNetworks = 64;

// What is private (RFC 1918, RFC 4193): bypass4netns asks about no other addresses.
std::vector<net::Subnet> PrivateNetworks() {
  std::vector<net::Subnet> networks;
  for (const char* text : {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"})
    networks.push_back(*net::ParseSubnet(text));
  return networks;
}

absl::Status ReadNetworks(const YAML::Node& value, std::vector<net::Subnet>& networks) {
  const absl::StatusOr<std::vector<std::string>> texts = Texts(value);
  if (!texts.ok()) return texts.status();
  if (texts->empty() || texts->size() > kMostNetworks)
    return Should(absl::StrCat("a list of 1 to ", kMostNetworks, " networks, [10.88.0.0/16]"));
  networks.clear();
  for (const std::string& text : *texts) {
    const absl::StatusOr<net::Subnet> network = net::ParseSubnet(text);
    if (!network.ok()) return network.status();
    networks.push_back(*network);
  }
  return absl::OkStatus();
}

absl::Status ReadHostAddress(const YAML::Node& value, std::optional<net::IpAddress>& address) {
  const auto ip = net::IpAddress::Parse(value.IsScalar() ? value.Scalar() : "");
  if (!ip.ok() || ip->IsUnspecified() || ip->IsLoopback() || ip->IsMulticast() || ip->IsBroadcast() ||
      ip->IsLinkLocal())
    return Should("an address of this machine that others reach it by, 192.168.7.11");
  address = *ip;
  return absl::OkStatus();
}

// One machine's, of one that others can mean.
absl::StatusOr<net::SockAddr> ParseContainerAddress(absl::string_view text) {
  const absl::StatusOr<net::SockAddr> address = net::SockAddr::FromText(text);
  if (!address.ok() || address->port() == 0 || address->scope_id() != 0)
    return Should("ADDRESS:PORT of a container, 10.88.0.5:80 or [fd88::5]:80");
  const net::IpAddress ip = address->ip();
  if (ip.IsUnspecified() || ip.IsMulticast() || ip.IsBroadcast() || ip.IsLoopback() || ip.IsLinkLocal())
    return Should("an address that means the same container on every machine");
  return net::SockAddr(ip, address->port());
}

}  // namespace

absl::Status ReadMultinode(const std::string& file_name, const YAML::Node& value, MultinodeConfig& config) {
  config.etcd.prefix = kUsualPrefix;
  config.networks = PrivateNetworks();
  const absl::Status status = ReadMapping(
      file_name, "multinode.", value,
      {{"etcd",
        [&](const YAML::Node& node) { return ReadEtcd(file_name, "multinode.etcd", node, config.etcd); }},
       {"networks", [&](const YAML::Node& node) { return ReadNetworks(node, config.networks); }},
       {"register", [&](const YAML::Node& node) { return ReadBool(node, config.registers); }},
       {"host-address", [&](const YAML::Node& node) { return ReadHostAddress(node, config.host_address); }}});
  if (!status.ok()) return status;
  if (!config.enabled()) return absl::InvalidArgumentError("has no etcd: {endpoints: [https://HOST:PORT]}");
  return config.registers ? CheckRegisters(config) : absl::OkStatus();
}

absl::Status CheckRegisters(const MultinodeConfig& config) {
  if (!config.enabled()) {
    return absl::InvalidArgumentError(
        "should stand beside a configuration with multinode: {etcd: {endpoints: [https://HOST:PORT]}, "
        "host-address: ADDRESS}");
  }
  if (config.host_address) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "has no host-address: the address by which other machines reach this one");
}

net::ServiceSpec MultinodeService(const MultinodeConfig& config) {
  net::ServiceSpec service;
  service.name = kMultinodeName;
  // Of each service that is found.
  service.policy = net::PickPolicy::kFirst;
  service.connect.attempts = 1;
  service.peer_name = net::PeerName::kService;  // the program talks to a container, wherever that is
  service.discover = {.etcd = config.etcd, .services_in = config.networks};
  return service;
}

absl::StatusOr<net::BackendSpec> ReadMultinodeKey(absl::string_view key, const std::string& value,
                                                  const std::string& full_key) {
  const auto wrong = [&full_key](absl::string_view what, const absl::Status& why) {
    return absl::InvalidArgumentError(absl::StrCat(full_key, ": its ", what, " ", why.message()));
  };
  if (key.size() > kLongestAddress) return wrong("name", Should("ADDRESS:PORT of a container"));
  const absl::StatusOr<net::SockAddr> service = ParseContainerAddress(key);
  if (!service.ok()) return wrong("name", service.status());
  if (value.size() > kLongestAddress) return wrong("value", Should("ADDRESS:PORT of a machine"));
  const absl::StatusOr<net::SockAddr> backend = ParseBackendAddress(absl::StripAsciiWhitespace(value));
  if (!backend.ok()) return wrong("value", backend.status());
  if (*backend == *service) return wrong("value", Should("another address than the container's own"));
  return net::BackendSpec{.address = *backend, .service = *service};
}

}  // namespace shunt
