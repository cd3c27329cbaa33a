// SPDX-License-Identifier: Apache-2.0
// Accelerator: the engine with everything that serves containers' sockets, behind four calls.
//
// `shunt run` serves one container with it, `shunt agent` any number. It owns the reactors, the locks and
// what is known of the host's and the containers' networks. All calls are for one control thread; nothing
// here blocks for longer than a fork.

#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/counters.h"
#include "core/fd.h"
#include "handlers/policy.h"
#include "net/balancer/affinity_memory.h"
#include "net/balancer/balancer.h"
#include "net/discovery/source.h"
#include "net/ip_address.h"
#include "net/publish.h"
#include "net/subnet_set.h"

namespace shunt {

class RequestTimes;

enum class Affinity : uint8_t { kPin, kFloat };

// Keeps descriptors while engines come and go (tools/keeper.h). What is held under a name replaces what was.
// All calls are on the control thread.
class Custodian {
 public:
  virtual ~Custodian() = default;
  virtual void HoldContainer(uint64_t key, std::span<const int> fds) = 0;
  virtual void DropContainer(uint64_t key) = 0;
  virtual void HoldJournal(int fd) = 0;  // of this engine
  virtual void DropJournal(uint64_t name) = 0;
  // Has a worker (core/worker.h) begin at the other end of `link`.
  virtual void StartWorker(Fd link) = 0;
  // What sources have found since the last time (Services::Wants): for Remember() of an engine to come.
  virtual void HoldFound(std::vector<net::FoundBackends> /*found*/) {}
};

struct AcceleratorOptions {
  int reactors = 0;  // 0: one for each CPU that we may run on
  Affinity affinity = Affinity::kPin;
  std::string lock_socket;  // where the privileged helper hands out locks; empty: the default path
  // Containers may be frozen and killed through their cgroups: takes a process more (core/cgroup.h).
  bool opens_cgroups = false;
  std::function<void(std::string_view)> warn;  // control thread: what an operator should know, one line
  Custodian* custodian = nullptr;              // null: containers do not outlive this process
  uint64_t first_key = 2;                      // larger than every name of a container that was ever held
  // The pid of a container, where it is told, is that of a task that stays in its network as long as there is
  // a container. Else that task may leave, and its number become another's.
  bool lasting_pids = false;
  // Where calls of containers with the middleware kPrometheus are timed, with a table for each reactor;
  // outlives the accelerator. Null: nowhere.
  RequestTimes* request_times = nullptr;
  // Connects to services are balanced (Balance()): takes a thread more (handlers/services.h).
  bool balances = false;
  // Makes the source that a service wants (ServiceSpec::discover), which tells in one of the two ways.
  std::function<absl::StatusOr<std::unique_ptr<net::Source>>(
      const net::ServiceSpec& service, net::Source::Tell tell, net::Source::TellServices tell_services)>
      make_source;
  // What affinities with a timeout remember; outlives the accelerator. Null: nothing, such connections are
  // picked as those of services without affinity.
  net::AffinityMemory* affinities = nullptr;
  // Control thread: a container is introduced, here or in an engine before this one, that publishes ports. Of
  // its network namespace, the cookie and the addresses of net::OutwardAddresses() as they are now.
  std::function<void(uint64_t key, uint64_t netns, const std::vector<net::Publish>& publish,
                     std::vector<net::IpAddress> addresses)>
      introduced;
  // For tests, on each reactor's thread: it is about to stop allocating; it has served its last call.
  std::function<void()> on_reactor_start, on_reactor_stop;
};

// One container as its operator wants it.
struct ContainerSpec {
  std::string name;  // for messages
  uid_t owner = 0;   // whose container it is: for who asked for it to be served
  pid_t pid = 0;     // a task in its network namespace, as seen from our pid namespace; 0: not known yet
  std::vector<net::Publish> publish;  // ports that move to the host
  // Published ports whose host port is another container's: a bind is EADDRINUSE.
  std::vector<net::Publish> taken;
  // The container's first process, of which `pid` may be a later companion (exec); 0: not known.
  pid_t first_process = 0;
  Policy policy;          // what is to be done with its other calls
  net::SubnetSet ignore;  // networks that stay on the container's ordinary path
  // The filter is the one that handlers/traps.h describes, so what it does not report has not happened.
  // False: any filter that traps connect; every swap then looks at everything that could matter, which takes
  // longer.
  bool exact_traps = false;
  // Not empty: the rest is what holds if nobody can find out more; what there is to find out, for whoever
  // wrote this (tools/undecided.h).
  std::string undecided;
};

class Accelerator {
 public:
  // Starts the reactors. Fails with what is missing and how to get it.
  static absl::StatusOr<std::unique_ptr<Accelerator>> Start(const AcceleratorOptions& options);
  virtual ~Accelerator() = default;

