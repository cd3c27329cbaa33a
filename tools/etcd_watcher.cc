// SPDX-License-Identifier: Apache-2.0
#include "tools/etcd_watcher.h"

#include "absl/strings/str_cat.h"

namespace shunt {

std::string EtcdWatcher::Title() const {
  return absl::StrCat("etcd ", spec_.endpoints[0], " ", spec_.prefix);
}

absl::StatusOr<Watcher::Ask> EtcdWatcher::Next() {
  return absl::UnimplementedError("etcd is not asked yet");
}

absl::Status EtcdWatcher::OnLine(absl::string_view /*line*/) {
  return absl::OkStatus();
}

absl::Status EtcdWatcher::OnAnswer(const HttpAnswer& /*answer*/) {
  return absl::OkStatus();
}

}  // namespace shunt
