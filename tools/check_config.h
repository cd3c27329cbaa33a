// SPDX-License-Identifier: Apache-2.0
// `shunt agent --check-config FILE`: what each line of a configuration means, which containers each rule can
// see and which it cannot, or what is wrong with the file.

#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace shunt {

// The explanation of a configuration, "NAME:LINE: ..." in each line of it. The error is ParseAgentConfig()'s.
absl::StatusOr<std::string> ExplainConfig(const std::string& text, const std::string& name);

// Prints it. Returns the exit status: 0, or 2 if the file is wrong.
int CheckConfig(const std::string& path);

}  // namespace shunt
