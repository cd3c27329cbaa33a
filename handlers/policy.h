// SPDX-License-Identifier: Apache-2.0
// Policy: what the operator wants done with a container's trapped calls, beside what becomes of its sockets.
//
// Plain values, complete and checked: whoever makes one (tools/metadata.h, the agent's configuration) has
// expanded every template and resolved every name. Lies in the container's memory as JSON
// (handlers/policy_json.h), so that the engines after this one do the same.

#pragma once

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace shunt {

// What becomes of a trapped call that nothing here is about.
enum class DefaultAction : uint8_t {
  kContinue,         // the kernel runs it
  kFail,             // with default_error
  kKillContainer,    // all of its processes; the call fails with EPERM
  kFreezeContainer,  // all of its processes, until somebody thaws them; the call then fails with EPERM
};

// Who the container is to its orchestrator; empty: not known. For labels and templates, never for decisions
// about rights.
struct PodIdentity {
  std::string pod_namespace;
  std::string pod;
  std::string container;
  friend bool operator==(const PodIdentity&, const PodIdentity&) = default;
};

// Filesystems that a container may mount although it may not (the handler of mount).
struct MountPolicy {
  bool proc = false;
  bool sysfs = false;
  std::vector<std::string> other;  // by the names that mount(2) takes
  bool need_cap_admin = true;      // only for a caller with CAP_SYS_ADMIN in its own user namespace
  friend bool operator==(const MountPolicy&, const MountPolicy&) = default;
};

inline constexpr char kPrometheus[] = "prometheus";

struct Policy {
  // Not 0: the container is refused; every trapped call fails with this errno. Its listener is served all the
  // same: a listener that nobody answers hangs the runtime.
  int refuse = 0;
  DefaultAction default_action = DefaultAction::kContinue;
  int default_error = EPERM;

  std::map<std::string, int> errors;        // calls that fail, by name, and the errno of each
  std::optional<std::string> mkdir_suffix;  // what mkdir and mkdirat append to every path
  // An execve whose path is exactly this begins so much later. Empty: none.
  std::string exec_pattern;
  std::chrono::nanoseconds exec_delay{0};
  // The container's first program begins when the container is this old. Zero: at once.
  std::chrono::nanoseconds start_delay{0};
  MountPolicy mounts;
  std::vector<std::string> devices;        // that mknod may make: paths, or "c 10:200"
  std::vector<std::string> bpf_map_types;  // that bpf may make

  std::vector<std::string> middleware;  // what watches its calls: kPrometheus
  PodIdentity identity;

  // Some of its calls are done by workers (handlers/deeds.h).
  bool needs_workers() const { return refuse == 0 && mkdir_suffix.has_value(); }

  friend bool operator==(const Policy&, const Policy&) = default;
};

}  // namespace shunt
