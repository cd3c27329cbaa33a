// SPDX-License-Identifier: Apache-2.0
// ConnectChecks: tries whether backends take connections, for the Balancer's active checks.
//
// A check is a TCP connection that is made and closed at once, with a reset, so that neither side keeps it in
// TIME-WAIT. It is up if the connection is there before `timeout_ns` is over, counted from when the check
// begins: those that find limits::kConnectChecks under way wait for their turn. What the machine is short of
// (descriptors, ports, memory) says nothing about a backend: such a check is skipped, and the next one is
// another chance.
//
// One thread, nothing waits. Times are CLOCK_MONOTONIC, ns, as the caller says.

#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "core/fd.h"
#include "core/limits.h"
#include "core/result.h"
#include "net/balancer/balancer.h"

namespace shunt::net {

class ConnectChecks {
 public:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  // For Balancer::Checked(). `error` is empty if it is up, and lives for the call only. Called from
  // Advance(); may call Begin(), must not destroy the checks.
  using Told =
      std::function<void(uint32_t slot, uint64_t check, bool up, std::string_view error, int64_t now)>;
  // For Balancer::CheckSkipped(), and as above: nothing can be told of it.
  using Skipped = std::function<void(uint32_t slot, uint64_t check, int64_t now)>;

  // A TCP socket in the network in which backends of such services are, nonblocking and close-on-exec. An
  // errno that is no shortage means that no backend can be reached from there.
  using MakeSocket = std::function<Result<Fd>(ServiceNetwork network, int family)>;

  // Without `make`: sockets of this process's network, whichever is asked for.
  static absl::StatusOr<std::unique_ptr<ConnectChecks>> Create(Told told, MakeSocket make = {},
                                                               Skipped skipped = {});

  // Advance() makes it. A check of a slot replaces one that still waits for its turn, of which nothing is
  // told then.
  void Begin(const DueCheck& check, int64_t now);

  // Readable when Advance() has something to do; the same as long as this lives.
  int event_fd() const { return events_.get(); }
  // When Advance() is to be called at the latest. kNever: when event_fd() says so.
  int64_t NextDue() const;
  void Advance(int64_t now);

  size_t under_way() const { return attempts_.size() - free_.size(); }
  size_t waiting() const { return queue_.size(); }

 private:
  struct Attempt {
    DueCheck check;
    Fd socket;  // not valid: this place is free
    int64_t deadline = 0;
  };

  ConnectChecks(Fd events, Told told, MakeSocket make, Skipped skipped);
  void Skip(const DueCheck& check, int64_t now) const;

  void Start(const DueCheck& check, int64_t now);
  // Its socket has something to say.
  void Hear(size_t place, int64_t now);
  // `error`: why it is down; empty: it is up.
  void Finish(size_t place, std::string_view error, int64_t now);
  void Fail(const DueCheck& check, int error, int64_t now);

  const Fd events_;
  const Told told_;
  const MakeSocket make_;
  const Skipped skipped_;
  std::vector<Attempt> attempts_;
  std::vector<size_t> free_;  // places in attempts_
  std::deque<uint32_t> queue_;
  std::unordered_map<uint32_t, DueCheck> waiting_;  // by slot: what stands in the queue
  int64_t called_ = 0;                              // the last time that anybody has told
};

}  // namespace shunt::net
