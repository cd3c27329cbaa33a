// SPDX-License-Identifier: Apache-2.0
// KubeService: what the API server says of a Service of Kubernetes (v1), as far as it is about connections to
// its cluster IPs. Pure.
//
// externalIPs, the addresses of load balancers and node ports are left out.

#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "net/balancer/service.h"
#include "net/ip_address.h"
#include "tools/kube_reading.h"

namespace shunt {

struct KubeService {
  struct Port {
    std::string name;  // as its EndpointSlices have it; empty: the only one
    std::string protocol;
    uint16_t number = 0;

    friend bool operator==(const Port&, const Port&) = default;
  };

  std::string name;                 // "NAMESPACE/NAME"
  std::vector<net::IpAddress> ips;  // none: it has no address (headless), or is another name (ExternalName)
  std::vector<Port> ports;
  bool by_client = false;              // sessionAffinity: ClientIP
  std::chrono::seconds client_for{0};  // its timeoutSeconds
  bool local = false;                  // internalTrafficPolicy: Local

  friend bool operator==(const KubeService&, const KubeService&) = default;
};

inline constexpr KubeKind kKubeServices = {"Service", "services", "v1"};

// Of an object that has a name. The error names it.
absl::StatusOr<KubeService> ReadKubeService(const nlohmann::json& object);

// A label of DNS, as names of namespaces and Services are.
bool IsKubeLabel(absl::string_view text);

// An address that endpoints and Services can have: what the API refuses is none.
bool IsKubeAddress(const net::IpAddress& ip);

}  // namespace shunt
