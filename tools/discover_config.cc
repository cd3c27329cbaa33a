// SPDX-License-Identifier: Apache-2.0
#include "tools/discover_config.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tools/http_origin.h"
#include "tools/kube_service.h"
#include "tools/service_values.h"
#include "tools/yaml_reading.h"

namespace shunt {
namespace {

constexpr size_t kLongestDnsName = 253;  // without the dot at its end
constexpr size_t kLongestDnsLabel = 63;
constexpr size_t kMostEndpoints = 16;

bool IsDnsName(absl::string_view name) {
  absl::string_view rest = name;
  if (absl::EndsWith(rest, ".")) rest.remove_suffix(1);
  if (rest.empty() || rest.size() > kLongestDnsName) return false;
  for (const absl::string_view label : absl::StrSplit(rest, '.')) {
    if (label.empty() || label.size() > kLongestDnsLabel) return false;
    const bool right = std::all_of(label.begin(), label.end(), [](char c) {
      return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_';
    });
    if (!right) return false;
  }
  return true;
}

// "_http._tcp.orders.svc", or "orders.svc:8080".
absl::Status ReadDns(const YAML::Node& value, std::string& dns) {
  const absl::string_view text = value.IsScalar() ? absl::string_view(value.Scalar()) : "";
  bool right = false;
  if (absl::StartsWith(text, "_")) {
    right = IsDnsName(text);
  } else if (const size_t colon = text.rfind(':'); colon != absl::string_view::npos) {
    const auto port = net::ParsePortNumber(text.substr(colon + 1));
    right = port.value_or(0) != 0 && IsDnsName(text.substr(0, colon)) &&
            !net::IpAddress::Parse(text.substr(0, colon)).ok();
  }
  if (!right) return Should("_SERVICE._tcp.NAME, whose SRV records are asked for, or NAME:PORT");
  dns = std::string(text);
  return absl::OkStatus();
}

// The agent's working directory is nothing that an operator knows.
absl::Status ReadPath(const YAML::Node& node, std::string& path) {
  if (!node.IsScalar() || !absl::StartsWith(node.Scalar(), "/") ||
      node.Scalar().find('\0') != std::string::npos)
    return Should("a path from / on");
  path = node.Scalar();
  return absl::OkStatus();
}

ReadValue PathInto(std::string& path) {
  return [&path](const YAML::Node& node) { return ReadPath(node, path); };
}

ReadValue WordInto(std::string& word) {
  return [&word](const YAML::Node& node) { return ReadWord(node, word); };
}

absl::Status ReadEndpoints(const YAML::Node& node, std::vector<std::string>& endpoints) {
  absl::StatusOr<std::vector<std::string>> texts = Texts(node);
  if (!texts.ok()) return texts.status();
  if (texts->empty() || texts->size() > kMostEndpoints)
    return Should(absl::StrCat("a list of 1 to ", kMostEndpoints, " of https://HOST:PORT"));
  for (const std::string& text : *texts) {
    HttpOrigin origin;
    if (absl::Status status = SetUrl(text, PlainHttp::kAllowed, origin); !status.ok()) return status;
    endpoints.push_back(origin.url);
  }
  return absl::OkStatus();
}

// "default", or "all"
absl::Status ReadKubernetesServices(const YAML::Node& node, std::string& services) {
  if (!node.IsScalar() || !IsKubeLabel(node.Scalar())) return Should("all, or a NAMESPACE");
  services = node.Scalar();
  return absl::OkStatus();
}

// "default/orders"
absl::Status ReadKubernetesService(const YAML::Node& node, std::string& service) {
  const std::vector<std::string> parts =
      node.IsScalar() ? absl::StrSplit(node.Scalar(), '/') : std::vector<std::string>();
  if (parts.size() != 2 || !IsKubeLabel(parts[0]) || !IsKubeLabel(parts[1]))
    return Should("NAMESPACE/NAME of a Service");
  service = node.Scalar();
  return absl::OkStatus();
}

absl::Status ReadKubernetes(const std::string& file, const std::string& path, const YAML::Node& value,
                            net::KubernetesSpec& kubernetes) {
  const absl::Status status = ReadMapping(
      file, path + ".", value,
      {{"service", [&](const YAML::Node& node) { return ReadKubernetesService(node, kubernetes.service); }},
       {"services",
        [&](const YAML::Node& node) { return ReadKubernetesServices(node, kubernetes.services); }},
       {"port", WordInto(kubernetes.port)},
       {"kubeconfig", PathInto(kubernetes.kubeconfig)}});
  if (!status.ok()) return status;
  if (kubernetes.service.empty() == kubernetes.services.empty())
    return Should("service: NAMESPACE/NAME, or else services: all or NAMESPACE");
  if (!kubernetes.services.empty() && !kubernetes.port.empty())
    return Should("no port beside services: each of their ports is one");
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadEtcd(const std::string& file, const std::string& path, const YAML::Node& value,
                      net::EtcdSpec& etcd) {
  const absl::Status status =
      ReadMapping(file, path + ".", value,
                  {{"endpoints", [&](const YAML::Node& node) { return ReadEndpoints(node, etcd.endpoints); }},
                   {"prefix", WordInto(etcd.prefix)},
                   {"ca", PathInto(etcd.authority)},
                   {"cert", PathInto(etcd.certificate)},
                   {"key", PathInto(etcd.key)},
                   {"user", WordInto(etcd.user)},
                   {"password-file", PathInto(etcd.password_file)}});
  if (!status.ok()) return status;
  if (etcd.endpoints.empty()) return absl::InvalidArgumentError("has no endpoints: [https://HOST:PORT]");
  if (etcd.prefix.empty()) return absl::InvalidArgumentError("has no prefix: /services/orders");
  if (etcd.certificate.empty() != etcd.key.empty()) return Should("cert and key together, or none of them");
  if (etcd.user.empty() != etcd.password_file.empty())
    return Should("user and password-file together, or none of them");
  const bool plain = std::ranges::any_of(
      etcd.endpoints, [](const std::string& url) { return absl::StartsWith(url, "http:"); });
  if (plain && !(etcd.user.empty() && etcd.authority.empty() && etcd.certificate.empty()))
    return Should("https:// at all endpoints: neither passwords nor certificates are of use without TLS");
  return absl::OkStatus();
}

absl::Status ReadDiscover(const std::string& file, const std::string& path, const YAML::Node& value,
                          net::DiscoverSpec& discover) {
  const absl::Status status = ReadMapping(
      file, path + ".", value,
      {{"file", PathInto(discover.file)},
       {"dns", [&](const YAML::Node& node) { return ReadDns(node, discover.dns); }},
       {"etcd", [&](const YAML::Node& node) { return ReadEtcd(file, path + ".etcd", node, discover.etcd); }},
       {"kubernetes", [&](const YAML::Node& node) {
          return ReadKubernetes(file, path + ".kubernetes", node, discover.kubernetes);
        }}});
  if (!status.ok()) return status;
  if (value.size() != 1) return Should("one of {file: PATH}, {dns: NAME}, {etcd: ...} and {kubernetes: ...}");
  return absl::OkStatus();
}

}  // namespace shunt
