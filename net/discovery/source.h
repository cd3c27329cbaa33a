// SPDX-License-Identifier: Apache-2.0
// Source: where the backends of one service are found, and found again when they change.
//
// A source asks nobody to wait: it has a descriptor to watch and a time to be called at. It tells its owner
// when it has found something other than before, and when it cannot find anything; what it has found stays
// in force then, and it goes on trying. One thread.

#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "net/balancer/found.h"

namespace shunt::net {

class Source {
 public:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  // A list (in the order in which the source has it), or why there is none now. Told once for each change of
  // either, the first time always. After an error a list is told again even if it is the old one: that is how
  // one hears that the source answers again. An error right after a list says what is missing from that.
  // Called from Advance() only; must not destroy the source.
  using Tell = std::function<void(absl::StatusOr<std::vector<BackendSpec>>)>;
  // Of services, where these are what it finds, one by one: what has become of them since the last time, and
  // what is wrong now; OK: nothing. Told once for each change of either, and else as above.
  using TellServices = std::function<void(FoundChanges changes, const absl::Status& wrong)>;

  virtual ~Source() = default;

  // For messages: "file /etc/shunt/orders.yaml", "dns _http._tcp.orders.svc".
  virtual std::string Title() const = 0;
  // Readable when Advance() has something to do; the same as long as the source lives. -1: none.
  virtual int event_fd() const = 0;
  // When Advance() is to be called at the latest. CLOCK_MONOTONIC, ns.
  virtual int64_t NextDue() const = 0;
  // Does what there is to do, without waiting; may call Tell. Called once to begin with.
  virtual void Advance(int64_t now) = 0;
};

}  // namespace shunt::net
