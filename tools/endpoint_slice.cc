// SPDX-License-Identifier: Apache-2.0
// EndpointSlices: see endpoint_slice.h. The order here: reading JSON, a slice's ports, backends.

#include "tools/endpoint_slice.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "net/ip_address.h"
#include "net/sock_addr.h"
#include "tools/harmless.h"
#include "tools/json_reading.h"
#include "tools/kube_service.h"
#include "tools/service_config.h"

namespace shunt {
namespace {

using Json = nlohmann::json;

constexpr char kServiceLabel[] = "kubernetes.io/service-name";

// ---- reading JSON

EndpointSlice::Port PortIn(const Json& json) {
  EndpointSlice::Port port{.name = WordIn(json, "name"), .protocol = WordIn(json, "protocol"), .number = {}};
  if (port.protocol.empty()) port.protocol = "TCP";
  if (const uint16_t number = PortNumberIn(json, "port"); number != 0) port.number = number;
  return port;
}

// As long as a zone can be that is a node's label, and some more.
std::string ZoneIn(const Json& object, const char* name) {
  constexpr size_t kLongest = 253;
  std::string zone = WordIn(object, name);
  return zone.size() > kLongest ? "" : zone;
}

// Nothing: it gets no connections.
std::optional<EndpointSlice::Endpoint> EndpointIn(const Json& json) {
  EndpointSlice::Endpoint endpoint;
  if (const Json* const conditions = FieldOf(json, "conditions", Json::value_t::object)) {
    endpoint.ready = FlagIn(*conditions, "ready", true);
    const bool ends_well = FlagIn(*conditions, "serving", false) && FlagIn(*conditions, "terminating", false);
    if (!endpoint.ready && !ends_well) return std::nullopt;
  }
  const Json& addresses = NeededIn(json, "addresses", Json::value_t::array);
  if (addresses.empty() || !addresses[0].is_string())
    throw NotAsTheApi{"addresses should begin with an address"};
  endpoint.address = addresses[0].get<std::string>();
  endpoint.zone = ZoneIn(json, "zone");
  endpoint.node = WordIn(json, "nodeName");
  if (const Json* const hints = FieldOf(json, "hints", Json::value_t::object)) {
    ForEachObject(*hints, "forZones", [&endpoint](const Json& zone) {
      if (endpoint.hint.empty()) endpoint.hint = ZoneIn(zone, "name");
    });
  }
  return endpoint;
}

// ---- backends

bool IsNumber(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
}

std::optional<net::IpAddress> BackendIp(const std::string& text) {
  const absl::StatusOr<net::IpAddress> ip = net::IpAddress::Parse(text);
  if (!ip.ok() || !IsKubeAddress(*ip)) return std::nullopt;
  return *ip;
}

// Where in a list an address is.
struct SockAddrHash {
  size_t operator()(const net::SockAddr& address) const { return address.ip().Hash() ^ address.port(); }
};
using Places = std::unordered_map<net::SockAddr, size_t, SockAddrHash>;

}  // namespace

std::string LabelledServiceOf(const Json& object) {
  const Json* const labels = JsonMember(object["metadata"], "labels", Json::value_t::object);
  return labels == nullptr ? "" : JsonText(*labels, kServiceLabel);
}

absl::StatusOr<EndpointSlice> ReadSlice(const Json& json) {
  EndpointSlice slice;
  const Json& metadata = json["metadata"];
  slice.name = metadata["name"].get<std::string>();
  try {
    if (const Json* const labels = FieldOf(metadata, "labels", Json::value_t::object))
      slice.service = WordIn(*labels, kServiceLabel);
    ForEachObject(json, "ports", [&slice](const Json& port) { slice.ports.push_back(PortIn(port)); });
    const std::string type = NeededWordIn(json, "addressType");
    if (type != "IPv4" && type != "IPv6") return slice;
    ForEachObject(json, "endpoints", [&slice](const Json& one) {
      if (std::optional<EndpointSlice::Endpoint> endpoint = EndpointIn(one))
        slice.endpoints.push_back(*std::move(endpoint));
    });
    return slice;
  } catch (const NotAsTheApi& wrong) {
    return absl::InvalidArgumentError(
        absl::StrCat("EndpointSlice ", Shortened(slice.name, kLongestMention), ": ", wrong.what));
  }
}

// ---- a slice's ports

std::string EndpointSlice::Port::ToString() const {
  const std::string text = absl::StrCat(number ? absl::StrCat(*number) : "all ports", "/", protocol);
  return name.empty() ? text : absl::StrCat(name, " (", text, ")");
}

absl::StatusOr<std::optional<uint16_t>> EndpointSlice::PortFor(const std::string& wanted) const {
  if (wanted.empty() && ports.size() != 1) {
    const std::string all =
        absl::StrJoin(ports, ", ", [](std::string* out, const Port& port) { out->append(port.ToString()); });
    return absl::FailedPreconditionError(
        absl::StrCat("EndpointSlice ", name, ports.empty() ? " has no port" : " has several ports: ",
                     Shortened(all, kLongestMention), "; say which one counts, port: NAME"));
  }
  // Transports are not compared with the service's addresses: a name has one, and with a number it makes no
  // difference.
  const auto found = std::ranges::find_if(ports, [&wanted](const Port& port) {
    if (port.protocol != "TCP" && port.protocol != "UDP") return false;
    if (IsNumber(wanted)) return port.number && absl::StrCat(*port.number) == wanted;
    return wanted.empty() || port.name == wanted;
  });
  if (found == ports.end()) return std::nullopt;
  if (!found->number) {
    return absl::FailedPreconditionError(absl::StrCat("EndpointSlice ", name, ": ", found->ToString(),
                                                      " is no single port: name one that has a number"));
  }
  return found->number;
}

// ---- backends

absl::Status EndpointSlices::Put(EndpointSlice slice) {
  Remove(slice.name);
  const size_t count = endpoints_ + slice.endpoints.size();
  if (count > kMostBackends || slices_.size() == kMostBackends) {
    return absl::OutOfRangeError(
        absl::StrCat("there are more than ", kMostBackends, " endpoints, or EndpointSlices"));
  }
  Replace(std::move(slice));
  return absl::OkStatus();
}

void EndpointSlices::Replace(EndpointSlice slice) {
  Remove(slice.name);
  endpoints_ += slice.endpoints.size();
  std::string name = slice.name;
  slices_.emplace(std::move(name), std::move(slice));
}

const EndpointSlice* EndpointSlices::Find(const std::string& name) const {
  const auto found = slices_.find(name);
  return found == slices_.end() ? nullptr : &found->second;
}

void EndpointSlices::Remove(const std::string& name) {
  const auto found = slices_.find(name);
  if (found == slices_.end()) return;
  endpoints_ -= found->second.endpoints.size();
  slices_.erase(found);
}

bool EndpointSlices::HintsCount() const {
  return std::ranges::all_of(slices_, [](const auto& entry) {
    return std::ranges::all_of(entry.second.endpoints, [](const EndpointSlice::Endpoint& endpoint) {
      return !endpoint.ready || !endpoint.hint.empty();
    });
  });
}

std::string EndpointSlices::PortsText() const {
  std::set<std::string> all;
  for (const auto& [name, slice] : slices_) {
    if (slice.endpoints.empty()) continue;
    for (const EndpointSlice::Port& port : slice.ports) all.insert(port.ToString());
  }
  return all.empty() ? "none" : Shortened(absl::StrJoin(all, ", "), kLongestMention);
}

// Backends as they add up.
class EndpointSlices::Collection {
 public:
  explicit Collection(bool hints) : hints_(hints) {}

