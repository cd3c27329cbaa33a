// SPDX-License-Identifier: Apache-2.0
// Reads YAML whose every key is known, so that a misspelt rule is not a missing rule, and so that each error
// names its file, line and key.

#pragma once

#include <yaml-cpp/yaml.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace shunt {

// How one key's value is read. The error says what would be right, without naming the key.
using ReadValue = std::function<absl::Status(const YAML::Node& value)>;
using Keys = std::map<std::string, ReadValue>;

// An error that has its place. Errors in values, which do not know theirs, have another code.
inline constexpr absl::StatusCode kPlaced = absl::StatusCode::kFailedPrecondition;

absl::Status At(const std::string& name, const YAML::Mark& mark, absl::string_view what);
absl::Status Should(absl::string_view be);

// Reads a text that is a mapping, or nothing at all. `name` is the file's. No exception gets out.
absl::Status ReadYaml(const std::string& text, const std::string& name, const Keys& keys);

// Reads a mapping whose keys are all in `keys`. `path` stands before the keys in messages: "" or "publish.".
absl::Status ReadMapping(const std::string& name, const std::string& path, const YAML::Node& mapping,
                         const Keys& keys);

// Reads a list, item by item. `path` stands before their numbers in messages: "services".
absl::Status ReadList(
    const std::string& name, const std::string& path, const YAML::Node& list,
    const std::function<absl::Status(const std::string& path, const YAML::Node& item)>& read);

absl::StatusOr<std::vector<std::string>> Texts(const YAML::Node& value);
absl::Status ReadBool(const YAML::Node& value, bool& result);

}  // namespace shunt
