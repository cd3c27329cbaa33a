// SPDX-License-Identifier: Apache-2.0
// Settings: what a container's profile says in its listenerMetadata about the handling of its calls, and the
// policy that comes of it.
//
// The keys are those of the Kinvolk seccomp agent and of the OCI specification's example, and some of our
// own; docs/man/shunt-agent.1 lists them. The agent's configuration says the same in its own spelling
// (tools/container_rule.h), and is read by the same readers.

#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "handlers/policy.h"
#include "tools/pod_template.h"

namespace shunt {

struct Setting {
  std::string key;
  std::string value;
  friend bool operator==(const Setting&, const Setting&) = default;
};

// Takes `metadata` apart: items end at a line's end, or at a ";" if there is no line's end at all; key and
// value part at the first "="; an item without "=" is a key with an empty value, one that begins with "=" is
// nothing. Blanks count. Items for "shunt." are left out: tools/agent_config.h reads them.
std::vector<Setting> SplitMetadata(absl::string_view metadata);

// Who the settings are obeyed for.
struct SettingContext {
  PodContext pod;
  // What comes under the filter is the container's own beginning, not something executed in it later.
  bool begins = true;
};

// Puts what the settings say into `policy`. Of several with one key the last one counts. Returns what is
// wrong with them, "KEY: what would be right", one text for each mistake; what is wrong has no effect.
std::vector<std::string> Obey(const std::vector<Setting>& settings, const SettingContext& context,
                              Policy& policy);

// How the configuration spells a key and its value.
enum class SettingForm : uint8_t { kText, kBool, kList, kMapping };
struct SettingKey {
  const char* key;
  const char* in_configuration;
  SettingForm form;
  const char* gives;                 // for people: what it does
  const char* other_half = nullptr;  // the key without which it means nothing
};
const std::vector<SettingKey>& SettingKeys();

// Those of the settings that mean nothing unless somebody else gives the other half.
std::vector<SettingKey> LoneHalves(const std::vector<Setting>& settings);

}  // namespace shunt
