// SPDX-License-Identifier: Apache-2.0
// A duration as Go's time.ParseDuration reads it: "300ms", "-1.5h", "2h45m", "0". Units are ns, us (or µs
// with either of the two letters that look so), ms, s, m and h.

#pragma once

#include <chrono>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace shunt {

absl::StatusOr<std::chrono::nanoseconds> ParseGoDuration(absl::string_view text);

}  // namespace shunt
