// SPDX-License-Identifier: Apache-2.0
#include "tools/kube_watcher.h"

#include "absl/strings/str_cat.h"

namespace shunt {

std::string KubeWatcher::Title() const {
  return absl::StrCat("kubernetes ", spec_.service);
}

absl::StatusOr<Watcher::Ask> KubeWatcher::Next() {
  return absl::UnimplementedError("kubernetes is not asked yet");
}

absl::Status KubeWatcher::OnLine(absl::string_view /*line*/) {
  return absl::OkStatus();
}

absl::Status KubeWatcher::OnAnswer(const HttpAnswer& /*answer*/) {
  return absl::OkStatus();
}

}  // namespace shunt
