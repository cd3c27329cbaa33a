// SPDX-License-Identifier: Apache-2.0
// A seccomp profile as OCI runtimes take it, read from any of the three notations that people have.
//
// OCI's linux.seccomp is the flat form that we keep and print. Docker's has entries that hold only for some
// architectures, capabilities and kernels, and an archMap; Podman's (containers/common) gives errnos by name
// as well. Kubernetes and containerd take the flat form only and ignore such conditions, so they are resolved
// when a profile is read: for this machine and a given set of capabilities.

#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace shunt {

// One condition on an argument. For SCMP_CMP_MASKED_EQ `value` is the mask and `value_two` what is left under
// it.
struct ProfileArg {
  int index = 0;
  std::string op;  // SCMP_CMP_...
  uint64_t value = 0;
  uint64_t value_two = 0;
  friend bool operator==(const ProfileArg&, const ProfileArg&) = default;
};

struct ProfileAction {
  std::string name;          // SCMP_ACT_...
  std::optional<int> error;  // SCMP_ACT_ERRNO and SCMP_ACT_TRACE only; missing in the file means EPERM
  friend bool operator==(const ProfileAction&, const ProfileAction&) = default;
};

// All conditions of `args` must hold. At most one per argument: what a file says twice about one argument has
// become two rules, for that is how runtimes read it.
struct ProfileRule {
  std::vector<std::string> names;
  ProfileAction action;
  std::vector<ProfileArg> args;
};

struct Profile {
  ProfileAction default_action;
  std::vector<std::string> architectures;  // SCMP_ARCH_...; empty: the native one, which runtimes always add
  std::vector<std::string> flags;
  // An empty list is not the same as none: without a list runc sets a flag of its own.
  bool has_flags = false;
  std::string listener_path;
  std::string listener_metadata;
  std::vector<ProfileRule> rules;
};

// For whom the conditions of a profile are resolved.
struct ProfileSubject {
  std::string go_arch;                 // as Docker's profiles name it: amd64, arm64 ...
  std::string scmp_arch;               // SCMP_ARCH_X86_64 ...
  std::pair<int, int> kernel;          // major, minor
  std::set<std::string> capabilities;  // CAP_...

  // This machine, with Docker's default capabilities.
  static ProfileSubject Here();
};

// The error names the place in the file and what would be right there.
absl::StatusOr<Profile> ParseProfile(std::string_view text, const ProfileSubject& subject);

// JSON in the flat form, one rule a line, with a final newline.
std::string PrintProfile(const Profile& profile);

}  // namespace shunt
