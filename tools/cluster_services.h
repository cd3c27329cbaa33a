// SPDX-License-Identifier: Apache-2.0
// ClusterServices: the Services of a cluster of Kubernetes with their EndpointSlices, and the services that
// follow: one for each port of a Service that has a cluster IP, "NAMESPACE/NAME:PORT", or "NAMESPACE/NAME"
// where the port has no name. Pure.
//
// A change takes time in proportion to the Service that it is about. Nothing follows before both have been
// listed once: a Service whose endpoints are not known yet would refuse connections.
//
// An object that is not what the API says is told once; what was said of it before counts, and no other one
// is concerned.

#pragma once

#include <cstddef>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "net/balancer/found.h"
#include "tools/endpoint_slice.h"
#include "tools/kube_service.h"

namespace shunt {

class ClusterServices {
 public:
  enum class Part : uint8_t { kServices, kSlices };
  static constexpr size_t kMostKubeServices = 50'000;
  static constexpr size_t kMostEndpoints = 500'000;  // and slices
  static constexpr size_t kMostBroken = 10'000;      // objects that are told of by name

  // `node`: the name of this machine's; empty: not known.
  explicit ClusterServices(std::string node) : node_(std::move(node)) {}

  // Objects that have a name. One that is broken, or for which there is no room, counts as it was before, if
  // it did, and is told.
  void Put(Part part, const nlohmann::json& object);
  void Remove(Part part, const nlohmann::json& object);
  // A list has ended with these names, as KubeNameOf() has them: there are no others.
  void Keep(Part part, const absl::flat_hash_set<std::string>& names);

  // What has changed since the last time.
  net::FoundChanges Take();
  // Services of which something is kept.
  size_t kept() const { return all_.size(); }

 private:
  // A Service, its slices, and what was made of them. Of either there may be none.
  struct One {
    std::optional<KubeService> service;
    EndpointSlices slices;
    absl::flat_hash_set<std::string> broken;            // keys of broken_
    std::map<std::string, net::FoundServicePtr> found;  // by name
  };
  // An object that something older counts of.
  struct Broken {
    std::string service;  // whose it is; may be empty
    std::string why;
  };

  void PutService(const nlohmann::json& object);
  void PutSlice(const nlohmann::json& object);
  void RemoveService(const std::string& name);
  void RemoveSlice(const std::string& name);
  void Break(const std::string& key, const std::string& service, const absl::Status& why);
  void Mend(const std::string& key);
  One& Touch(const std::string& service);
  void ForgetIfNothing(const std::string& service);

  // What follows from it now, in the place of what did.
  void Make(const std::string& service, One& one, net::FoundChanges& changes);
  net::FoundService MakePort(const One& one, const KubeService::Port& port, const std::string& trouble);
  std::string TroubleOf(const One& one) const;

  const std::string node_;
  absl::flat_hash_map<std::string, One> all_;             // by the Service's name
  absl::flat_hash_map<std::string, std::string> slices_;  // whose each is
  absl::flat_hash_map<std::string, Broken> broken_;       // by part and name
  size_t services_ = 0, endpoints_ = 0;
  bool listed_[2] = {false, false};
  bool told_ = false;                         // the whole was taken
  absl::flat_hash_set<std::string> changed_;  // Services
  std::vector<std::string> mistakes_;         // of objects, not told yet
  std::vector<std::string> remarks_;
  bool told_of_sctp_ = false, told_of_node_ = false, told_of_broken_ = false;
};

}  // namespace shunt