  // Serves `listener` until the last task under its filter has ended; then everything about it is forgotten
  // and `ended` is called on the control thread, from HandleEvents(). Returns why its connections stay on the
  // ordinary path for now, or "": also where descriptors or memory are short. Fails only with what is no
  // seccomp listener: a listener that nobody answers would hang its container.
  absl::StatusOr<std::string> Serve(Fd listener, ContainerSpec spec, std::function<void()> ended) {
    return ServeAs(NewKey(), std::move(listener), std::move(spec), std::move(ended));
  }
  // The same under a name that NewKey() has given out, here or in an engine before this one, for who held the
  // container before all about it was known.
  virtual absl::StatusOr<std::string> ServeAs(uint64_t key, Fd listener, ContainerSpec spec,
                                              std::function<void()> ended) = 0;
  // A name for Custodian::HoldContainer() that no container has which is, or was, served or adopted.
  virtual uint64_t NewKey() = 0;

  // Prepares to serve what an engine before this one has held under `key`; again for the same key: forget
  // what was prepared. Its calls go on waiting until Begin(). Returns as Serve() does.
  virtual absl::StatusOr<std::string> Adopt(uint64_t key, std::vector<Fd> held,
                                            std::function<void()> ended) = 0;
  // True if this very listener is served, or will be from Begin() on. Asks the kernel, for each of ours.
  virtual bool Serves(int listener) const = 0;
  // Before Begin(): the journal of an engine before this one, which was held under `name` and is dropped when
  // all of its calls are answered. Fails with what is no journal of our layout.
  virtual absl::Status TakeOver(uint64_t name, Fd journal) = 0;
  // Serves what was adopted, what others have left unanswered first.
  virtual void Begin() = 0;
  // Leaves everything as it is to another engine. Only the destructor may be called afterwards.
  virtual void Halt() = 0;

  // Becomes readable when HandleEvents() has something to do. For the control thread's poll loop.
  virtual int event_fd() const = 0;
  virtual void HandleEvents() = 0;

  // One line for people: which locks are in force and what that means.
  virtual std::string LocksInForce() const = 0;
  // True if published ports move to the host; false: the network helper has to forward them.
  virtual bool CanPublish() const = 0;

  // Connects to these services go to their backends from now on; in the place of those before. `zone` is this
  // machine's, or empty. With `at_once` it returns when that is so, or after some seconds. Needs
  // AcceleratorOptions::balances.
  virtual void Balance(std::vector<net::ServiceSpec> services, std::string zone, bool at_once) = 0;
  // Before the first Balance(): what Custodian::HoldFound() was told for an engine before this one.
  virtual void Remember(std::vector<net::FoundBackends> found) = 0;
  virtual absl::Status TellBackend(std::string_view service, std::string_view backend,
                                   const net::BackendCommand& command) = 0;
  virtual std::vector<net::ServiceReport> DescribeServices() const = 0;

  // Sums over all reactors, in the order of core/counters.h.
  struct CounterValue {
    CounterText text;
    uint64_t value;
  };
  virtual std::vector<CounterValue> Counters() const = 0;

  // As the options have it.
  virtual const RequestTimes* request_times() const = 0;

  struct ReactorStatus {
    int cpu = -1;  // -1: free to move
    uint64_t received = 0;
    uint64_t answered = 0;
    uint64_t waiting = 0;  // calls that wait inside the engine
  };
  virtual std::vector<ReactorStatus> Reactors() const = 0;

  // One for each listener: a container may have several, for what was executed in it later.
  struct ContainerStatus {
    uint64_t key = 0;
    std::string name;
    uid_t owner = 0;
    bool accelerated = false;
    uint64_t calls = 0;      // received since this engine serves it
    uint64_t in_flight = 0;  // received and not answered, at a glance
  };
  virtual std::vector<ContainerStatus> Containers() const = 0;

  // `all_there` is called from HandleEvents() when every reactor has been between two calls since.
  virtual void CallRoll(std::function<void()> all_there) = 0;
};

// What Adopt() would serve. The error says what is wrong with it.
absl::StatusOr<ContainerSpec> SpecOfHeld(std::span<const Fd> held);

// The memory of a container that somebody else is to adopt: goes beside its listener, in this order.
absl::StatusOr<Fd> MemoryFor(const ContainerSpec& spec);

}  // namespace shunt
