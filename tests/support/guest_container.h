// SPDX-License-Identifier: Apache-2.0
// GuestContainer: a child process in network and user namespaces of its own, under shunt's filter, served by
// an Accelerator in the test's process. What `shunt run` does, as small as a test can have it.
//
//   GuestContainer container({.publish = ...});
//   EXPECT_EQ(container.Run([] { return connect(...) == 0 ? 0 : errno; }), 0);
//
// Make it before the test starts threads of its own. Run inside tests/support/arena, whose network plays the
// host.

#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/filter.h"
#include "handlers/accelerator.h"
#include "tests/support/worker_starter.h"

namespace shunt {

struct GuestOptions {
  std::vector<net::Publish> publish;
  net::SubnetSet ignore;
  bool wait_killable = false;
  Policy policy;
  std::vector<Trap> traps;                   // beside those that every container has
  std::function<void(pid_t)> before_served;  // with the container's first process, in the test
  // While it is served, every millisecond or so; in the test.
  std::function<void(pid_t)> meanwhile;
  // With the engine that serves it, as often.
  std::function<void(Accelerator&)> operate;
  // Asked as often: true, once, and the engine ends as it is, and another one takes over.
  std::function<bool()> engine_dies;
  bool tell_pid = true;            // false: the engine has to find out who the container is
  int more_namespaces = 0;         // CLONE_NEW...
  bool own_user_namespace = true;  // false: it has the test's
  // As uid_map and gid_map, written by the test, which has to be root; `body` begins with ids that are not in
  // it. Empty: the test's own ids are 0 inside, and groups cannot be set.
  std::string id_map;
  AcceleratorOptions accelerator{};
  std::vector<net::ServiceSpec> services;
  std::optional<std::vector<net::ServiceSpec>> next_services;  // of the engine that takes over, if others
};

class GuestContainer {
 public:
  explicit GuestContainer(GuestOptions options = {}) : options_(std::move(options)) {
    if (options_.accelerator.custodian == nullptr) options_.accelerator.custodian = &worker_starter_;
  }

  // Runs `body` in a fresh container and serves it until it has ended. Returns body's result (0 to 255), or
  // 1000 + the signal that killed it, or -1 with error() set.
  int Run(const std::function<int()>& body);

  const std::string& error() const { return error_; }
  // What the engine has counted since Run began: also while that has `meanwhile` called.
  uint64_t Counted(Counter counter) const { return counters_[static_cast<size_t>(counter)]; }
  const std::string& locks() const { return locks_; }
  // What the engine warned of.
  const std::string& warnings() const { return warnings_; }
  // How the services were in the end.
  const std::vector<net::ServiceReport>& services() const { return services_; }
  // All workers that were started, unless the engine died or has a custodian of the test's.
  const std::vector<pid_t>& workers() const { return worker_starter_.workers(); }

 private:
  void ReadCounters(const Accelerator& accelerator);

  GuestOptions options_;
  WorkerStarter worker_starter_;
  std::string error_;
  std::string locks_;
  std::string warnings_;
  std::vector<net::ServiceReport> services_;
  std::array<uint64_t, kCounterCount> counters_{};
};

}  // namespace shunt
