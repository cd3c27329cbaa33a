// SPDX-License-Identifier: Apache-2.0
// EndpointSlices: what the API server says of where a Service of Kubernetes is (discovery.k8s.io/v1), and
// which backends follow from it. Pure.
//
// A slice that is not what the API says is an error as a whole. Values in it that no backend can have (others
// than the cluster's controllers write slices, too) concern their endpoint alone.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "net/balancer/service.h"
#include "tools/kube_reading.h"

namespace shunt {

struct EndpointSlice {
  struct Port {
    std::string name;                // may be empty
    std::string protocol;            // "TCP", "UDP", "SCTP"
    std::optional<uint16_t> number;  // nothing: all ports

    // For messages: "http (8080/TCP)".
    std::string ToString() const;
  };
  struct Endpoint {
    std::string address;  // the first one, as it stands there
    bool ready = true;    // else it is about to end, and still serves
    std::string zone;     // may be empty, as well
    std::string hint;     // the first zone that it is meant for
    std::string node;     // may be empty, as well
  };

  std::string name;
  std::string service;  // the value of its label
  std::vector<Port> ports;
  std::vector<Endpoint> endpoints;  // that may get connections; none if the addresses are names

  // Which port counts: its number or name, or "" for the only one. Nothing: it has no such one of TCP or UDP.
  // The error says what should be configured.
  absl::StatusOr<std::optional<uint16_t>> PortFor(const std::string& wanted) const;
};

inline constexpr KubeKind kEndpointSlices = {"EndpointSlice", "endpointslices", "discovery.k8s.io/v1"};
inline constexpr char kEndpointSlicesSince[] = "; discovery.k8s.io/v1 takes Kubernetes 1.21 or later";

// Of an object that has a name. The error names it.
absl::StatusOr<EndpointSlice> ReadSlice(const nlohmann::json& object);
// The value of its label, also where the rest of it is broken; empty: it has none.
std::string LabelledServiceOf(const nlohmann::json& object);

// Those of one Service.
class EndpointSlices {
 public:
  struct Backends {
    std::vector<net::BackendSpec> list;  // each address once
    absl::Status missing;                // what is left out; OK: nothing
  };

  // In the place of the one with that name. An error: there would be more than kMostBackends endpoints
  // (tools/service_config.h), or slices; that name has none then.
  absl::Status Put(EndpointSlice slice);
  void Remove(const std::string& name);
  const EndpointSlice* Find(const std::string& name) const;  // null: there is none
  size_t size() const { return slices_.size(); }

  // The same, without a limit.
  void Replace(EndpointSlice slice);
  size_t endpoints() const { return endpoints_; }

  // Whoever is about to end is a backup. The zone is that of the hints, if all ready endpoints have some,
  // else their own. An error: which port counts is not clear, or none has it.
  absl::StatusOr<Backends> BackendsAt(const std::string& port) const;

  // Of a port of the Service: by its own name, which its slices have as well. None have it: no backends.
  struct OfPort {
    const std::string& port;
    const std::string& protocol;
    const std::string& node;                    // only endpoints there; empty: anywhere
    const std::vector<net::IpAddress>& except;  // the Service's own addresses
  };
  Backends BackendsOf(const OfPort& wanted) const;

 private:
  class Collection;
  bool HintsCount() const;
  std::string PortsText() const;

  std::map<std::string, EndpointSlice> slices_;  // by name
  size_t endpoints_ = 0;
};

}  // namespace shunt
