// SPDX-License-Identifier: Apache-2.0
// Reading JSON that others have written: members that are not there, or are something else, are as if they
// were empty. Nothing here throws for what it reads.

#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace shunt {

// The member if it is there and has the type; else nullptr. `json` may be anything.
inline const nlohmann::json* JsonMember(const nlohmann::json& json, const char* name,
                                        nlohmann::json::value_t type) {
  if (!json.is_object()) return nullptr;
  const auto found = json.find(name);
  return found != json.end() && found->type() == type ? &*found : nullptr;
}

inline std::string JsonText(const nlohmann::json& json, const char* name) {
  const nlohmann::json* const text = JsonMember(json, name, nlohmann::json::value_t::string);
  return text == nullptr ? "" : text->get<std::string>();
}

}  // namespace shunt
