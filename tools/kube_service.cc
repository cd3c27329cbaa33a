// SPDX-License-Identifier: Apache-2.0
#include "tools/kube_service.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "tools/harmless.h"

namespace shunt {
namespace {

using Json = nlohmann::json;

void ReadIps(const Json& spec, KubeService& service) {
  std::vector<std::string> texts;
  if (const Json* const all = FieldOf(spec, "clusterIPs", Json::value_t::array)) {
    for (const Json& one : *all) {
      if (!one.is_string()) throw NotAsTheApi{"clusterIPs has something else than texts"};
      texts.push_back(one.get<std::string>());
    }
  }
  // Servers before 1.20 have this one only.
  if (texts.empty()) texts.push_back(WordIn(spec, "clusterIP"));
  for (const std::string& text : texts) {
    if (text.empty() || text == "None") continue;
    const absl::StatusOr<net::IpAddress> ip = net::IpAddress::Parse(text);
    if (!ip.ok() || !IsKubeAddress(*ip))
      throw NotAsTheApi{absl::StrCat(Shortened(text, kLongestMention), " is no cluster IP")};
    if (std::ranges::find(service.ips, *ip) == service.ips.end()) service.ips.push_back(*ip);
  }
}

void ReadPorts(const Json& spec, KubeService& service) {
  ForEachObject(spec, "ports", [&service](const Json& json) {
    KubeService::Port port{.name = WordIn(json, "name"),
                           .protocol = WordIn(json, "protocol"),
                           .number = PortNumberIn(json, "port")};
    if (port.protocol.empty()) port.protocol = "TCP";
    if (port.number == 0) throw NotAsTheApi{"port is missing"};
    if (!port.name.empty() && !IsKubeLabel(port.name))
      throw NotAsTheApi{absl::StrCat("\"", Shortened(port.name, kLongestMention), "\" is no port's name")};
    const bool twice = std::ranges::any_of(
        service.ports, [&port](const KubeService::Port& other) { return other.name == port.name; });
    if (twice) throw NotAsTheApi{absl::StrCat("two ports are named \"", port.name, "\"")};
    service.ports.push_back(std::move(port));
  });
}

void ReadSessions(const Json& spec, KubeService& service) {
  service.by_client = WordIn(spec, "sessionAffinity") == "ClientIP";
  if (!service.by_client) return;
  constexpr int64_t kUsual = 10'800, kLongest = 86'400;  // as the API has it
  service.client_for = std::chrono::seconds(kUsual);
  const Json* const config = FieldOf(spec, "sessionAffinityConfig", Json::value_t::object);
  const Json* const by_ip = config == nullptr ? nullptr : FieldOf(*config, "clientIP", Json::value_t::object);
  const Json* const seconds =
      by_ip == nullptr ? nullptr : FieldOf(*by_ip, "timeoutSeconds", Json::value_t::number_unsigned);
  if (seconds == nullptr) return;
  const auto count = seconds->get<uint64_t>();
  if (count == 0 || count > kLongest) throw NotAsTheApi{absl::StrCat("there is no timeoutSeconds ", count)};
  service.client_for = std::chrono::seconds(count);
}

}  // namespace

absl::StatusOr<KubeService> ReadKubeService(const Json& object) {
  KubeService service;
  service.name = KubeNameOf(object);
  try {
    const size_t slash = service.name.find('/');
    if (!IsKubeLabel(service.name.substr(0, slash)) || !IsKubeLabel(service.name.substr(slash + 1)))
      throw NotAsTheApi{"that is no name of a Service"};
    const Json* const spec = FieldOf(object, "spec", Json::value_t::object);
    if (spec == nullptr || WordIn(*spec, "type") == "ExternalName") return service;
    ReadIps(*spec, service);
    ReadPorts(*spec, service);
    ReadSessions(*spec, service);
    service.local = WordIn(*spec, "internalTrafficPolicy") == "Local";
    return service;
  } catch (const NotAsTheApi& wrong) {
    return absl::InvalidArgumentError(
        absl::StrCat("Service ", Shortened(service.name, kLongestMention), ": ", wrong.what));
  }
}

bool IsKubeLabel(absl::string_view text) {
  constexpr size_t kLongest = 63;
  return !text.empty() && text.size() <= kLongest && std::ranges::all_of(text, [](char c) {
    return absl::ascii_islower(static_cast<unsigned char>(c)) ||
           absl::ascii_isdigit(static_cast<unsigned char>(c)) || c == '-';
  });
}

bool IsKubeAddress(const net::IpAddress& ip) {
  return !ip.IsUnspecified() && !ip.IsMulticast() && !ip.IsBroadcast() && !ip.IsLoopback() &&
         !ip.IsLinkLocal();
}

}  // namespace shunt
