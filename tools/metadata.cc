// SPDX-License-Identifier: Apache-2.0
#include "tools/metadata.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/filter.h"
#include "tools/errno_name.h"
#include "tools/go_duration.h"

namespace shunt {
namespace {

using std::chrono::nanoseconds;

// A path of the kernel's is shorter than this, so nothing longer can be appended to one.
constexpr size_t kLongestPath = 4096;
// So that a delay can be added to any clock.
constexpr nanoseconds kLongestDelay = std::chrono::hours(365 * 24);

// Of linux/bpf.h, in lower case and without their prefix.
constexpr absl::string_view kBpfMapTypes[] = {"hash",
                                              "array",
                                              "prog_array",
                                              "perf_event_array",
                                              "percpu_hash",
                                              "percpu_array",
                                              "stack_trace",
                                              "cgroup_array",
                                              "lru_hash",
                                              "lru_percpu_hash",
                                              "lpm_trie",
                                              "array_of_maps",
                                              "hash_of_maps",
                                              "devmap",
                                              "sockmap",
                                              "cpumap",
                                              "xskmap",
                                              "sockhash",
                                              "cgroup_storage",
                                              "reuseport_sockarray",
                                              "percpu_cgroup_storage",
                                              "queue",
                                              "stack",
                                              "sk_storage",
                                              "devmap_hash",
                                              "struct_ops",
                                              "ringbuf",
                                              "inode_storage",
                                              "task_storage",
                                              "bloom_filter",
                                              "user_ringbuf",
                                              "cgrp_storage",
                                              "arena"};

// Settings in the course of being read: some mean something only together.
struct Reading {
  const SettingContext& context;
  Policy& policy;
  std::vector<std::string> mistakes = {};
  absl::string_view key = {};  // the one that is being read
  std::optional<std::string> exec_pattern = {};
  std::optional<nanoseconds> exec_delay = {};
  std::optional<std::vector<std::string>> sidecars = {};
  std::optional<nanoseconds> start_delay = {};

  void Wrong(absl::string_view what) { mistakes.push_back(absl::StrCat(key, ": ", what)); }
};

std::vector<std::string> ListOf(absl::string_view value) {
  return absl::StrSplit(value, ',', absl::SkipEmpty());
}

void ReadFlag(absl::string_view value, bool& flag, Reading& reading) {
  if (value == "true" || value == "false") {
    flag = value == "true";
  } else {
    reading.Wrong(absl::StrCat("\"", value, "\" should be true or false"));
  }
}

void ReadDelay(absl::string_view value, std::optional<nanoseconds>& delay, Reading& reading) {
  const absl::StatusOr<nanoseconds> parsed = ParseGoDuration(value);
  if (!parsed.ok()) return reading.Wrong(parsed.status().message());
  if (*parsed < nanoseconds(0) || *parsed > kLongestDelay)
    return reading.Wrong(absl::StrCat("\"", value, "\" should be a delay from 0 to 8760h"));
  delay = *parsed;
}

void ReadMkdirTemplate(absl::string_view value, Reading& reading) {
  const absl::StatusOr<std::string> suffix = ExpandPodTemplate(value, reading.context.pod);
  if (!suffix.ok()) return reading.Wrong(suffix.status().message());
  if (suffix->size() >= kLongestPath || suffix->find('\0') != std::string::npos)
    return reading.Wrong("what it says cannot be part of a path");
  reading.policy.mkdir_suffix = *suffix;
}

void ReadDefaultAction(absl::string_view value, Reading& reading) {
  Policy& policy = reading.policy;
  if (value.empty() || value == "continue") {
    policy.default_action = DefaultAction::kContinue;
  } else if (value == "kill-container") {
    policy.default_action = DefaultAction::kKillContainer;
  } else if (value == "freeze-container") {
    policy.default_action = DefaultAction::kFreezeContainer;
  } else if (value == "errno") {
    policy.default_action = DefaultAction::kFail;
    policy.default_error = EPERM;
  } else if (absl::ConsumePrefix(&value, "errno:")) {
    const absl::StatusOr<int> error = ParseErrno(value);
    if (!error.ok()) return reading.Wrong(error.status().message());
    policy.default_action = DefaultAction::kFail;
    policy.default_error = *error;
  } else {
    reading.Wrong(
        absl::StrCat("\"", value,
                     "\" should be continue, errno, errno:NAME (as in errno:EACCES), kill-container or "
                     "freeze-container"));
  }
}

void ReadMiddleware(absl::string_view value, Reading& reading) {
  reading.policy.middleware.clear();
  for (const std::string& name : ListOf(value)) {
    if (name != kPrometheus) {
      reading.Wrong(absl::StrCat("\"", name, "\" is not there: there is prometheus"));
    } else if (reading.policy.middleware.empty()) {
      reading.policy.middleware.push_back(name);
    }
  }
}

void ReadErrors(absl::string_view value, Reading& reading) {
  reading.policy.errors.clear();
  for (const std::string& item : ListOf(value)) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(item, absl::MaxSplits(':', 1));
    const absl::StatusOr<int> error = ParseErrno(parts.second);
    if (item.find(':') == std::string::npos) {
      reading.Wrong(absl::StrCat("\"", item, "\" should be CALL:ERRNO, for example chmod:EBADMSG"));
    } else if (parts.first.find('\0') != std::string::npos || NumbersOf(parts.first).empty()) {
      reading.Wrong(absl::StrCat("\"", parts.first, "\" is no system call of this machine"));
    } else if (!error.ok()) {
      reading.Wrong(error.status().message());
    } else {
      reading.policy.errors[parts.first] = *error;
    }
  }
}

// "10" or "*".
bool ReadDeviceNumber(absl::string_view text, std::optional<uint32_t>& into) {
  uint32_t number = 0;
  if (text == "*") return true;
  if (text.find_first_not_of("0123456789") != absl::string_view::npos || !absl::SimpleAtoi(text, &number))
    return false;
  into = number;
  return true;
}

// Those that programs ask for by path although the host may have them nowhere, or not yet.
struct KnownDevice {
  const char* path;
  uint32_t major, minor;
};
constexpr KnownDevice kKnownDevices[] = {
    {"/dev/null", 1, 3},    {"/dev/zero", 1, 5},       {"/dev/full", 1, 7},
    {"/dev/random", 1, 8},  {"/dev/urandom", 1, 9},    {"/dev/tty", 5, 0},
    {"/dev/console", 5, 1}, {"/dev/net/tun", 10, 200}, {"/dev/fuse", 10, 229}};

// "/dev/net/tun", or "c 10:200", of which "*" may stand for either number. A path is the host's.
std::optional<DeviceRule> ParseDevice(absl::string_view text) {
  DeviceRule rule;
  if (!text.empty() && text[0] == '/') {
    for (const KnownDevice& known : kKnownDevices) {
      if (text == known.path)
        return DeviceRule{
            .block = false, .major = known.major, .minor = known.minor, .path = std::string(text)};
    }
    struct stat info {};
    if (stat(std::string(text).c_str(), &info) != 0 || !(S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)))
      return {};
    return DeviceRule{.block = S_ISBLK(info.st_mode),
                      .major = major(info.st_rdev),
                      .minor = minor(info.st_rdev),
                      .path = std::string(text)};
  }
  rule.block = absl::StartsWith(text, "b ");
  if (!absl::ConsumePrefix(&text, "c ") && !absl::ConsumePrefix(&text, "b ")) return {};
  const std::vector<absl::string_view> numbers = absl::StrSplit(text, ':');
  if (numbers.size() != 2 || !ReadDeviceNumber(numbers[0], rule.major) ||
      !ReadDeviceNumber(numbers[1], rule.minor))
    return {};
  return rule;
}

