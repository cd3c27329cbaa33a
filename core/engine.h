// SPDX-License-Identifier: Apache-2.0
// Engine: the reactors, and who owns which listener.
//
// Everything here is for one control thread, which polls event_fd() and calls HandleEvents(). Reactors share
// nothing but the dispatch table, which never changes.

#pragma once

#include <functional>
#include <memory>
#include <set>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/reactor.h"

namespace shunt {

struct EngineOptions {
  int reactors = 0;  // 0: one for each CPU that this process may run on
  bool pin = true;   // each reactor on a CPU of its own; else the scheduler decides
  std::function<std::unique_ptr<Workbench>()> make_bench;
  std::function<void()> on_reactor_start;  // on each reactor's thread, when it is about to stop allocating
  std::function<void()> on_reactor_stop;   // the same, when it has served its last call
};

class Engine {
 public:
  static absl::StatusOr<std::unique_ptr<Engine>> Start(const EngineOptions& options,
                                                       std::span<const Route> routes);
  ~Engine();

  // Serves `listener` until the last task under its filter has ended. `ended` is then called from
  // HandleEvents(), after the reactor has let go of `guest` and before it is destroyed.
  ServedListener& Serve(Listener listener, std::unique_ptr<Guest> guest,
                        std::function<void(std::unique_ptr<Guest>)> ended);

  // Delivers `message` on the reactor that serves `served`, between two calls.
  void Post(ServedListener& served, Message& message) { served.reactor->Post(message); }

  int event_fd() const { return control_.event_fd(); }
  void HandleEvents() { control_.Deliver(); }
  // Where messages to the control thread go, from any thread.
  Mailbox& control() { return control_; }

  size_t listeners() const { return served_.size(); }
  const std::vector<std::unique_ptr<Reactor>>& reactors() const { return reactors_; }
  uint64_t Sum(Counter counter) const;

 private:
  struct Entry;

  explicit Engine(std::span<const Route> routes);
  static void OnGone(Message& message);
  size_t LeastLoaded() const;

  Dispatch dispatch_;
  Mailbox control_;
  std::vector<std::unique_ptr<Reactor>> reactors_;
  std::vector<size_t> load_;  // listeners of each reactor
  std::set<std::unique_ptr<Entry>> served_;
  uint64_t next_owner_ = 1;
};

}  // namespace shunt
