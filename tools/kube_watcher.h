// SPDX-License-Identifier: Apache-2.0
// KubeWatcher: the backends of a Service of Kubernetes, by its EndpointSlices (discovery.k8s.io/v1).

#pragma once

#include "tools/watcher.h"

namespace shunt {

class KubeWatcher : public Watcher {
 public:
  explicit KubeWatcher(net::KubernetesSpec spec) : spec_(std::move(spec)) {}

  std::string Title() const override;
  absl::StatusOr<Ask> Next() override;
  absl::Status OnLine(absl::string_view line) override;
  absl::Status OnAnswer(const HttpAnswer& answer) override;

 private:
  const net::KubernetesSpec spec_;
};

}  // namespace shunt
