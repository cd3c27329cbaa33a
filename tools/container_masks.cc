// SPDX-License-Identifier: Apache-2.0
#include "tools/container_masks.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/fd.h"

namespace shunt {
namespace {

using Json = nlohmann::json;

constexpr off_t kLongestDescription = 4 << 20;

// Docker's and Podman's, both lists together.
constexpr const char* kHiddenByDefault[] = {
    "/proc/acpi",       "/proc/asound",        "/proc/interrupts",  "/proc/kcore",
    "/proc/keys",       "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
    "/proc/timer_list", "/proc/timer_stats",   "/sys/firmware",     "/sys/devices/virtual/powercap",
    "/sys/dev/block",   "/sys/fs/selinux"};
constexpr const char* kReadOnlyByDefault[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                                              "/proc/sysrq-trigger"};

void UseDefaults(MountPolicy& mounts) {
  for (const char* path : kReadOnlyByDefault) mounts.masks.push_back({.path = path, .hides = false});
  for (const char* path : kHiddenByDefault) mounts.masks.push_back({.path = path, .hides = true});
  mounts.sysfs_read_only = true;
}

// Not through a pipe or a device that somebody has put there (a watchdog is set off by being opened), and no
// more than a description can be.
absl::StatusOr<std::string> ReadDescription(const std::string& path) {
  const Fd place(open(path.c_str(), O_PATH | O_CLOEXEC));
  struct stat info {};
  if (!place.valid() || fstat(place.get(), &info) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  if (!S_ISREG(info.st_mode) || info.st_size > kLongestDescription)
    return absl::InvalidArgumentError(absl::StrCat(path, " is no file, or too long"));
  const Fd file(open(absl::StrCat("/proc/self/fd/", place.get()).c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  std::string text(static_cast<size_t>(info.st_size), '\0');
  const ssize_t size = read(file.get(), text.data(), text.size());
  if (size < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
  text.resize(static_cast<size_t>(size));
  return text;
}

// As runtimes take a path, however it is written.
std::string Plain(const std::string& path) {
  std::string plain = std::filesystem::path("/" + path).lexically_normal().string();
  if (absl::StartsWith(plain, "//")) plain.erase(0, 1);
  while (plain.size() > 1 && plain.back() == '/') plain.pop_back();
  return plain;
}

std::vector<std::string> PathsIn(const Json::object_t& linux_part, const char* key) {
  std::vector<std::string> paths;
  if (const auto found = linux_part.find(key); found != linux_part.end() && !found->second.is_null())
    paths = found->second.get<std::vector<std::string>>();
  for (std::string& path : paths) path = Plain(path);
  // A path within another one's comes behind it.
  std::sort(paths.begin(), paths.end());
  return paths;
}

enum class Given { kNot, kReadOnly, kWritable };

// What the runtime mounts at `place`: the last one lies on top, and of its options the last one counts.
Given HowGiven(const Json& description, absl::string_view place) {
  Given given = Given::kNot;
  const auto mounts = description.find("mounts");
  if (mounts == description.end() || mounts->is_null()) return given;
  for (const Json& mount : *mounts) {
    if (Plain(mount.value("destination", "")) != place) continue;
    given = Given::kWritable;
    if (!mount.contains("options") || mount["options"].is_null()) continue;
    for (const auto& option : mount["options"].get<std::vector<std::string>>()) {
      if (option == "ro" || option == "rro") given = Given::kReadOnly;
      if (option == "rw" || option == "rrw") given = Given::kWritable;
    }
  }
  return given;
}

}  // namespace

absl::Status AddMasks(const std::string& bundle, MountPolicy& mounts) {
  const std::string path = absl::StrCat(bundle, "/config.json");
  const absl::StatusOr<std::string> text = ReadDescription(path);
  if (!text.ok()) {
    UseDefaults(mounts);
    return text.status();
  }
  try {
    const Json description = Json::parse(*text);
    const auto linux_part = description.at("linux").get<Json::object_t>();
    MountPolicy found;
    if (HowGiven(description, "/proc") == Given::kReadOnly)
      found.masks.push_back({.path = "/proc", .hides = false});
    // Read-only ones first: what is hidden within them shall lie on top.
    for (std::string& one : PathsIn(linux_part, "readonlyPaths"))
      found.masks.push_back({.path = std::move(one), .hides = false});
    for (std::string& one : PathsIn(linux_part, "maskedPaths"))
      found.masks.push_back({.path = std::move(one), .hides = true});
    mounts.masks = std::move(found.masks);
    // Nor does one that is given none get one to write to.
    mounts.sysfs_read_only = HowGiven(description, "/sys") != Given::kWritable;
  } catch (const Json::exception& error) {
    UseDefaults(mounts);
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", error.what()));
  }
  return absl::OkStatus();
}

}  // namespace shunt
