// SPDX-License-Identifier: Apache-2.0
#include "tools/kube_watcher.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/service_config.h"

namespace shunt {

KubeWatcher::KubeWatcher(net::KubernetesSpec spec)
    : KubeListWatch({.kind = kEndpointSlices,
                     .space = spec.service.substr(0, spec.service.find('/')),
                     .selector = absl::StrCat("kubernetes.io%2Fservice-name%3D",
                                              spec.service.substr(spec.service.find('/') + 1)),
                     .since = kEndpointSlicesSince,
                     .page = kPage,
                     .most = kMostBackends},
                    spec.kubeconfig, "service:"),
      spec_(std::move(spec)) {}

std::string KubeWatcher::Title() const {
  return absl::StrCat("kubernetes ", spec_.service);
}

absl::Status KubeWatcher::OnListed(const nlohmann::json& object) {
  std::optional<EndpointSlice> slice = Read(object);
  if (!slice) {
    const EndpointSlice* const before = slices_.Find(object["metadata"]["name"].get<std::string>());
    if (before == nullptr) return absl::OkStatus();
    slice = *before;
  }
  if (slice->service != NameOfOurs()) return absl::OkStatus();
  return listed_.Put(*std::move(slice));
}

absl::Status KubeWatcher::OnListEnds(const Names& names) {
  slices_ = std::exchange(listed_, {});
  std::erase_if(broken_, [&](const auto& entry) {
    return !names.contains(absl::StrCat(spec_.service.substr(0, spec_.service.find('/')), "/", entry.first));
  });
  return Tell();
}

absl::Status KubeWatcher::OnChanged(const nlohmann::json& object) {
  if (std::optional<EndpointSlice> slice = Read(object)) {
    if (slice->service != NameOfOurs()) {
      slices_.Remove(slice->name);
    } else if (absl::Status status = slices_.Put(*std::move(slice)); !status.ok()) {
      return status;
    }
  }
  return Tell();
}

absl::Status KubeWatcher::OnDeleted(const nlohmann::json& object) {
  const std::string name = object["metadata"]["name"].get<std::string>();
  broken_.erase(name);
  slices_.Remove(name);
  return Tell();
}

std::optional<EndpointSlice> KubeWatcher::Read(const nlohmann::json& object) {
  const std::string name = object["metadata"]["name"].get<std::string>();
  absl::StatusOr<EndpointSlice> slice = ReadSlice(object);
  if (!slice.ok()) {
    if (broken_.size() < kMostBroken || broken_.contains(name))
      broken_[name] = std::string(slice.status().message());
    return std::nullopt;
  }
  broken_.erase(name);
  return *std::move(slice);
}

absl::Status KubeWatcher::Tell() {
  absl::StatusOr<EndpointSlices::Backends> backends = slices_.BackendsAt(spec_.port);
  if (backends.ok()) {
    told_ = backends->list;
    absl::Status missing = std::move(backends->missing);
    if (!broken_.empty()) {
      missing = absl::InvalidArgumentError(
          absl::StrCat(broken_.begin()->second,
                       broken_.size() == 1 ? "" : absl::StrCat(" (and ", broken_.size() - 1, " more)"),
                       ": what was said of it before counts"));
    }
    Found(std::move(backends->list), std::move(missing));
    return absl::OkStatus();
  }
  // The watch goes on: whoever mends this does it there.
  if (!told_) return backends.status();
  Found(*told_, backends.status());
  return absl::OkStatus();
}

}  // namespace shunt
