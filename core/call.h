// SPDX-License-Identifier: Apache-2.0
// Call: a notification being handled; all that a handler gets to see.
//
// Guest and Workbench are where the layers above keep what they know: core carries them along and never looks
// inside.

#pragma once

#include "core/counters.h"
#include "core/listener.h"
#include "core/mailbox.h"
#include "core/notification.h"
#include "core/reply.h"
#include "core/target.h"

namespace shunt {

class Reactor;
struct ServedListener;

// What the layers above know of one container. Made and destroyed on the control thread, used on its
// listener's reactor.
class Guest {
 public:
  virtual ~Guest() = default;
};

// What the layers above keep for one reactor: pools, caches. Made on the control thread before the reactor
// starts.
class Workbench {
 public:
  virtual ~Workbench() = default;
  // Called once, before the reactor starts: where messages reach its thread and the control thread.
  virtual void Connect(Mailbox& /*reactor*/, Mailbox& /*control*/) {}
  // A descriptor that becomes readable when OnWake() has something to do on the reactor's thread; -1: none.
  virtual int wake_fd() const { return -1; }
  virtual void OnWake() {}
  // A container's listener has ended: drop what is kept for it. `owner` as in TargetCache.
  virtual void Forget(Guest& /*guest*/) {}
};

struct Call {
  Notification notification;
  Reactor& reactor;
  ServedListener& served;  // the listener's place in its reactor
  const Listener& listener;
  Guest& guest;
  Workbench& bench;
  Counters& counters;
  uint64_t owner;  // tells listeners apart in the TargetCache
  TargetCache& targets;

  uint64_t arg(size_t index) const { return notification.args[index]; }
  // The 32-bit view of an argument: descriptors and lengths are ints whatever the upper half of the register
  // holds.
  int int_arg(size_t index) const { return static_cast<int>(notification.args[index]); }
  Target& target() const { return targets.Find(owner, notification.tid); }
  bool StillValid() const { return listener.StillValid(notification.id); }
};

using Handler = Reply (*)(Call& call);

// Which handler serves a system call. The name is the kernel's, resolved for every architecture that the
// machine runs.
struct Route {
  const char* syscall;
  Handler handler;
};

}  // namespace shunt
