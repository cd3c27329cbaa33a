// SPDX-License-Identifier: Apache-2.0
#include "tools/kube_reading.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/harmless.h"
#include "tools/json_reading.h"

namespace shunt {
namespace {

using Json = nlohmann::json;

std::string KubeVersionIn(const Json& json) {
  return NeededWordIn(NeededIn(json, "metadata", Json::value_t::object), "resourceVersion");
}

void NeedsName(const Json& object) {
  const Json& metadata = NeededIn(object, "metadata", Json::value_t::object);
  NeededWordIn(metadata, "name");
  for (const char* name : {"name", "namespace"}) {
    const auto word = metadata.find(name);
    if (word == metadata.end() || !word->is_string()) continue;
    if (word->get_ref<const std::string&>().size() > kLongestName)
      throw NotAsTheApi{absl::StrCat(name, " has more than ", kLongestName, " bytes")};
  }
}

Json KubeObjectIn(absl::string_view text) {
  Json json = JsonFrom({text.data(), text.size()});
  if (!json.is_object()) throw NotAsTheApi{"it is no JSON object"};
  return json;
}

absl::Status Unexpected(absl::string_view what, const KubeKind& kind, const std::string& why) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, " is not what the API server says of ", kind.kind, "s: ", why));
}

}  // namespace

absl::StatusOr<KubePage> ReadKubePage(absl::string_view text, const KubeKind& kind) try {
  Json json = KubeObjectIn(text);
  const std::string list = absl::StrCat(kind.kind, "List");
  if (WordIn(json, "kind") != list) throw NotAsTheApi{absl::StrCat("its kind is no ", list)};
  KubePage page;
  page.version = KubeVersionIn(json);
  page.next = WordIn(json["metadata"], "continue");
  ForEachObject(json, "items", NeedsName);
  if (const auto items = json.find("items"); items != json.end() && items->is_array()) {
    page.objects = std::move(items->get_ref<Json::array_t&>());
  }
  return page;
} catch (const NotAsTheApi& wrong) {
  return Unexpected("the list", kind, wrong.what);
}

absl::StatusOr<KubeEvent> ReadKubeEvent(absl::string_view text, const KubeKind& kind) try {
  Json json = KubeObjectIn(text);
  const std::string type = WordIn(json, "type");
  NeededIn(json, "object", Json::value_t::object);
  Json& object = json["object"];
  KubeEvent event;
  if (type == "ERROR") {
    event.what = KubeEvent::What::kError;
    if (const Json* const code = FieldOf(object, "code", Json::value_t::number_unsigned))
      event.code = code->get<int64_t>();
    event.message = Shortened(WordIn(object, "message"), kLongestMention);
    return event;
  }
  if (WordIn(object, "kind") != kind.kind)
    throw NotAsTheApi{absl::StrCat("the object's kind is no ", kind.kind)};
  event.version = KubeVersionIn(object);
  if (type == "BOOKMARK") return event;
  NeedsName(object);
  if (type == "DELETED") {
    event.what = KubeEvent::What::kDeleted;
  } else if (type == "ADDED" || type == "MODIFIED") {
    event.what = KubeEvent::What::kChanged;
  } else {
    throw NotAsTheApi{absl::StrCat("its type is \"", Shortened(type, kLongestMention), "\"")};
  }
  event.object = std::move(object);
  return event;
} catch (const NotAsTheApi& wrong) {
  return Unexpected("a line of the watch", kind, wrong.what);
}

std::string KubeNameOf(const Json& object) {
  const Json& metadata = object["metadata"];
  const auto space = metadata.find("namespace");
  const bool named = space != metadata.end() && space->is_string();
  return absl::StrCat(named ? space->get<std::string>() : "", "/", metadata["name"].get<std::string>());
}

// ---- for readers of objects

const Json* FieldOf(const Json& object, const char* name, Json::value_t type) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return nullptr;
  if (found->type() != type) throw NotAsTheApi{absl::StrCat(name, " is no ", Json(type).type_name())};
  return &*found;
}

const Json& NeededIn(const Json& object, const char* name, Json::value_t type) {
  const Json* const found = FieldOf(object, name, type);
  if (found == nullptr) throw NotAsTheApi{absl::StrCat(name, " is missing")};
  return *found;
}

std::string WordIn(const Json& object, const char* name) {
  const Json* const found = FieldOf(object, name, Json::value_t::string);
  return found == nullptr ? "" : found->get<std::string>();
}

std::string NeededWordIn(const Json& object, const char* name) {
  std::string word = WordIn(object, name);
  if (word.empty()) throw NotAsTheApi{absl::StrCat(name, " is missing")};
  return word;
}

bool FlagIn(const Json& object, const char* name, bool otherwise) {
  const Json* const found = FieldOf(object, name, Json::value_t::boolean);
  return found == nullptr ? otherwise : found->get<bool>();
}

uint16_t PortNumberIn(const Json& object, const char* name) {
  const Json* const number = FieldOf(object, name, Json::value_t::number_unsigned);
  if (number == nullptr) return 0;
  const auto value = number->get<uint64_t>();
  if (value == 0 || value > std::numeric_limits<uint16_t>::max())
    throw NotAsTheApi{absl::StrCat("there is no port ", value)};
  return static_cast<uint16_t>(value);
}

}  // namespace shunt
