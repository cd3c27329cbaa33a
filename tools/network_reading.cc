// SPDX-License-Identifier: Apache-2.0
#include "tools/network_reading.h"

#include <cstdint>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "net/ip_address.h"
#include "tools/yaml_reading.h"

namespace shunt {

absl::StatusOr<uid_t> ParseUid(const std::string& text) {
  uint32_t uid = 0;
  // The highest number means "no user" to the kernel.
  if (absl::SimpleAtoi(text, &uid) && uid != UINT32_MAX) return uid;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" should be a user id, as `id -u NAME` prints it"));
}

absl::Status ReadUids(const YAML::Node& value, std::vector<uid_t>& uids) {
  const auto texts = Texts(value);
  if (!texts.ok()) return texts.status();
  for (const std::string& text : *texts) {
    const absl::StatusOr<uid_t> uid = ParseUid(text);
    if (!uid.ok()) return uid.status();
    uids.push_back(*uid);
  }
  return absl::OkStatus();
}

absl::Status AddSubnet(absl::string_view text, net::SubnetSet& set) {
  const auto subnet = net::ParseSubnet(text);
  if (!subnet.ok()) return subnet.status();
  if (!set.Add(*subnet)) {
    return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is one network too many: at most ",
                                                   net::SubnetSet::kCapacity, " can be ignored"));
  }
  return absl::OkStatus();
}

absl::Status ReadSubnets(const YAML::Node& value, net::SubnetSet& set) {
  const auto texts = Texts(value);
  if (!texts.ok()) return texts.status();
  for (const std::string& text : *texts) {
    if (absl::Status status = AddSubnet(text, set); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace shunt