  void Add(const EndpointSlice& slice, const EndpointSlice::Endpoint& endpoint, uint16_t port,
           const std::vector<net::IpAddress>& except) {
    const std::optional<net::IpAddress> ip = BackendIp(endpoint.address);
    if (!ip || std::ranges::find(except, *ip) != except.end()) {
      if (left_out_++ == 0)
        first_left_out_ = absl::StrCat(endpoint.address, " of EndpointSlice ", slice.name);
      return;
    }
    net::BackendSpec backend{.address = net::SockAddr(*ip, port),
                             .backup = !endpoint.ready,
                             .zone = hints_ && !endpoint.hint.empty() ? endpoint.hint : endpoint.zone,
                             .labels = {}};
    const auto [place, is_new] = places_.emplace(backend.address, backends_.list.size());
    if (is_new) {
      backends_.list.push_back(std::move(backend));
    } else if (backends_.list[place->second].backup && !backend.backup) {
      backends_.list[place->second] = std::move(backend);
    }
  }
  Backends Take() {
    if (left_out_ > 0) {
      backends_.missing = absl::InvalidArgumentError(absl::StrCat(
          Shortened(first_left_out_, kLongestMention), " is no address of one machine",
          left_out_ == 1 ? "" : absl::StrCat(", nor are ", left_out_ - 1, " more"), ": left out"));
    }
    return std::move(backends_);
  }

 private:
  const bool hints_;
  Backends backends_;
  Places places_;
  size_t left_out_ = 0;
  std::string first_left_out_;
};

absl::StatusOr<EndpointSlices::Backends> EndpointSlices::BackendsAt(const std::string& port) const {
  Collection backends(HintsCount());
  bool any_port = false, any_endpoint = false;
  for (const auto& [name, slice] : slices_) {
    // Such as stands for a Service that has no pods; it has no ports, either.
    if (slice.endpoints.empty()) continue;
    any_endpoint = true;
    const absl::StatusOr<std::optional<uint16_t>> number = slice.PortFor(port);
    if (!number.ok()) return number.status();
    if (!number->has_value()) continue;  // other pods of the Service have it
    any_port = true;
    for (const EndpointSlice::Endpoint& endpoint : slice.endpoints)
      backends.Add(slice, endpoint, **number, {});
  }
  if (any_endpoint && !any_port) {
    return absl::FailedPreconditionError(absl::StrCat(
        port.empty() ? std::string("no TCP or UDP port") : absl::StrCat("no TCP or UDP port ", port),
        "; there are: ", PortsText()));
  }
  return backends.Take();
}

EndpointSlices::Backends EndpointSlices::BackendsOf(const OfPort& wanted) const {
  Collection backends(HintsCount());
  for (const auto& [name, slice] : slices_) {
    const auto port = std::ranges::find_if(slice.ports, [&wanted](const EndpointSlice::Port& one) {
      return one.name == wanted.port && one.protocol == wanted.protocol && one.number;
    });
    if (port == slice.ports.end()) continue;
    for (const EndpointSlice::Endpoint& endpoint : slice.endpoints) {
      if (wanted.node.empty() || endpoint.node == wanted.node)
        backends.Add(slice, endpoint, *port->number, wanted.except);
    }
  }
  return backends.Take();
}

}  // namespace shunt
