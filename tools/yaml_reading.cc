// SPDX-License-Identifier: Apache-2.0
#include "tools/yaml_reading.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace shunt {

absl::Status At(const std::string& name, const YAML::Mark& mark, absl::string_view what) {
  if (mark.is_null()) return {kPlaced, absl::StrCat(name, ": ", what)};
  return {kPlaced, absl::StrCat(name, ":", mark.line + 1, ": ", what)};
}

absl::Status Should(absl::string_view be) {
  return absl::InvalidArgumentError(absl::StrCat("should be ", be));
}

absl::Status ReadMapping(const std::string& name, const std::string& path, const YAML::Node& mapping,
                         const Keys& keys) {
  if (!mapping.IsMap()) return Should("a mapping of keys to values");
  std::set<std::string> seen;
  for (const auto& entry : mapping) {
    const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "?";
    const auto found = keys.find(key);
    if (found == keys.end()) {
      std::vector<std::string> known;
      for (const auto& [known_key, read] : keys) known.push_back(known_key);
      return At(name, entry.first.Mark(),
                absl::StrCat("unknown key \"", path, key, "\": known are ", absl::StrJoin(known, ", ")));
    }
    if (!seen.insert(key).second)
      return At(name, entry.first.Mark(), absl::StrCat("\"", path, key, "\" is there twice"));
    absl::Status status = found->second(entry.second);
    if (status.ok()) continue;
    if (status.code() == kPlaced) return status;
    return At(name, entry.second.Mark(), absl::StrCat("\"", path, key, "\": ", status.message()));
  }
  return absl::OkStatus();
}

absl::Status ReadList(
    const std::string& name, const std::string& path, const YAML::Node& list,
    const std::function<absl::Status(const std::string& path, const YAML::Node& item)>& read) {
  if (!list.IsSequence()) return Should("a list");
  size_t index = 0;
  for (const auto& item : list) {
    const std::string item_path = absl::StrCat(path, "[", index++, "]");
    const absl::Status status = read(item_path, item);
    if (status.ok()) continue;
    if (status.code() == kPlaced) return status;
    return At(name, item.Mark(), absl::StrCat("\"", item_path, "\": ", status.message()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> Texts(const YAML::Node& value) {
  std::vector<std::string> texts;
  if (!value.IsSequence()) return Should("a list, [...]");
  for (const auto& item : value) {
    if (!item.IsScalar()) return Should("a list of plain values");
    texts.push_back(item.Scalar());
  }
  return texts;
}

absl::Status ReadBool(const YAML::Node& value, bool& result) {
  if (!value.IsScalar() || (value.Scalar() != "true" && value.Scalar() != "false"))
    return Should("true or false");
  result = value.Scalar() == "true";
  return absl::OkStatus();
}

absl::Status ReadYaml(const std::string& text, const std::string& name, const Keys& keys) try {
  const YAML::Node root = YAML::Load(text);
  if (root.IsNull()) return absl::OkStatus();  // an empty file, or only comments
  const absl::Status status = ReadMapping(name, "", root, keys);
  if (status.ok() || status.code() == kPlaced) return status;
  return At(name, root.Mark(), status.message());
} catch (const YAML::Exception& error) {
  return At(name, error.mark, error.msg);
}

}  // namespace shunt
