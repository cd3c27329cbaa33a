// SPDX-License-Identifier: Apache-2.0
// KubeWatcher: the backends of a Service of Kubernetes, by its EndpointSlices (discovery.k8s.io/v1).
//
// An empty list is an answer like any other: a Service whose pods are all gone has no backends.

#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tools/endpoint_slice.h"
#include "tools/kube_list_watch.h"

namespace shunt {

class KubeWatcher : public KubeListWatch {
 public:
  // Slices have 100 endpoints as a rule, and 1000 at most.
  static constexpr int kPage = 100;
  static constexpr size_t kMostBroken = 10'000;  // slices that are told of

  explicit KubeWatcher(net::KubernetesSpec spec);

  std::string Title() const override;

 private:
  void OnListBegins() override { listed_ = {}; }
  absl::Status OnListed(const nlohmann::json& object) override;
  absl::Status OnListEnds(const Names& names) override;
  absl::Status OnChanged(const nlohmann::json& object) override;
  absl::Status OnDeleted(const nlohmann::json& object) override;
  // What is wrong with the slices has been told.
  void OnRight() override { Tell().IgnoreError(); }
  std::string NameOfOurs() const { return spec_.service.substr(spec_.service.find('/') + 1); }
  // Nothing: what the server says of that slice is not what the API has.
  std::optional<EndpointSlice> Read(const nlohmann::json& object);
  absl::Status Tell();

  const net::KubernetesSpec spec_;
  EndpointSlices slices_;
  EndpointSlices listed_;                      // of the list under way
  std::map<std::string, std::string> broken_;  // slices of which something older counts, and why
  std::optional<std::vector<net::BackendSpec>> told_;
};

}  // namespace shunt
