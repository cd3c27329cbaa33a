// SPDX-License-Identifier: Apache-2.0
// ServiceErrands: what is done in containers when backends of services go. Connections to them are closed,
// UDP flows are aimed at others.
//
// For that a container's descriptors are looked through, of which it may have as many as it likes. So there
// is a thread that does nothing else, and the containers take turns on it: each has a slice of it, goes on
// where it was when its turn comes again, and is given up when it has used too much. All that is wanted in a
// container by then is done in one walk; what is wanted while that is under way, in one more.

#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <latch>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "core/counters.h"
#include "net/aimed_flows.h"
#include "net/balancer/balancer.h"
#include "net/flow_aiming.h"
#include "net/held_descriptors.h"
#include "net/sock_addr.h"

namespace shunt {

// A container, as far as it takes.
struct ErrandPlace {
  uint64_t key = 0;                  // its name
  pid_t task = 0;                    // in its network
  uint64_t netns = 0;                // the cookie of its network; 0: not known
  uint64_t owner = 0;                // its affinity key
  net::AimedFlows* flows = nullptr;  // good until Forget()
};

// Control thread, but where it says so.
class ServiceErrands {
 public:
  // As Services::Aim(). On the errands' thread.
  using Aim = std::function<std::optional<net::SockAddr>(const net::DueAiming& aiming,
                                                         const net::AimedFlows::Flow& flow,
                                                         const net::SockAddr& peer, uint64_t owner)>;

  // Has CAP_SYS_PTRACE, if we have. `counters` are for its thread to write; outlive this.
  static absl::StatusOr<std::unique_ptr<ServiceErrands>> Start(Aim aim, Counters& counters);
  // Ends with what it is at.
  ~ServiceErrands();
  ServiceErrands(const ServiceErrands&) = delete;
  ServiceErrands& operator=(const ServiceErrands&) = delete;

  // To be done in all of these containers, some time soon.
  void Give(const std::vector<net::DueClosing>& closings, std::vector<net::DueAiming> aimings,
            const std::vector<ErrandPlace>& places);
  // The container has ended: returns when nothing of it is used any more, after a slice at the latest.
  void Forget(uint64_t key);
  // Waits until all is done, two seconds at most.
  void Finish();

 private:
  struct Round {
    absl::flat_hash_set<uint64_t> closings;                 // BackendIdentity() of the peers
    absl::flat_hash_map<uint64_t, net::DueAiming> aimings;  // by HashOfName() of their services
  };
  struct Errand {
    ErrandPlace place;
    net::Namespace network;
    std::shared_ptr<const Round> next;  // null: nothing
    // The thread's.
    std::shared_ptr<const Round> now;
    std::optional<net::SocketWalk> walk;
    std::optional<net::FlowAiming> aiming;
    int64_t spent = 0;       // CPU time, ns
    bool forgotten = false;  // its container is about to go: it does not go on
  };

  ServiceErrands(Aim aim, Counters& counters) : aim_(std::move(aim)), counters_(counters) {}
  static std::shared_ptr<const Round> Merged(const Round& before, const Round& after);
  static bool Leaves(const Round& round, const net::AimedFlows::Flow& flow);
  static bool Concerns(const Round& round, const net::AimedFlows& flows);
  void Run();
  bool Advance(Errand& errand);

  const Aim aim_;
  Counters& counters_;

  std::mutex mutex_;  // what follows
  std::condition_variable given_, slice_over_;
  std::map<uint64_t, Errand> errands_;
  std::deque<uint64_t> line_;  // whose turn it is
  uint64_t at_ = 0;            // the container that the thread is in now, without the lock; 0: none
  bool ending_ = false;

  std::latch begun_{1};  // the thread has dropped its capabilities
  std::thread thread_;
};

}  // namespace shunt
