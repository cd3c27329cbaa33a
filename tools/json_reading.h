// SPDX-License-Identifier: Apache-2.0
// Reading JSON that others have written: members that are not there, or are something else, are as if they
// were empty. Nothing here throws for what it reads.

#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace shunt {

// What it takes to keep JSON is in proportion to its values, up to a hundred times its text: so much may come
// from elsewhere, which is some hundred megabytes; a page of 500 long objects has a hundredth.
inline constexpr size_t kMostJsonValues = 4'000'000, kDeepestJson = 64;

// Whether `text`, if it is JSON, is within these bounds. Without keeping any of it.
inline bool JsonIsBounded(std::string_view text) {
  size_t values = 0, depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kDeepestJson || ++values > kMostJsonValues) return false;
    } else if (c == ',') {
      if (++values > kMostJsonValues) return false;
    } else if (c == ']' || c == '}') {
      depth -= depth > 0 ? 1 : 0;
    }
  }
  return true;
}

// Of somebody else's; discarded if it is no JSON, or beyond the bounds.
inline nlohmann::json JsonFrom(std::string_view text) {
  if (!JsonIsBounded(text)) return nlohmann::json(nlohmann::json::value_t::discarded);
  return nlohmann::json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
}

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
