// SPDX-License-Identifier: Apache-2.0
// Container and SocketBench: what the socket handlers know of the caller's container, and what they keep at
// hand.
//
// A Container is used by its reactor and by the one that helps, at the same time. What the operator wants and
// what the container's network looks like is an immutable NetworkView, made by the control thread and
// replaced as a whole between two calls.

#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/call.h"
#include "core/dispatch.h"
#include "core/fd.h"
#include "core/filter.h"
#include "core/middleware.h"
#include "handlers/container_memory.h"
#include "handlers/host_port.h"
#include "handlers/introduction.h"
#include "handlers/policy.h"
#include "handlers/request_times.h"
#include "handlers/socket_claim.h"
#include "handlers/timed_call.h"
#include "handlers/workers.h"
#include "net/balancer/reactor_services.h"
#include "net/host_network.h"
#include "net/listener_census.h"
#include "net/netns.h"
#include "net/option_marks.h"
#include "net/publish.h"
#include "net/shared_file.h"
#include "net/side_thread.h"
#include "net/sock_addr.h"
#include "net/spare_sockets.h"
#include "net/subnet_set.h"
#include "net/twin_options.h"
#include "net/twin_pool.h"

namespace shunt {

// Never changes once a reactor has it.
struct NetworkView {
  // Destinations that stay in the container's network: loopback, its own networks, and what the operator
  // ignores.
  net::SubnetSet ordinary;
  // What confines its twins. Kind kNone: nothing of it is accelerated.
  std::shared_ptr<const net::NumberedLock> lock;
  // With a device lock: the host's network, and the devices that do not confine because an ignored network
  // lies behind them.
  std::shared_ptr<const net::HostNetwork> host;
  std::vector<int> open_devices;
  // For connections to its own published ports: the container's addresses, and the lock that lets a twin
  // reach just those ports where they are on the host. Null without published ports or without the program
  // lock.
  std::vector<net::IpAddress> own_addresses;
  std::shared_ptr<const net::NumberedLock> own_ports_lock;
};

// A port that the operator published, and what became of it.
struct PublishedPort {
  net::Publish publish;
  bool taken = false;              // by another container of this agent
  std::shared_ptr<HostPort> host;  // null until the container is introduced, and if it is taken
  PortMemory* memory = nullptr;    // null if it is taken
};

class OnSide;

// What a container wants of a side thread (handlers/side_call.h): one job is there, the others wait. Of one
// reactor's thread.
struct SideLane {
  bool occupied = false;
  OnSide* first = nullptr;
  OnSide* last = nullptr;
};

class Container final : public Guest {
 public:
  Container(std::string its_name, ContainerMemory its_memory);

  void Unanswered(const JournalRecord& record, Stage reached, Target& caller, Reply reply) override;
  void LeftBehind(const JournalRecord& record) override;
  const Dispatch* dispatch() const override { return dispatch_.get(); }
  Middleware* middleware() const override { return middleware_.empty() ? nullptr : middleware_[0].get(); }

  // Before it is served. `times` is where its calls are timed if the policy wants that; nullptr: nowhere.
  void Obey(Policy its_policy, RequestTimes* times);
  // For a call that fails by the policy.
  int ErrorOf(uint32_t arch, int nr) const;

  // JournalRecord::number of a call whose side effect is on no file. The record's inode is then this name of
  // the call, which no inode has.
  static constexpr int kNoFile = -1;
  static uint64_t NameOf(const Notification& call) {
    return uint64_t{1} << 63 | uint64_t{call.arch & 0x7fffffff} << 32 | static_cast<uint32_t>(call.nr);
  }