void ReadDevices(absl::string_view value, Reading& reading) {
  reading.policy.devices.clear();
  for (const std::string& text : ListOf(value)) {
    if (const std::optional<DeviceRule> device = ParseDevice(text)) {
      reading.policy.devices.push_back(*device);
    } else {
      reading.Wrong(
          absl::StrCat("\"", text, "\" should be the path of a device of this host, or like \"c 10:200\""));
    }
  }
}

void ReadBpfMapTypes(absl::string_view value, Reading& reading) {
  reading.policy.bpf_map_types.clear();
  for (std::string& type : ListOf(value)) {
    if (std::find(std::begin(kBpfMapTypes), std::end(kBpfMapTypes), type) != std::end(kBpfMapTypes)) {
      reading.policy.bpf_map_types.push_back(std::move(type));
    } else {
      reading.Wrong(absl::StrCat("\"", type, "\" is no type of BPF map, as hash and array are"));
    }
  }
}

void ReadFilesystems(absl::string_view value, Reading& reading) {
  reading.policy.mounts.other = ListOf(value);
}

struct Key {
  SettingKey text;
  void (*read)(absl::string_view value, Reading& reading);
};

using V = absl::string_view;

constexpr Key kKeys[] = {
    {{"MKDIR_TMPL", "mkdir-template", SettingForm::kText, "mkdir and mkdirat append this to every path"},
     ReadMkdirTemplate},
    {{"EXEC_PATTERN", "exec-pattern", SettingForm::kText, "with exec-duration: the program that begins later",
      "EXEC_DURATION"},
     [](V value, Reading& r) { r.exec_pattern = std::string(value); }},
    {{"EXEC_DURATION", "exec-duration", SettingForm::kText, "with exec-pattern: how much later",
      "EXEC_PATTERN"},
     [](V value, Reading& r) { ReadDelay(value, r.exec_delay, r); }},
    {{"SIDECARS", "sidecars", SettingForm::kList, "with sidecars-delay: containers that begin at once",
      "SIDECARS_DELAY"},
     [](V value, Reading& r) { r.sidecars = ListOf(value); }},
    {{"SIDECARS_DELAY", "sidecars-delay", SettingForm::kText,
      "with sidecars: the age at which all other containers begin", "SIDECARS"},
     [](V value, Reading& r) { ReadDelay(value, r.start_delay, r); }},
    {{"MOUNT_PROC", "mount-proc", SettingForm::kBool, "proc may be mounted"},
     [](V value, Reading& r) { ReadFlag(value, r.policy.mounts.proc, r); }},
    {{"MOUNT_SYSFS", "mount-sysfs", SettingForm::kBool, "sysfs may be mounted"},
     [](V value, Reading& r) { ReadFlag(value, r.policy.mounts.sysfs, r); }},
    {{"MOUNT_OTHER_FS_LIST", "mount-other", SettingForm::kList, "these filesystems may be mounted"},
     ReadFilesystems},
    {{"MOUNT_NEED_CAP_ADMIN", "mount-need-cap-admin", SettingForm::kBool,
      "only a caller with CAP_SYS_ADMIN may mount"},
     [](V value, Reading& r) { ReadFlag(value, r.policy.mounts.need_cap_admin, r); }},
    {{"DEFAULT_ACTION", "default-action", SettingForm::kText, "what becomes of other trapped calls"},
     ReadDefaultAction},
    {{"MIDDLEWARE", "middleware", SettingForm::kList, "what watches its calls"}, ReadMiddleware},
    {{"ERRNO", "errors", SettingForm::kMapping, "these calls fail, each with its errno"}, ReadErrors},
    {{"MKNOD", "devices", SettingForm::kList, "mknod may make these"}, ReadDevices},
    {{"BPF_MAP_TYPES", "bpf-map-types", SettingForm::kList, "bpf may make maps of these types"},
     ReadBpfMapTypes},
};

