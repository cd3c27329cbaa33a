// SPDX-License-Identifier: Apache-2.0
// Services: the thread that decides about services, and the way of what it decides to the reactors and back.
//
//   sources (net/discovery), checks (net/balancer/connect_checks), failed connects (net/balancer/outcomes)
//      -> Balancer (net/balancer/balancer.h), which decides and makes tables
//      -> each reactor, by one pointer store between two calls; the table before it comes back
//
// What the kernel says of connections (net/balancer/live_counts) goes to all reactors at once, without a
// message but where calls wait for a place.
//
// The Balancer is behind a lock that no reactor takes: the control thread asks it and tells it what the
// operator wants, and may wait for a table that is being made.

#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <latch>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_set>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/engine.h"
#include "core/mailbox.h"
#include "net/aimed_flows.h"
#include "net/balancer/balancer.h"
#include "net/balancer/connect_checks.h"
#include "net/balancer/live_counts.h"
#include "net/balancer/reactor_services.h"
#include "net/discovery/source.h"
#include "net/netns.h"
#include "net/spare_sockets.h"

namespace shunt {

class Services {
 public:
  // Makes the source that a service wants. On the services' thread. If it fails, it has told why.
  using MakeSource = std::function<absl::StatusOr<std::unique_ptr<net::Source>>(
      const net::ServiceSpec& service, net::Source::Tell tell, net::Source::TellServices tell_services)>;

  // `make_source` may be empty: then no service is discovered.
  // `affinities`: what reactors remember; outlives this; null: nothing.
  static absl::StatusOr<std::unique_ptr<Services>> Create(size_t reactors, MakeSource make_source,
                                                          net::AffinityMemory* affinities);
  // After the reactors have ended.
  ~Services();

  // Good as long as this is.
  net::ReactorServices& SeatOf(size_t reactor) { return *seats_[reactor]; }
  // When the engine's reactors run, in the order of their seats: begins. `closings_due` is called on the
  // control thread when TakeClosings() has some.
  absl::Status Start(Engine& engine, std::function<void()> closings_due);
  // Ends the thread; no reactor hears anything more. Before the reactors end.
  void Stop();

  // Any thread but the reactors'. Without Start(), nothing comes of it.
  // Before Configure(): what the sources had found for an engine before this one (Balancer::Remember()).
  void Remember(std::vector<net::FoundBackends> found);
  void Configure(std::vector<net::ServiceSpec> services, std::string zone);
  // Waits until what was configured last is in force, some seconds at most; and for the first word of sources
  // that have not said anything yet, two seconds at most: what they have is there for who connects first.
  void AwaitTable();
  absl::Status Tell(std::string_view service, std::string_view backend, const net::BackendCommand& command);
  std::vector<net::ServiceReport> Describe() const;
  // What only the control thread can do: it has the rights over the containers.
  struct Wants {
    std::vector<net::DueClosing> closings;  // connections to these are to be closed
    std::vector<net::DueAiming> aimings;    // UDP flows that are elsewhere are to be aimed anew
    bool sockets = false;  // of a container's own network, for the checks of services that are there
    // What sources have found since the last time, for engines to come: of each service the last word.
    std::vector<net::FoundBackends> found;
    std::vector<std::string> remarks;  // lines for the operator
  };
  Wants TakeWants();
  void GiveSockets(net::NetnsVisit visit);
  // Any thread but the reactors'. A new aim for a UDP flow that is to leave its backend, as Wants::aimings
  // say, which is connected to `peer` now; nothing: there is none, and it stays. `owner`: its container's
  // affinity key.
  std::optional<net::SockAddr> Aim(const net::DueAiming& aiming, const net::AimedFlows::Flow& flow,
                                   const net::SockAddr& peer, uint64_t owner);

 private:
  struct Delivery;
  struct Watched {
    net::DiscoverSpec spec;
    std::unique_ptr<net::Source> source;
  };

  Services(size_t reactors, MakeSource make_source, Fd epoll, Fd wake);
  absl::Status Watch(int fd);
  void Run();
  void Turn(int64_t now);
  int64_t NextDue() const;
  void ChooseSources();
  void HearOutcomes(int64_t now);
  void Deliver(std::shared_ptr<const net::ServiceTable> table);
  static void OnDelivered(Message& message);
  static void OnReturned(Message& message);
  void LookForPlaces(int64_t now);
  Result<Fd> MakeSocket(net::ServiceNetwork network, int family);
  void PassWants(int64_t now);
  void PassAimings(int64_t now);
  void PassFound(int64_t now);
  void Wake();

  const MakeSource make_source_;
  Fd epoll_;
  Fd wake_;  // an eventfd: outcomes, new wishes, the end
  Mailbox returned_;
  net::BackendCountBook counts_;
  std::vector<std::unique_ptr<net::ReactorServices>> seats_;
  net::AffinityMemory* affinities_ = nullptr;
  Engine* engine_ = nullptr;
  std::function<void()> wants_due_;

  mutable std::mutex mutex_;  // what follows
  net::Balancer balancer_;
  net::LiveCounts live_counts_;
  std::vector<net::ServiceSpec> wishes_;  // as configured
  net::PickSeat aim_seat_;                // behind those of the reactors
  std::vector<net::DueAiming> aimings_;   // until the table is in force that they are about
  Wants wants_;
  Message wants_message_;
  bool wants_told_ = false;                     // the message is under way
  int64_t sockets_asked_ = 0;                   // when; CLOCK_MONOTONIC, ns
  std::vector<net::FoundBackends> remembered_;  // until services are configured
  std::unordered_set<std::string> found_;       // services of which wants_.found is to tell
  int64_t found_due_ = 0;                       // when it may do so again; CLOCK_MONOTONIC, ns
  net::SpareSockets inside4_, inside6_;
  bool sources_changed_ = false;
  bool table_awaited_ = false;   // until what was configured is in force
  int64_t sources_awaited_ = 0;  // and so long for their first word; CLOCK_MONOTONIC, ns
  std::condition_variable table_in_force_;

  // The thread's.
  std::unique_ptr<net::ConnectChecks> checks_;
  std::map<std::string, Watched> sources_;  // by service
  std::shared_ptr<const net::ServiceTable> in_force_;
  std::unique_ptr<Delivery> delivery_;  // under way; one at a time
  // Of each reactor: that there may be places for those who wait with it.
  struct Offer {
    net::ReactorServices* seat = nullptr;
    std::atomic<bool> under_way = false;
    Message message;
  };
  std::vector<std::unique_ptr<Offer>> offers_;
  std::atomic<bool> stopping_ = false;
  std::latch begun_{1};  // the thread has dropped its capabilities
  std::thread thread_;
};

}  // namespace shunt
