// SPDX-License-Identifier: Apache-2.0
// RuntimeDoor: accepts the connections of container runtimes and has the keeper hold them, for whichever
// engine serves. So no engine that dies takes a connection with it.
//
// Who has connected is not looked at here: engines judge, and drop what they have finished with, which is
// also when one has more than limits::kRuntimeConnections. A bounded number more than that is held; beyond it
// connections wait in the socket's queue until an engine has dropped one. While there is an engine, silent
// ones are therefore in nobody's way, and while there is none they take no more descriptors than that. During
// an upgrade they wait in the queue as well.
//
// Never blocks. It belongs to the keeper's process, into its poll loop, and makes no system call that the
// keeper does not make, but for accept4.

#pragma once

#include <chrono>
#include <cstdint>

#include "core/fd.h"
#include "core/limits.h"
#include "tools/keeper.h"

namespace shunt {

class RuntimeDoor {
 public:
  // `socket` listens. `keeper` outlives the door, and holds already what it has taken over from a keeper
  // before it: new connections are named behind those.
  RuntimeDoor(Fd socket, Keeper& keeper);

  // For a poll loop, anew in each turn: when it is readable, Accept(). -1: there is no room now.
  int fd() const;
  // In how many milliseconds fd() changes though nothing else happens; -1: it does not.
  int timeout() const;
  // Takes in who waits, up to a bounded number.
  void Accept();

  // Who has not been accepted stays in the socket's queue: another one may have it.
  void Close() { socket_.reset(); }

  static constexpr size_t kMostHeld = limits::kRuntimeConnections + limits::kConnectionsUnderWay;

 private:
  using Clock = std::chrono::steady_clock;

  bool HasRoom() const;
  void Pause();

  Fd socket_;
  Keeper& keeper_;
  uint64_t last_name_ = 0;
  Clock::time_point closed_until_;
  Clock::time_point complained_;
};

}  // namespace shunt
