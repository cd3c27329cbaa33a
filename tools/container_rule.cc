// SPDX-License-Identifier: Apache-2.0
#include "tools/container_rule.h"

#include <fnmatch.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tools/network_reading.h"
#include "tools/yaml_reading.h"

namespace shunt {
namespace {

using Patterns = Selection::Patterns;

bool Fits(const Patterns& patterns, const std::string& text) {
  if (patterns.empty()) return true;
  // A pattern sees a text up to its first NUL: what has one is nothing that an operator meant.
  if (text.empty() || text.find('\0') != std::string::npos) return false;
  return std::any_of(patterns.begin(), patterns.end(), [&text](const std::string& pattern) {
    return fnmatch(pattern.c_str(), text.c_str(), 0) == 0;
  });
}

bool AllFit(const std::map<std::string, Patterns>& wanted, const std::map<std::string, std::string>& texts) {
  return std::all_of(wanted.begin(), wanted.end(), [&texts](const auto& one) {
    const auto found = texts.find(one.first);
    return found != texts.end() && Fits(one.second, found->second);
  });
}

// ---- the YAML

absl::Status ReadPatterns(const YAML::Node& value, Patterns& patterns) {
  if (value.IsScalar()) {
    patterns = {value.Scalar()};
  } else if (absl::StatusOr<std::vector<std::string>> texts = Texts(value); texts.ok() && !texts->empty()) {
    patterns = *std::move(texts);
  } else {
    return Should("a pattern, or a list of patterns");
  }
  const bool empty = std::any_of(patterns.begin(), patterns.end(), [](const std::string& pattern) {
    return pattern.empty() || pattern.find('\0') != std::string::npos;
  });
  return empty ? Should("patterns that are not empty (nothing is what an unknown name would be)")
               : absl::OkStatus();
}

absl::Status ReadPatternsByKey(const YAML::Node& value, std::map<std::string, Patterns>& by_key) {
  if (!value.IsMap() || value.size() == 0) return Should("a mapping of keys to patterns");
  for (const auto& entry : value) {
    if (!entry.first.IsScalar()) return Should("a mapping of keys to patterns");
    if (by_key.count(entry.first.Scalar()) != 0)
      return absl::InvalidArgumentError(absl::StrCat("\"", entry.first.Scalar(), "\" is there twice"));
    if (absl::Status status = ReadPatterns(entry.second, by_key[entry.first.Scalar()]); !status.ok())
      return absl::InvalidArgumentError(absl::StrCat("\"", entry.first.Scalar(), "\": ", status.message()));
  }
  return absl::OkStatus();
}

absl::Status ReadSelection(const std::string& name, const YAML::Node& value, Selection& selection) {
  const auto patterns = [](Patterns& into) -> ReadValue {
    return [&into](const YAML::Node& node) { return ReadPatterns(node, into); };
  };
  const auto by_key = [](std::map<std::string, Patterns>& into) -> ReadValue {
    return [&into](const YAML::Node& node) { return ReadPatternsByKey(node, into); };
  };
  const auto uids = [&selection](const YAML::Node& node) {
    absl::Status status = ReadUids(node, selection.uids);
    return status.ok() && selection.uids.empty() ? Should("a list of user ids") : status;
  };
  return ReadMapping(name, "containers.select.", value,
                     {{"namespace", patterns(selection.pod_namespace)},
                      {"pod", patterns(selection.pod)},
                      {"container", patterns(selection.container)},
                      {"image", patterns(selection.image)},
                      {"id", patterns(selection.id)},
                      {"uid", uids},
                      {"annotations", by_key(selection.annotations)},
                      {"labels", by_key(selection.labels)}});
}

// The value as listenerMetadata would have it.
absl::StatusOr<std::string> MetadataValue(const YAML::Node& value, SettingForm form) {
  std::vector<std::string> items;
  switch (form) {
    case SettingForm::kText:
      if (!value.IsScalar()) return Should("a text");
      return value.Scalar();
    case SettingForm::kBool: {
      bool flag = false;
      if (absl::Status status = ReadBool(value, flag); !status.ok()) return status;
      return value.Scalar();
    }
    case SettingForm::kList: {
      absl::StatusOr<std::vector<std::string>> texts = Texts(value);
      if (!texts.ok()) return texts.status();
      items = *std::move(texts);
      break;
    }
    case SettingForm::kMapping:
      if (!value.IsMap()) return Should("a mapping, {chmod: EBADMSG}");
      for (const auto& entry : value) {
        if (!entry.first.IsScalar() || !entry.second.IsScalar()) return Should("a mapping, {chmod: EBADMSG}");
        items.push_back(absl::StrCat(entry.first.Scalar(), ":", entry.second.Scalar()));
      }
  }
  for (const std::string& item : items) {
    if (item.empty() || item.find(',') != std::string::npos)
      return Should("items that are not empty and hold no comma");
  }
  return absl::StrJoin(items, ",");
}

// Halves of a pair may be in the rule and in the metadata, but the value itself has to be right.
absl::Status TryAlone(const SettingKey& key, const Setting& setting) {
  std::vector<Setting> settings = {setting};
  if (key.other_half != nullptr) settings.push_back({key.other_half, "0"});  // right for each
  Policy ignored;
  for (const std::string& mistake : Obey(settings, {}, ignored)) {
    if (absl::StartsWith(mistake, setting.key + ": "))
      return absl::InvalidArgumentError(mistake.substr(setting.key.size() + 2));
  }
  return absl::OkStatus();
}

absl::Status ReadSettings(const std::string& name, const YAML::Node& value, std::vector<Setting>& settings) {
  Keys keys;
  for (const SettingKey& key : SettingKeys()) {
    keys[key.in_configuration] = [&settings, &key](const YAML::Node& node) {
      absl::StatusOr<std::string> text = MetadataValue(node, key.form);
      if (!text.ok()) return text.status();
      settings.push_back({key.key, *std::move(text)});
      return TryAlone(key, settings.back());
    };
  }
  return ReadMapping(name, "containers.handlers.", value, keys);
}

absl::Status ReadPublishList(const YAML::Node& value, std::vector<net::Publish>& publish) {
  const absl::StatusOr<std::vector<std::string>> texts = Texts(value);
  if (!texts.ok()) return texts.status();
  for (const std::string& text : *texts) {
    absl::StatusOr<net::Publish> port = net::ParsePublish(text);
    if (!port.ok()) return port.status();
    publish.push_back(*port);
  }
  return net::CheckPublishList(publish);
}

std::string InConfiguration(absl::string_view setting) {
  const std::vector<SettingKey>& keys = SettingKeys();
  return std::find_if(keys.begin(), keys.end(), [&](const SettingKey& key) { return key.key == setting; })
      ->in_configuration;
}

absl::Status ReadRule(const std::string& name, const YAML::Node& value, ContainerRule& rule) {
  rule.line = value.Mark().line + 1;
  absl::Status status = ReadMapping(
      name, "containers.", value,
      {{"name",
        [&](const YAML::Node& node) {
          if (!node.IsScalar() || node.Scalar().empty()) return Should("a name");
          rule.name = node.Scalar();
          return absl::OkStatus();
        }},
       {"select", [&](const YAML::Node& node) { return ReadSelection(name, node, rule.selection); }},
       {"handlers", [&](const YAML::Node& node) { return ReadSettings(name, node, rule.settings); }},
       {"metadata", [&](const YAML::Node& node) { return ReadBool(node, rule.metadata); }},
       {"ignore", [&](const YAML::Node& node) { return ReadSubnets(node, rule.ignore); }},
       {"publish", [&](const YAML::Node& node) { return ReadPublishList(node, rule.publish); }}});
  if (!status.ok() || rule.metadata) return status;
  for (const SettingKey& half : LoneHalves(rule.settings)) {
    return At(name, value["handlers"][half.in_configuration].Mark(),
              absl::StrCat("\"containers.handlers.", half.in_configuration, "\": means nothing without ",
                           InConfiguration(half.other_half),
                           ", which the metadata may not give either (metadata: false)"));
  }
  return absl::OkStatus();
}

}  // namespace

bool Selection::Selects(const Candidate& candidate) const {
  const ContainerOrigin& origin = candidate.origin;
  static const std::map<std::string, std::string> kNone;
  return Fits(pod_namespace, origin.identity.pod_namespace) && Fits(pod, origin.identity.pod) &&
         Fits(container, origin.identity.container) && Fits(image, origin.image) &&
         Fits(id, candidate.state.id) &&
         (uids.empty() || std::find(uids.begin(), uids.end(), candidate.uid) != uids.end()) &&
         AllFit(annotations, candidate.state.annotations) &&
         AllFit(labels, origin.labels ? *origin.labels : kNone);
}

std::string ContainerRule::Title() const {
  return name.empty() ? absl::StrCat("of line ", line) : name;
}

const ContainerRule* RuleFor(const std::vector<ContainerRule>& rules, const Candidate& candidate) {
  const auto found = std::find_if(rules.begin(), rules.end(), [&candidate](const ContainerRule& rule) {
    return rule.selection.Selects(candidate);
  });
  return found == rules.end() ? nullptr : &*found;
}

absl::Status ReadContainerRules(const std::string& name, const YAML::Node& value,
                                std::vector<ContainerRule>& rules) {
  if (!value.IsSequence()) return Should("a list of rules");
  for (const auto& item : value) {
    absl::Status status = ReadRule(name, item, rules.emplace_back());
    if (status.ok()) continue;
    return status.code() == kPlaced ? status : At(name, item.Mark(), status.message());
  }
  return absl::OkStatus();
}

}  // namespace shunt
