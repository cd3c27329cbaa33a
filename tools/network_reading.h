// SPDX-License-Identifier: Apache-2.0
// Users and networks in the agent's configuration and in containers' wishes.

#pragma once

#include <sys/types.h>
#include <yaml-cpp/yaml.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "net/subnet_set.h"

namespace shunt {

// The error says what would be right.
absl::StatusOr<uid_t> ParseUid(const std::string& text);
absl::Status ReadUids(const YAML::Node& value, std::vector<uid_t>& uids);
absl::Status AddSubnet(absl::string_view text, net::SubnetSet& set);
absl::Status ReadSubnets(const YAML::Node& value, net::SubnetSet& set);

}  // namespace shunt
