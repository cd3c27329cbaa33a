// SPDX-License-Identifier: Apache-2.0
// ClusterWatcher: the Services of a cluster of Kubernetes, all or those of a namespace, and their backends.
//
// Two of them work together, whatever the number of Services: one lists and watches Services, the other
// EndpointSlices; what follows from both is found by whoever hears something. As with kube-proxy, those do
// not count that say they are headless or another proxy's.

#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tools/cluster_services.h"
#include "tools/kube_list_watch.h"

namespace shunt {

class ClusterWatcher : public KubeListWatch {
 public:
  // An object of either kind has a few KB as a rule.
  static constexpr int kPage = 500;

  ClusterWatcher(const net::KubernetesSpec& spec, ClusterServices::Part part,
                 std::shared_ptr<ClusterServices> cluster);

  // Both, for one source. `spec` has `services`.
  static std::vector<std::unique_ptr<Watcher>> Both(const net::KubernetesSpec& spec);

  std::string Title() const override { return title_; }
  void OnPause() override;

 private:
  void OnListBegins() override {}
  absl::Status OnListed(const nlohmann::json& object) override;
  absl::Status OnListEnds(const Names& names) override;
  absl::Status OnChanged(const nlohmann::json& object) override;
  absl::Status OnDeleted(const nlohmann::json& object) override;
  void OnRight() override { IsRight(); }

  const ClusterServices::Part part_;
  const std::string title_;
  const std::shared_ptr<ClusterServices> cluster_;
};

}  // namespace shunt
