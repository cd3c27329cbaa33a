// SPDX-License-Identifier: Apache-2.0
#include "tools/pod_record.h"

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/json_reading.h"

namespace shunt {
namespace {

using Json = nlohmann::json;
using Texts = std::map<std::string, std::string>;

Texts TextsOf(const Json& json, const char* name) {
  Texts texts;
  if (const Json* const map = JsonMember(json, name, Json::value_t::object)) {
    for (const auto& [key, value] : map->items()) {
      if (value.is_string()) texts[key] = value.get<std::string>();
    }
  }
  return texts;
}

template <typename Visit>
void ForEachIn(const Json& json, std::initializer_list<const char*> lists, const Visit& visit) {
  for (const char* list : lists) {
    const Json* const items = JsonMember(json, list, Json::value_t::array);
    if (items == nullptr) continue;
    for (const Json& item : *items) {
      if (item.is_object()) visit(item);
    }
  }
}

// "containerd://ID"
std::string WithoutScheme(const std::string& id) {
  const size_t scheme = id.find("://");
  return scheme == std::string::npos ? "" : id.substr(scheme + 3);
}

std::vector<PodRecord::OfContainer> ContainersOf(const Json& pod) {
  std::vector<PodRecord::OfContainer> containers;
  if (const Json* const spec = JsonMember(pod, "spec", Json::value_t::object)) {
    ForEachIn(*spec, {"containers", "initContainers", "ephemeralContainers"}, [&](const Json& one) {
      containers.push_back({.name = JsonText(one, "name"), .image = JsonText(one, "image")});
    });
  }
  if (const Json* const status = JsonMember(pod, "status", Json::value_t::object)) {
    ForEachIn(*status, {"containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"},
              [&](const Json& one) {
                const std::string name = JsonText(one, "name");
                for (PodRecord::OfContainer& container : containers) {
                  if (container.name == name) container.id = WithoutScheme(JsonText(one, "containerID"));
                }
              });
  }
  return containers;
}

bool Answers(const PodRecord& record, const PodQuery& query) {
  if (record.pod_namespace.empty() || record.pod.empty() || record.uid.empty()) return false;
  if (query.has_names() && (record.pod_namespace != query.pod_namespace || record.pod != query.pod))
    return false;
  return query.uid.empty() ? query.has_names() : record.uid == query.uid || record.mirror_of == query.uid;
}

// Everything but the containers, which only the right one is looked through for.
PodRecord MetadataOf(const Json& pod) {
  PodRecord record;
  const Json* const metadata = JsonMember(pod, "metadata", Json::value_t::object);
  if (metadata == nullptr) return record;
  record.pod_namespace = JsonText(*metadata, "namespace");
  record.pod = JsonText(*metadata, "name");
  record.uid = JsonText(*metadata, "uid");
  record.annotations = TextsOf(*metadata, "annotations");
  record.labels = TextsOf(*metadata, "labels");
  if (const auto mirror = record.annotations.find("kubernetes.io/config.mirror");
      mirror != record.annotations.end())
    record.mirror_of = mirror->second;
  return record;
}

}  // namespace

std::string PodQuery::ToString() const {
  if (!has_names()) return absl::StrCat("with uid ", uid);
  return absl::StrCat(pod_namespace, "/", pod, uid.empty() ? "" : absl::StrCat(" (uid ", uid, ")"));
}

bool IsPodName(absl::string_view name) {
  constexpr size_t kLongest = 253;
  constexpr absl::string_view kLetters = "abcdefghijklmnopqrstuvwxyz0123456789-.";
  return !name.empty() && name.size() <= kLongest &&
         name.find_first_not_of(kLetters) == absl::string_view::npos && name.front() != '.' &&
         name.front() != '-' && name.back() != '.' && name.back() != '-';
}

absl::StatusOr<PodRecord> ReadPod(absl::string_view json, const PodQuery& query) {
  const Json answer = JsonFrom({json.data(), json.size()});
  if (!answer.is_object()) return absl::InvalidArgumentError("the answer is no JSON object");
  const std::string kind = JsonText(answer, "kind");
  if (kind == "Pod") {
    PodRecord record = MetadataOf(answer);
    if (record.uid.empty()) return absl::InvalidArgumentError("the answer is a pod without uid");
    if (!Answers(record, query))
      return absl::NotFoundError(absl::StrCat("that pod is another one now, with uid ", record.uid));
    record.containers = ContainersOf(answer);
    return record;
  }
  const Json* const items = JsonMember(answer, "items", Json::value_t::array);
  if (kind != "PodList" || items == nullptr)
    return absl::InvalidArgumentError("the answer is neither a pod nor a list of pods");
  for (const Json& item : *items) {
    if (!item.is_object()) continue;
    PodRecord record = MetadataOf(item);
    if (!Answers(record, query)) continue;
    record.containers = ContainersOf(item);
    return record;
  }
  return absl::NotFoundError("no pod of this node is that one");
}

std::string RefusalIn(absl::string_view json) {
  const Json answer = JsonFrom({json.data(), json.size()});
  return answer.is_object() && JsonText(answer, "kind") == "Status" ? JsonText(answer, "message") : "";
}

void AddRecord(const PodRecord& record, absl::string_view id, ContainerOrigin& origin) {
  PodIdentity& identity = origin.identity;
  if (identity.pod_namespace.empty()) identity.pod_namespace = record.pod_namespace;
  if (identity.pod.empty()) identity.pod = record.pod;
  if (origin.pod_uid.empty()) origin.pod_uid = record.mirror_of.empty() ? record.uid : record.mirror_of;
  const auto& all = record.containers;
  if (identity.container.empty()) {
    const auto same_id = [&id](const auto& one) { return !id.empty() && one.id == id; };
    auto found = std::find_if(all.begin(), all.end(), same_id);
    if (found == all.end() && all.size() == 1) found = all.begin();
    if (found != all.end()) identity.container = found->name;
  }
  const auto found = std::find_if(all.begin(), all.end(),
                                  [&identity](const auto& one) { return one.name == identity.container; });
  if (origin.image.empty() && found != all.end()) origin.image = found->image;
  if (!origin.labels) origin.labels.emplace();
  origin.labels->insert(record.labels.begin(), record.labels.end());
}

}  // namespace shunt
