// SPDX-License-Identifier: Apache-2.0
#include "tools/cluster_watcher.h"

#include "absl/strings/str_cat.h"

namespace shunt {
namespace {

// "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name"
constexpr char kSelector[] =
    "%21service.kubernetes.io%2Fheadless%2C%21service.kubernetes.io%2Fservice-proxy-name";

}  // namespace

ClusterWatcher::ClusterWatcher(const net::KubernetesSpec& spec, ClusterServices::Part part,
                               std::shared_ptr<ClusterServices> cluster)
    : KubeListWatch(
          {.kind = part == ClusterServices::Part::kServices ? kKubeServices : kEndpointSlices,
           .space = spec.services == net::KubernetesSpec::kAllSpaces ? "" : spec.services,
           .selector = kSelector,
           .since = part == ClusterServices::Part::kServices ? "" : kEndpointSlicesSince,
           .page = kPage,
           .most = 2 * (part == ClusterServices::Part::kServices ? ClusterServices::kMostKubeServices
                                                                 : ClusterServices::kMostEndpoints)},
          spec.kubeconfig, "services:"),
      part_(part),
      title_(absl::StrCat("kubernetes ",
                          part == ClusterServices::Part::kServices ? "Services" : "EndpointSlices")),
      cluster_(std::move(cluster)) {}

std::vector<std::unique_ptr<Watcher>> ClusterWatcher::Both(const net::KubernetesSpec& spec) {
  const auto cluster = std::make_shared<ClusterServices>(spec.node);
  std::vector<std::unique_ptr<Watcher>> both;
  for (const auto part : {ClusterServices::Part::kServices, ClusterServices::Part::kSlices})
    both.push_back(std::make_unique<ClusterWatcher>(spec, part, cluster));
  return both;
}

absl::Status ClusterWatcher::OnListed(const nlohmann::json& object) {
  cluster_->Put(part_, object);
  return absl::OkStatus();
}

absl::Status ClusterWatcher::OnListEnds(const Names& names) {
  cluster_->Keep(part_, names);
  IsRight();
  return absl::OkStatus();
}

absl::Status ClusterWatcher::OnChanged(const nlohmann::json& object) {
  cluster_->Put(part_, object);
  return absl::OkStatus();
}

absl::Status ClusterWatcher::OnDeleted(const nlohmann::json& object) {
  cluster_->Remove(part_, object);
  return absl::OkStatus();
}

void ClusterWatcher::OnPause() {
  net::FoundChanges changes = cluster_->Take();
  if (!changes.empty()) FoundServices(std::move(changes));
}

}  // namespace shunt
