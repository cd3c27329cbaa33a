// SPDX-License-Identifier: Apache-2.0
#include "tools/pod_identity.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/fd.h"

namespace shunt {
namespace {

using Annotations = std::map<std::string, std::string>;

constexpr size_t kContainerIdLength = 64;
constexpr absl::string_view kHexDigits = "0123456789abcdef";

// The first of `keys` that is there and not empty.
std::string FirstOf(const Annotations& annotations, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    if (const auto found = annotations.find(key); found != annotations.end() && !found->second.empty())
      return found->second;
  }
  return "";
}

std::optional<Annotations> LabelsOf(const Annotations& annotations) {
  using Json = nlohmann::json;
  const auto text = annotations.find("io.kubernetes.cri-o.Labels");
  if (text == annotations.end()) return std::nullopt;
  const Json json = Json::parse(text->second, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;
  Annotations labels;
  for (const auto& [key, value] : json.items()) {
    if (const auto* label = value.get_ptr<const std::string*>()) labels[key] = *label;
  }
  return labels;
}

bool IsHex(absl::string_view text) {
  return text.find_first_not_of(kHexDigits) == absl::string_view::npos;
}

// "8d6a3ee2-6d3b-4a3e-9b49-2f1c1f3a9b10", or the 32 digits of a pod that comes from a file of its node's.
bool IsPodUid(absl::string_view text) {
  constexpr size_t kGroups[] = {8, 4, 4, 4, 12};
  if (text.size() == 32 && IsHex(text)) return true;
  const std::vector<absl::string_view> groups = absl::StrSplit(text, '-');
  return std::equal(
      groups.begin(), groups.end(), std::begin(kGroups), std::end(kGroups),
      [](absl::string_view group, size_t size) { return group.size() == size && IsHex(group); });
}

// "pod8d6a3ee2-...", "kubepods-burstable-pod8d6a3ee2_....slice", with whatever behind a ":".
std::string PodUidIn(absl::string_view component) {
  component = component.substr(0, component.find(':'));
  absl::ConsumeSuffix(&component, ".slice");
  const size_t begin = component.rfind("pod");
  if (begin == absl::string_view::npos) return "";
  // systemd gives "-" a meaning of its own, so that its driver writes "_".
  std::string uid = absl::StrReplaceAll(component.substr(begin + 3), {{"_", "-"}});
  return IsPodUid(uid) ? uid : "";
}

// "ID", "cri-containerd-ID.scope", "kubepods-....slice:cri-containerd:ID".
std::string ContainerIdIn(absl::string_view component) {
  absl::ConsumeSuffix(&component, ".scope");
  if (component.size() < kContainerIdLength) return "";
  const absl::string_view id = component.substr(component.size() - kContainerIdLength);
  component.remove_suffix(kContainerIdLength);
  const bool whole = component.empty() || component.back() == '-' || component.back() == ':';
  return whole && IsHex(id) ? std::string(id) : "";
}

struct CloseFolder {
  void operator()(DIR* folder) const { closedir(folder); }
};

// The names in a folder; none if there is no such folder, or we may not look.
std::vector<std::string> NamesIn(const std::string& path) {
  const std::unique_ptr<DIR, CloseFolder> folder(opendir(path.c_str()));
  std::vector<std::string> names;
  while (folder != nullptr) {
    const dirent* entry = readdir(folder.get());
    if (entry == nullptr) break;
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  }
  return names;
}

}  // namespace

ContainerOrigin OriginFromAnnotations(const Annotations& annotations) {
  ContainerOrigin origin;
  origin.identity.pod_namespace =
      FirstOf(annotations, {"io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"});
  origin.identity.pod = FirstOf(annotations, {"io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"});
  origin.identity.container =
      FirstOf(annotations, {"io.kubernetes.cri.container-name", "io.kubernetes.container.name"});
  origin.pod_uid = FirstOf(annotations, {"io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"});
  origin.image = FirstOf(annotations, {"io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"});
  origin.labels = LabelsOf(annotations);
  return origin;
}

CgroupOrigin OriginFromCgroups(absl::string_view text) {
  CgroupOrigin origin;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    // HIERARCHY:CONTROLLERS:PATH, of which only the path can have further colons.
    const std::vector<absl::string_view> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    CgroupOrigin here;
    for (const absl::string_view component : absl::StrSplit(parts[2], '/')) {
      if (std::string uid = PodUidIn(component); !uid.empty()) here = {.pod_uid = std::move(uid)};
      if (std::string id = ContainerIdIn(component); !id.empty()) here.container_id = std::move(id);
    }
    // With both versions the container may sit in one tree only.
    if (origin.pod_uid.empty() && !here.pod_uid.empty()) origin = here;
    if (origin.container_id.empty()) origin.container_id = here.container_id;
  }
  return origin;
}

void AddCgroupOrigin(pid_t pid, ContainerOrigin& origin) {
  if (pid <= 0) return;
  const Fd file(open(absl::StrCat("/proc/", pid, "/cgroup").c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return;
  std::string text;
  std::array<char, 4096> chunk;
  for (ssize_t got; (got = read(file.get(), chunk.data(), chunk.size())) > 0;)
    text.append(chunk.data(), static_cast<size_t>(got));
  CgroupOrigin told = OriginFromCgroups(text);
  origin.container_id = std::move(told.container_id);
  if (origin.pod_uid.empty()) origin.pod_uid = std::move(told.pod_uid);
}

PodIdentity FindLoggedPod(const std::string& logs, absl::string_view pod_uid) {
  for (const std::string& name : NamesIn(logs)) {
    const std::vector<std::string> parts = absl::StrSplit(name, '_');
    if (parts.size() != 3 || parts[2] != pod_uid) continue;
    const std::vector<std::string> containers = NamesIn(absl::StrCat(logs, "/", name));
    return {parts[0], parts[1], containers.size() == 1 ? containers[0] : ""};
  }
  return {};
}

}  // namespace shunt
