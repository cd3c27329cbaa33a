// SPDX-License-Identifier: Apache-2.0
// Errnos by the names that errno.h gives them.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace shunt {

// "EACCES", or a number from 1 to 4095.
absl::StatusOr<int> ParseErrno(absl::string_view text);
// "EACCES"; the number if it has no name.
std::string ErrnoName(int error);

}  // namespace shunt
