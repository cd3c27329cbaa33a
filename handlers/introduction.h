// SPDX-License-Identifier: Apache-2.0
// Introduction: what a container's handlers must know before they can accelerate anything, brought by the
// control thread.
//
// Usually it is there before the first call. Where a runtime does not tell a pid (crun's exec), or nobody may
// look into the container before its program runs (crun's run), the first call waits for it.

#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "core/call.h"
#include "net/spare_sockets.h"

namespace shunt {

class Container;
class HostPort;
struct NetworkView;

struct Introduction {
  uint64_t netns = 0;
  uint64_t network_owner = 0;
  int first_unprivileged_port = 1024;
  net::SpareSockets home4, home6;
  std::vector<std::shared_ptr<HostPort>> host_ports;  // for the first of Container::published, in their order

  // On one of the container's reactors, before they have a view.
  void MoveInto(Container& container);
};

enum class IntroductionState : uint8_t {
  kWanted,
  kUnderWay,
  kDone,    // each of its reactors has the view, or is about to get it
  kFailed,  // nothing of it is accelerated
};

class Introducer {
 public:
  virtual ~Introducer() = default;
  // Control thread. `container` is only named by it, not looked into.
  virtual absl::Status Introduce(Container& container, pid_t tid, Introduction& out) = 0;
  // Control thread, after Introduction::MoveInto: gives the container's reactors its view.
  virtual void Activate(Container& container) = 0;
};

// The handlers of connect and bind, and what they are about.
struct AddressCall {
  Reply (*handler)(Call& call, int number, uint64_t address, int length);
  int number;
  uint64_t address;
  int length;
};

// For the first trapped connects and binds of a container that nobody has introduced: the very first one has
// it introduced, all wait until it is and are handled then. False if there is nothing to wait for.
bool NeedsIntroduction(const Call& call);
Reply IntroduceFirst(Call& call, const AddressCall& what);

}  // namespace shunt
