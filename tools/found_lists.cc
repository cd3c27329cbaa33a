// SPDX-License-Identifier: Apache-2.0
#include "tools/found_lists.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tools/agent_settings.h"
#include "tools/service_values.h"

namespace shunt {
namespace {

using Json = nlohmann::json;

// Most backends have an address, and a zone perhaps, and nothing else: these are one text, "ADDRESS ZONE",
// which take half of the time to read. An engine that begins reads all of them first.
Json FoundBackendToJson(const net::BackendSpec& backend) {
  if (backend.weight == 1 && !backend.backup && backend.labels.empty() && !backend.service.valid())
    return absl::StrCat(backend.address.ToString(), backend.zone.empty() ? "" : " ", backend.zone);
  Json json = {{"address", backend.address.ToString()}};
  if (backend.weight != 1) json["weight"] = backend.weight;
  if (backend.backup) json["backup"] = true;
  if (!backend.zone.empty()) json["zone"] = backend.zone;
  if (!backend.labels.empty()) json["labels"] = backend.labels;
  if (backend.service.valid()) json["service"] = backend.service.ToString();
  return json;
}

// Names of files, and none of what is in them.
Json FoundSourceToJson(const net::DiscoverSpec& source) {
  Json json = {{"file", source.file}, {"dns", source.dns}};
  if (const net::EtcdSpec& etcd = source.etcd; !etcd.endpoints.empty()) {
    json["etcd"] = {{"endpoints", etcd.endpoints},        {"prefix", etcd.prefix}, {"ca", etcd.authority},
                    {"cert", etcd.certificate},           {"key", etcd.key},       {"user", etcd.user},
                    {"password-file", etcd.password_file}};
  }
  if (const net::KubernetesSpec& kubernetes = source.kubernetes; !kubernetes.none()) {
    json["kubernetes"] = {{"service", kubernetes.service},
                          {"port", kubernetes.port},
                          {"kubeconfig", kubernetes.kubeconfig},
                          {"services", kubernetes.services},
                          {"node", kubernetes.node}};
  }
  for (const net::Subnet& network : source.services_in) json["services_in"].push_back(network.ToString());
  return json;
}

net::DiscoverSpec FoundSourceFrom(const Json& json) {
  net::DiscoverSpec source{.file = json.at("file").get<std::string>(),
                           .dns = json.at("dns").get<std::string>()};
  if (const auto etcd = json.find("etcd"); etcd != json.end()) {
    source.etcd = {.endpoints = etcd->at("endpoints").get<std::vector<std::string>>(),
                   .prefix = etcd->at("prefix").get<std::string>(),
                   .authority = etcd->at("ca").get<std::string>(),
                   .certificate = etcd->at("cert").get<std::string>(),
                   .key = etcd->at("key").get<std::string>(),
                   .user = etcd->at("user").get<std::string>(),
                   .password_file = etcd->at("password-file").get<std::string>()};
  }
  if (const auto kubernetes = json.find("kubernetes"); kubernetes != json.end()) {
    source.kubernetes = {.service = kubernetes->at("service").get<std::string>(),
                         .port = kubernetes->at("port").get<std::string>(),
                         .kubeconfig = kubernetes->at("kubeconfig").get<std::string>(),
                         .services = kubernetes->value("services", ""),
                         .node = kubernetes->value("node", "")};
  }
  for (const Json& text : json.value("services_in", Json::array())) {
    if (const auto network = net::ParseSubnet(text.get<std::string>()); network.ok())
      source.services_in.push_back(*network);
  }
  return source;
}

std::string LineOf(const net::FoundBackends& found) {
  Json backends = Json::array();
  for (const net::BackendSpec& backend : found.backends) backends.push_back(FoundBackendToJson(backend));
  return Json({{"service", found.service},
               {"source", FoundSourceToJson(found.source)},
               {"found_at", found.found_at},
               {"backends", std::move(backends)}})
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

net::BackendSpec FoundBackendFrom(const Json& json) {
  if (json.is_string()) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(json.get_ref<const std::string&>(), absl::MaxSplits(' ', 1));
    net::BackendSpec backend{.zone = std::string(parts.second)};
    if (auto address = net::SockAddr::FromText(parts.first); address.ok()) backend.address = *address;
    return backend;
  }
  net::BackendSpec backend{.weight = json.value("weight", 1u),
                           .backup = json.value("backup", false),
                           .zone = json.value("zone", ""),
                           .labels = json.value("labels", std::map<std::string, std::string>())};
  if (auto address = net::SockAddr::FromText(json.at("address").get<std::string>()); address.ok())
    backend.address = *address;
  if (auto service = net::SockAddr::FromText(json.value("service", "")); service.ok())
    backend.service = *service;
  return backend;
}

std::string LineOfService(const std::string& finder, const net::FoundService& service) {
  Json addresses = Json::array(), backends = Json::array();
  for (const net::ServiceAddress& address : service.addresses)
    addresses.push_back(ServiceAddressText(address));
  for (const net::BackendSpec& backend : service.backends) backends.push_back(FoundBackendToJson(backend));
  Json json = {{"finder", finder},
               {"name", service.name},
               {"addresses", std::move(addresses)},
               {"backends", std::move(backends)}};
  if (service.sticky) json["sticky_for"] = service.sticky_for.count();
  if (!service.trouble.empty()) json["trouble"] = service.trouble;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

net::FoundServicePtr FoundServiceFrom(const Json& json) {
  net::FoundService service;
  service.name = json.at("name").get<std::string>();
  for (const Json& text : json.at("addresses")) {
    if (const auto address = ParseServiceAddress(text.get<std::string>()); address.ok())
      service.addresses.push_back(*address);
  }
  for (const Json& backend : json.at("backends")) service.backends.push_back(FoundBackendFrom(backend));
  service.sticky = json.contains("sticky_for");
  service.sticky_for = std::chrono::nanoseconds(json.value("sticky_for", int64_t{0}));
  service.trouble = json.value("trouble", "");
  return std::make_shared<const net::FoundService>(std::move(service));
}

net::FoundBackends FoundFrom(const Json& json) {
  net::FoundBackends found{.service = json.at("service").get<std::string>(),
                           .source = FoundSourceFrom(json.at("source")),
                           .found_at = json.at("found_at").get<int64_t>()};
  for (const Json& backend : json.at("backends")) found.backends.push_back(FoundBackendFrom(backend));
  return found;
}

}  // namespace

void FoundLists::Note(const std::vector<net::FoundBackends>& found) {
  for (const net::FoundBackends& one : found) {
    if (one.source.none()) {
      lines_.erase(one.service);
      continue;
    }
    Lines& lines = lines_[one.service];
    lines.own = LineOf(one);
    auto before = std::exchange(lines.found, {});
    lines.found.reserve(one.services.size());
    for (const net::FoundServicePtr& service : one.services) {
      const auto known = before.find(service);
      lines.found.try_emplace(
          service, known != before.end() ? std::move(known->second) : LineOfService(one.service, *service));
    }
  }
}

absl::StatusOr<Fd> FoundLists::ToFile() const {
  std::string text;
  for (const auto& [service, lines] : lines_) {
    absl::StrAppend(&text, lines.own, "\n");
    for (const auto& [found, line] : lines.found) absl::StrAppend(&text, line, "\n");
  }
  return HeldText(text);
}

absl::StatusOr<std::vector<net::FoundBackends>> FoundLists::FromFile(int fd) try {
  const absl::StatusOr<std::string> text = ReadHeldText(fd);
  if (!text.ok()) return text.status();
  std::vector<net::FoundBackends> found;
  for (const absl::string_view line : absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
    const Json json = Json::parse(line.begin(), line.end());
    if (!json.contains("finder")) {
      found.push_back(FoundFrom(json));
    } else if (!found.empty() && found.back().service == json["finder"]) {
      found.back().services.push_back(FoundServiceFrom(json));  // they follow their finder's line
    }
  }
  return found;
} catch (const Json::exception& error) {
  return absl::InvalidArgumentError(absl::StrCat("what sources had found, as it is held: ", error.what()));
}

}  // namespace shunt
