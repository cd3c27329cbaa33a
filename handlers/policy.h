// SPDX-License-Identifier: Apache-2.0
// Policy: what the operator wants done with a container's trapped calls, beside what becomes of its sockets.
//
// Plain values, complete and checked: whoever makes one (tools/metadata.h, the agent's configuration) has
// expanded every template and resolved every name. Lies in the container's memory as JSON
// (handlers/policy_json.h), so that the engines after this one do the same.

#pragma once

#include <algorithm>
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

// A path of a proc or sysfs that the container's own do not show, or only to be read.
struct Mask {
  std::string path;   // as in the container: "/proc/kcore"
  bool hides = true;  // false: it is read-only
  friend bool operator==(const Mask&, const Mask&) = default;
};

// Filesystems that a container may mount although it may not (the handler of mount).
struct MountPolicy {
  bool proc = false;
  bool sysfs = false;
  std::vector<std::string> other;  // by the names that mount(2) takes
  bool need_cap_admin = true;      // only for a caller with CAP_SYS_ADMIN in its own user namespace
  // What a new proc or sysfs has of the container's own. In this order; paths within others behind them.
  std::vector<Mask> masks;
  bool sysfs_read_only = false;

  bool any() const { return proc || sysfs || !other.empty(); }
  friend bool operator==(const MountPolicy&, const MountPolicy&) = default;
};

// Devices that mknod may make.
struct DeviceRule {
  bool block = false;                    // or a character device
  std::optional<uint32_t> major, minor;  // nullopt: any
  std::string path;                      // of the host's own, if it was named by that
  friend bool operator==(const DeviceRule&, const DeviceRule&) = default;
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
  std::vector<DeviceRule> devices;
  std::vector<std::string> bpf_map_types;  // that bpf may make

  std::vector<std::string> middleware;  // what watches its calls: kPrometheus
  PodIdentity identity;

  // Some of its calls are done by workers (handlers/deeds.h).
  bool needs_workers() const { return refuse == 0 && (mkdir_suffix || needs_builder()); }
  // Some take more rights than a worker has (handlers/mount_builder.h).
  bool needs_builder() const { return refuse == 0 && (mounts.any() || !devices.empty()); }
  bool MayMake(bool block, uint32_t major, uint32_t minor) const {
    return std::ranges::any_of(devices, [&](const DeviceRule& rule) {
      return rule.block == block && rule.major.value_or(major) == major &&
             rule.minor.value_or(minor) == minor;
    });
  }

  friend bool operator==(const Policy&, const Policy&) = default;
};

}  // namespace shunt
