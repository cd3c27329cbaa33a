// SPDX-License-Identifier: Apache-2.0
// Fleet: any number of containers, one after the other or at once, served by one Accelerator in the test's
// process. What `shunt agent` does, as small as a test can have it.
//
//   Fleet fleet({{[] { return connect(...); }, [] { ... }}});
//   ASSERT_EQ(fleet.Start(), "");
//   const pid_t pid = fleet.Launch(0);
//   EXPECT_EQ(fleet.Join(pid), 0);
//
// A container is a process in user and network namespaces of its own, made by a nursery: a process that was
// forked before there were any threads, so that no container holds a copy of the engine's descriptors. Run
// inside tests/support/arena, whose network plays the host.

#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/fd.h"
#include "core/filter.h"
#include "handlers/accelerator.h"

namespace shunt {

struct FleetOptions {
  std::vector<std::function<int()>> bodies;  // what a container can be told to run
  std::vector<net::Publish> publish;         // of each of them
  net::SubnetSet ignore;
  Policy policy;            // of each of them
  std::vector<Trap> traps;  // beside those that every container has
  bool tell_pid = true;     // false: the engine has to find out who the container is
  AcceleratorOptions accelerator{};
};

class Fleet {
 public:
  static constexpr int kKilled = 1000;  // what Join returns for a container that did not tell its result

  // Forks the nursery: before the test has threads.
  explicit Fleet(FleetOptions options);
  // Ends the engine, then kills the containers that are left.
  ~Fleet();
  Fleet(const Fleet&) = delete;
  Fleet& operator=(const Fleet&) = delete;

  // Starts the engine. Returns what went wrong, or "".
  std::string Start();

  // Starts a container that runs bodies[body], and serves it. Its pid, or -1 with error() set.
  pid_t Launch(size_t body);
  // Serves until this container has ended and the engine has let go of it; its body's result (0 to 255), or
  // kKilled. -1: it did not end in time (and is killed).
  int Join(pid_t pid, int timeout_ms = 60'000);
  // Serves what is due now.
  void HandleEvents();

  size_t alive() const { return alive_.size(); }
  Accelerator& accelerator() const { return *accelerator_; }
  uint64_t Counted(Counter counter) const;
  const std::string& error() const { return error_; }

 private:
  pid_t Fail(const std::string& what);
  void ReadResults();

  FleetOptions options_;
  Fd nursery_;  // requests go there, containers' listeners come back
  Fd results_;  // what bodies returned
  pid_t nursery_pid_ = -1;
  std::unique_ptr<Accelerator> accelerator_;
  std::map<pid_t, bool> alive_;  // true: the engine has let go of it, Join has not asked yet
  std::map<pid_t, int> result_;
  std::string error_;
};

// What a process holds, to be compared with later.
struct Footprint {
  size_t descriptors = 0;
  size_t resident_kib = 0;

  static Footprint Now();
};

}  // namespace shunt