// Neither half of a pair means anything without the other.
void ReadPairs(Reading& reading) {
  Policy& policy = reading.policy;
  const auto alone = [&reading](absl::string_view key, absl::string_view other) {
    reading.key = key;
    reading.Wrong(absl::StrCat("means nothing without a right ", other));
  };
  if (reading.exec_pattern && reading.exec_delay) {
    policy.exec_pattern = *reading.exec_pattern;
    policy.exec_delay = *reading.exec_delay;
  } else if (reading.exec_pattern) {
    alone("EXEC_PATTERN", "EXEC_DURATION");
  } else if (reading.exec_delay) {
    alone("EXEC_DURATION", "EXEC_PATTERN");
  }
  if (reading.sidecars && reading.start_delay) {
    const std::vector<std::string>& sidecars = *reading.sidecars;
    const bool is_sidecar =
        std::find(sidecars.begin(), sidecars.end(), policy.identity.container) != sidecars.end();
    const bool waits = reading.context.begins && !is_sidecar;
    policy.start_delay = waits ? *reading.start_delay : nanoseconds(0);
  } else if (reading.sidecars) {
    alone("SIDECARS", "SIDECARS_DELAY");
  } else if (reading.start_delay) {
    alone("SIDECARS_DELAY", "SIDECARS");
  }
}

}  // namespace

std::vector<Setting> SplitMetadata(absl::string_view metadata) {
  const char end = metadata.find('\n') == absl::string_view::npos ? ';' : '\n';
  std::vector<Setting> settings;
  for (const absl::string_view item : absl::StrSplit(metadata, end)) {
    if (item.empty() || item[0] == '=') continue;
    if (absl::StartsWith(absl::StripLeadingAsciiWhitespace(item), "shunt.")) continue;
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(item, absl::MaxSplits('=', 1));
    settings.push_back({std::string(parts.first), std::string(parts.second)});
  }
  return settings;
}

std::vector<std::string> Obey(const std::vector<Setting>& settings, const SettingContext& context,
                              Policy& policy) {
  policy.identity = context.pod.identity;
  std::map<absl::string_view, absl::string_view> last;
  for (const Setting& setting : settings) last[setting.key] = setting.value;
  Reading reading{.context = context, .policy = policy};
  for (const auto& [key, value] : last) {
    reading.key = key;
    const auto* found = std::find_if(std::begin(kKeys), std::end(kKeys),
                                     [&](const Key& one) { return reading.key == one.text.key; });
    if (found != std::end(kKeys)) {
      found->read(value, reading);
    } else {
      std::vector<absl::string_view> known;
      for (const Key& one : kKeys) known.emplace_back(one.text.key);
      reading.Wrong(absl::StrCat("unknown key: known are ", absl::StrJoin(known, ", ")));
    }
  }
  ReadPairs(reading);
  return std::move(reading.mistakes);
}

const std::vector<SettingKey>& SettingKeys() {
  static const auto* const kTexts = [] {
    auto* texts = new std::vector<SettingKey>;
    for (const Key& key : kKeys) texts->push_back(key.text);
    return texts;
  }();
  return *kTexts;
}

std::vector<SettingKey> LoneHalves(const std::vector<Setting>& settings) {
  const auto is_there = [&settings](absl::string_view key) {
    return std::any_of(settings.begin(), settings.end(), [&](const Setting& one) { return one.key == key; });
  };
  std::vector<SettingKey> halves = SettingKeys();
  std::erase_if(halves, [&is_there](const SettingKey& key) {
    return key.other_half == nullptr || !is_there(key.key) || is_there(key.other_half);
  });
  return halves;
}

}  // namespace shunt
