// SPDX-License-Identifier: Apache-2.0
// Call: a notification being handled; all that a handler gets to see.
//
// Guest and Workbench are where the layers above keep what they know: core carries them along and never looks
// inside.

#pragma once

#include "core/counters.h"
#include "core/journal.h"
#include "core/listener.h"
#include "core/mailbox.h"
#include "core/notification.h"
#include "core/reply.h"
#include "core/target.h"

namespace shunt {

class Dispatch;
class Middleware;
class Reactor;
struct Seat;

// What the layers above know of one container. Made and destroyed on the control thread, used on its
// listener's reactor.
class Guest {
 public:
  virtual ~Guest() = default;
  // Who serves which of its calls; nullptr: the table that holds for all containers. Asked once, before the
  // first call; lives as long as the guest.
  virtual const Dispatch* dispatch() const { return nullptr; }
  // The first link of what stands around its handlers; nullptr: nothing does. Asked and lives as the above.
  virtual Middleware* middleware() const { return nullptr; }
  // A signal has taken the caller out of a call that had a side effect, and the answer did not reach it. If
  // the call is restarted it comes as a new one, and shall find what was done. On the reactor's thread.
  // `reached` is how far the call had come before it was answered.
  virtual void Unanswered(const JournalRecord& /*record*/, Stage /*reached*/, Target& /*caller*/,
                          Reply /*reply*/) {}
  // An engine before this one has left a call whose caller does not wait any more, answered or not.
  virtual void LeftBehind(const JournalRecord& /*record*/) {}
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
  Seat& seat;  // the listener's place in this reactor
  size_t
      place;  // 0 on the listener's reactor, 1 on the one that helps: for what a guest keeps for each of them
  // Nobody else is inside a handler of this container's, on whatever reactor, and no task of its is under
  // way.
  bool alone;
  const Listener& listener;
  Guest& guest;
  Workbench& bench;
  Counters& counters;
  uint64_t owner;  // tells listeners apart in the TargetCache
  TargetCache& targets;
  // What a new engine will know of this call if we die: note every side effect there before it happens.
  JournalRecord& record;
  uint32_t attempts = 0;  // how often this call has been put off (Pause)

  uint64_t arg(size_t index) const { return notification.args[index]; }
  // The 32-bit view of an argument: descriptors and lengths are ints whatever the upper half of the register
  // holds.
  int int_arg(size_t index) const { return static_cast<int>(notification.args[index]); }
  Target& target() const { return targets.Find(owner, notification.tid); }
  // The call was received by an engine that died before it answered. record.stage says how far it came.
  bool resumed() const { return record.resumed != 0; }
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
