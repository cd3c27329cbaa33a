// SPDX-License-Identifier: Apache-2.0
// Teller: what a source has told its owner (net/discovery/source.h), so that it tells only what is new.

#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "net/balancer/service.h"
#include "net/discovery/source.h"

namespace shunt::net {

class Teller {
 public:
  explicit Teller(Source::Tell tell) : tell_(std::move(tell)) {}

  // `missing`: what could not be found besides, if anything.
  void Found(std::vector<BackendSpec> list, absl::Status missing = absl::OkStatus()) {
    if (list != list_ || (missing.ok() && failing())) {
      failure_ = absl::OkStatus();
      list_ = std::move(list);
      tell_(*list_);
    }
    if (!missing.ok()) Failed(std::move(missing));
  }

  void Failed(absl::Status why) {
    if (why == failure_) return;
    failure_ = std::move(why);
    tell_(failure_);
  }

  // The last that was told is an error.
  bool failing() const { return !failure_.ok(); }

 private:
  const Source::Tell tell_;
  std::optional<std::vector<BackendSpec>> list_;
  absl::Status failure_;
};

}  // namespace shunt::net
