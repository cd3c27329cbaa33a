// SPDX-License-Identifier: Apache-2.0
// What an API server answers to a list or a watch, whatever the objects are, and single values in these.
// Pure.
//
// A text that is not what the API says is an error as a whole. What is wrong within one object concerns that
// one alone, and is found out by who reads it.

#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace shunt {

// A kind of objects: {"EndpointSlice", "endpointslices", "discovery.k8s.io/v1"}.
struct KubeKind {
  const char* kind;
  const char* plural;
  const char* version;  // of the API, with its group; the core's is "v1"
};

// A page of a list. Each object has metadata with a name.
struct KubePage {
  std::vector<nlohmann::json> objects;
  std::string version;  // the resourceVersion
  std::string next;     // what the next page is asked for with; empty: there is none
};

// A line of a watch.
struct KubeEvent {
  enum class What : uint8_t { kChanged, kDeleted, kBookmark, kError };
  What what = What::kBookmark;
  nlohmann::json object;  // of kChanged and kDeleted, with a name
  std::string version;    // but of an error
  int64_t code = 0;       // of an error
  std::string message;    // of an error
};

absl::StatusOr<KubePage> ReadKubePage(absl::string_view text, const KubeKind& kind);
absl::StatusOr<KubeEvent> ReadKubeEvent(absl::string_view text, const KubeKind& kind);

// "NAMESPACE/NAME" of an object of those, or "/NAME".
std::string KubeNameOf(const nlohmann::json& object);

// ---- for readers of objects

// What an object is that is not as the API has it. Gets no further than its reader.
struct NotAsTheApi {
  std::string what;
};

inline constexpr size_t kLongestName = 253;     // that the API has
inline constexpr size_t kLongestMention = 300;  // of a text of the server's, in a message

// Nothing: it is not there, or null, which is the same to the API.
const nlohmann::json* FieldOf(const nlohmann::json& object, const char* name, nlohmann::json::value_t type);
const nlohmann::json& NeededIn(const nlohmann::json& object, const char* name, nlohmann::json::value_t type);
// "" if it is not there.
std::string WordIn(const nlohmann::json& object, const char* name);
std::string NeededWordIn(const nlohmann::json& object, const char* name);
bool FlagIn(const nlohmann::json& object, const char* name, bool otherwise);
// 0 if it is not there.
uint16_t PortNumberIn(const nlohmann::json& object, const char* name);

template <typename Visit>
void ForEachObject(const nlohmann::json& object, const char* list, const Visit& visit) {
  const nlohmann::json* const items = FieldOf(object, list, nlohmann::json::value_t::array);
  if (items == nullptr) return;
  for (const nlohmann::json& item : *items) {
    if (!item.is_object()) throw NotAsTheApi{absl::StrCat(list, " has something else than objects")};
    visit(item);
  }
}

}  // namespace shunt
