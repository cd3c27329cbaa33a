// SPDX-License-Identifier: Apache-2.0
// EtcdWatcher: backends that etcd (v3) keeps, each as a key below a prefix.
//
//   /services/orders/a    192.168.7.11:8080
//   /services/orders/b    {address: 192.168.7.12:8080, weight: 3, zone: a}
//
// What a value may be is what an item of a list of backends may be (docs/services.md), as YAML or JSON.

#pragma once

#include "tools/watcher.h"

namespace shunt {

class EtcdWatcher : public Watcher {
 public:
  explicit EtcdWatcher(net::EtcdSpec spec) : spec_(std::move(spec)) {}

  std::string Title() const override;
  absl::StatusOr<Ask> Next() override;
  absl::Status OnLine(absl::string_view line) override;
  absl::Status OnAnswer(const HttpAnswer& answer) override;

 private:
  const net::EtcdSpec spec_;
};

}  // namespace shunt