  const std::string name;
  const ContainerMemory memory;  // what outlives the engine
  ContainerMemory::Facts& facts;
  Policy policy;                     // does not change once it is served
  Fd lever;                          // as TakeLever() gave it; does not change either
  pid_t first_process = 0;           // 0: not known
  const uint64_t affinity_key;       // of its name, the same on every machine and in every engine
  uint64_t key = 0;                  // its name among its accelerator's containers
  Introducer* introducer = nullptr;  // who brings netns and view, should they be missing at the first call
  uint64_t netns = 0;  // cookie of its network namespace; 0: not known yet, nothing is accelerated
  // The filter is ours: it traps rare options and new epolls, so their absence is known.
  bool exact_traps = false;
  // One for each reactor that may serve it (Call::place), which alone writes and reads it: so a call sees one
  // view.
  std::array<const NetworkView*, 2> views{};  // nullptr: nothing is accelerated
  uint64_t network_owner = 0;                 // inode of the user namespace that owns its network namespace
  int first_unprivileged_port = 1024;         // for a bind inside; net.ipv4.ip_unprivileged_port_start

  // From here on its reactors'.
  std::atomic<IntroductionState> introduction = IntroductionState::kWanted;
  std::array<SideLane, 2> lanes;                       // as with views
  std::array<net::PlaceQueue::Share, 2> place_shares;  // as with views
  TimedCalls timed_calls;
  ClaimTable claims;
  std::vector<PublishedPort> published;
  // Sockets of the container's own network, for those that have to go back. Rarely needed, hence the lock.
  std::array<Workers, 2> workers;  // one for each of its reactors
  // Tells what this engine has done about the container from what others have: when it began,
  // CLOCK_MONOTONIC.
  const int64_t incarnation;
  WorkerSource* worker_source = nullptr;
  std::atomic<bool> has_complained = false;  // that no worker gets inside
  std::atomic<uint32_t> remarks = 0;         // that were made, a bit for each Remark
  std::mutex home_mutex;
  net::SpareSockets home4, home6;

 private:
  const Desk& DeskOf(const JournalRecord& record) const;

  struct FailingCall {
    SyscallNumber number;
    int error;
  };
  std::unique_ptr<const Dispatch> dispatch_;             // null: its calls are served as everybody's
  std::vector<std::unique_ptr<Middleware>> middleware_;  // a chain, in its order
  std::vector<FailingCall> errors_;
};

class SocketBench final : public Workbench {
 public:
  // In the host's network namespace.
  static absl::StatusOr<std::unique_ptr<SocketBench>> Create();
  // For connects to services. Once, before its reactor starts; outlives this.
  void Use(net::ReactorServices& services) { services_ = &services; }

  void Connect(Mailbox& reactor, Mailbox& control) override { twins.Connect(reactor, control); }
  int wake_fd() const override { return side->completion_fd(); }
  void OnWake() override;  // resumes the tasks whose jobs on the side thread are finished

  const uint64_t host_netns;
  const int socket_mount;             // DescriptorInfo::mount of every socket
  const int first_unprivileged_port;  // of the host
  net::TwinPool twins;
  net::RouteCache routes;
  net::ListenerCensus listeners;
  net::HolderProbe holders;
  std::unique_ptr<net::SideThread> side;

  // A port of the host on which nobody listens and to which nobody else can bind: ours. Host byte order.
  uint16_t taken_port() const { return taken_port_; }
  net::ReactorServices& services() const { return *services_; }
  const net::TwinDefaults& defaults(int family) const { return family == AF_INET ? defaults4_ : defaults6_; }

 private:
  SocketBench(uint64_t its_host_netns, int its_socket_mount, Fd route_socket, net::ListenerCensus census,
              net::HolderProbe probe)
      : host_netns(its_host_netns),
        socket_mount(its_socket_mount),
        first_unprivileged_port(net::FirstUnprivilegedPort()),
        routes(std::move(route_socket)),
        listeners(std::move(census)),
        holders(std::move(probe)) {}

  Fd port_holder_;
  uint16_t taken_port_ = 0;
  net::ReactorServices* services_ = nullptr;
  net::TwinDefaults defaults4_, defaults6_;
};

inline Container& ContainerOf(const Call& call) {
  return static_cast<Container&>(call.guest);
}
// nullptr: nothing is accelerated.
inline const NetworkView* ViewOf(const Call& call) {
  return ContainerOf(call).views[call.place];
}
inline SocketBench& BenchOf(const Call& call) {
  return static_cast<SocketBench&>(call.bench);
}

}  // namespace shunt
