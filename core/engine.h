// SPDX-License-Identifier: Apache-2.0
// Engine: the reactors, and who owns which listener.
//
// Everything here is for one control thread, which polls event_fd() and calls HandleEvents(). Reactors share
// nothing but the dispatch table, which never changes.

#pragma once

#include <functional>
#include <map>
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

// The CPUs that this process may run on; never none.
std::vector<int> AllowedCpus();

class Engine {
 public:
  static absl::StatusOr<std::unique_ptr<Engine>> Start(const EngineOptions& options,
                                                       std::span<const Route> routes,
                                                       Handler other = nullptr);
  ~Engine();

  // Serves `listener` until the last task under its filter has ended. `ended` is then called from
  // HandleEvents(), after the reactor has let go of `guest` and before it is destroyed. `key` names the
  // listener in the journal: never 0, and never given twice. `task` is one of those whose calls will come, 0:
  // none is known. The reactor is one whose CPU `task` may run on, if there is such a one: a call between two
  // CPUs costs several times as much, and who may not move stays where that is so.
  ServedListener& Serve(uint64_t key, Listener listener, std::unique_ptr<Guest> guest, pid_t task,
                        std::function<void(std::unique_ptr<Guest>)> ended);

  // What an engine before this one has left, which is dead or halted. Before Serve() is called for its
  // listeners, which then finish its calls first. `finished` is called from HandleEvents() (or at once) when
  // all of them have been dealt with: from then on the journal is of no use to anybody.
  void TakeOver(std::unique_ptr<Journal> left, std::function<void()> finished);
  // All listeners that TakeOver() may be about have been given to Serve().
  void NobodyElseIsComing();

  // `all_there` is called from HandleEvents() when every reactor has been between two calls since. Does
  // nothing while an earlier roll call is not over.
  void CallRoll(std::function<void()> all_there);

  // Ends the reactors' threads. What they have received and not answered is in the journal, for another
  // engine. Nothing but the destructor may be called afterwards.
  void Halt();

  const Journal& journal() const { return *journal_; }

  // Delivers `message` on the reactor that serves `served`, between two calls.
  void Post(ServedListener& served, Message& message) { served.main.reactor->Post(message); }

  int event_fd() const { return control_.event_fd(); }
  void HandleEvents() { control_.Deliver(); }
  // Where messages to the control thread go, from any thread.
  Mailbox& control() { return control_; }

  size_t listeners() const { return served_.size(); }
  const std::vector<std::unique_ptr<Reactor>>& reactors() const { return reactors_; }
  uint64_t Sum(Counter counter) const;

 private:
  struct Entry;

  Engine(std::span<const Route> routes, Handler other);
  static void OnGone(Message& message);
  std::vector<size_t> ReactorsFor(pid_t task) const;
  size_t LeastLoaded(std::span<const size_t> reactors) const;

  // A predecessor's journal and how many of its listeners have not finished.
  struct Inheritance {
    std::unique_ptr<Journal> journal;
    std::function<void()> finished;
  };
  // Under way from one reactor to the next, and then back.
  struct RollCall {
    Engine* engine = nullptr;
    size_t next = 0;
    std::function<void()> all_there;  // empty: none is under way
    Message message;
  };
  static void OnCalled(Message& message);
  static void OnResumed(Message& message);
  void Settle();

  Dispatch dispatch_;
  Mailbox control_;
  std::unique_ptr<Journal> journal_;  // outlives the reactors
  std::vector<Inheritance> inherited_;
  std::map<uint64_t, std::vector<JournalRecord*>> left_behind_;  // by listener, until it comes
  size_t resuming_ = 0;                                          // listeners that are still at what was left
  std::vector<std::unique_ptr<Reactor>> reactors_;
  std::vector<size_t> load_;  // listeners of each reactor
  std::set<std::unique_ptr<Entry>> served_;
  RollCall roll_call_;
};

}  // namespace shunt
