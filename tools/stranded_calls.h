// SPDX-License-Identifier: Apache-2.0
// StrandedCalls: answers every trapped call with one errno while there is no engine, so that containers fail
// instead of hanging.
//
// Only while no engine that receives is alive: two who receive from one listener would wait for each other's
// notifications. One thread.

#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/fd.h"
#include "tools/holdings.h"

namespace shunt {

// What a container's trapped calls fail with while the keeper has given the engine up: the stated verdict.
// EIO: no program takes it for an answer of the network's, none repeats it at once.
inline constexpr int kStrandedVerdict = EIO;

class StrandedCalls {
 public:
  StrandedCalls();

  // Readable when HandleEvents() has something to do.
  int event_fd() const { return epoll_.get(); }

  // Takes in the listener of a container. What is none is left alone.
  void Add(const Holding& container);
  // To be called before the last copy of its descriptor here is closed.
  void Remove(const Holding& container);
  void HandleEvents();
  // Lets go of all listeners; to be called before any of their descriptors is closed.
  void End();

  size_t answered() const { return answered_; }

 private:
  void Forget(int listener_fd);

  Fd epoll_;
  std::vector<int> listeners_;  // in epoll_
  size_t answered_ = 0;
};

// Fails one call that somebody has received and not answered. For journals.
void FailCall(int listener_fd, uint64_t notification);

}  // namespace shunt
