// SPDX-License-Identifier: Apache-2.0
// What sources find, as values: backends of a service, or whole services.

#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "net/balancer/service.h"

namespace shunt::net {

// A service that a source has found (DiscoverSpec::finds_services()). All else of it is as in the entry of
// the configuration that names the source.
struct FoundService {
  std::string name;  // the same for as long as it is this one; never that of a service that is configured
  std::vector<ServiceAddress> addresses;  // each of one machine and one port, and all of one transport
  std::vector<BackendSpec> backends;
  bool sticky = false;  // connections of a container stay together, whatever the entry says
  std::chrono::nanoseconds sticky_for{0};  // for so long after the last one; 0: not told
  std::string trouble;                     // what is wrong with it; empty: nothing

  friend bool operator==(const FoundService&, const FoundService&) = default;
};
using FoundServicePtr = std::shared_ptr<const FoundService>;

// What has become of services that a source finds.
struct FoundChanges {
  bool whole = false;                                          // there are no others
  absl::flat_hash_map<std::string, FoundServicePtr> services;  // by name; null: it is gone
  std::vector<std::string> remarks;                            // lines for the operator

  bool empty() const { return !whole && services.empty() && remarks.empty(); }
  // What has come of them later.
  void Add(FoundChanges later) {
    if (later.whole) {
      whole = true;
      services = std::move(later.services);
    } else {
      for (auto& [name, service] : later.services) services.insert_or_assign(name, std::move(service));
    }
    for (std::string& remark : later.remarks) remarks.push_back(std::move(remark));
  }
};

// What the source of a service has found, for those who balance after us.
struct FoundBackends {
  std::string service;
  DiscoverSpec source;  // none(): there is nothing any more
  std::vector<BackendSpec> backends;
  int64_t found_at = 0;                   // CLOCK_MONOTONIC, ns
  std::vector<FoundServicePtr> services;  // where it finds services by FoundChanges

  friend bool operator==(const FoundBackends&, const FoundBackends&) = default;
};

}  // namespace shunt::net
