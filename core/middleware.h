// SPDX-License-Identifier: Apache-2.0
// Middleware: what stands around every handler of a container: a chain of links, each of which learns of a
// call when it has been answered, and how long that took since it was received.
//
// A handler does not know of it: the reactor notes when a call of a container with a chain is received, and
// walks along the chain where all calls end, be it after a handler, a task, a worker, or another engine. A
// container without one costs its reactor a pointer's comparison at either end.
//
// A link is a class of its own (handlers/request_times.h is the first), which Container::Obey makes for whom
// the policy names it.

#pragma once

#include <cstddef>
#include <cstdint>

#include "core/notification.h"

namespace shunt {

struct AnsweredCall {
  const Notification& notification;
  int error;            // with which the call failed; 0: it did not, or the kernel went on with it
  int64_t nanoseconds;  // from when it was received to when the answer was out
  size_t reactor;       // the index of the one that answered
};

// Made and destroyed with its Guest, which sets `next` before the first call.
class Middleware {
 public:
  virtual ~Middleware() = default;
  // On the reactor's thread, where nothing may allocate; on two at once while a reactor helps.
  virtual void Answered(const AnsweredCall& call) = 0;

  Middleware* next = nullptr;
};

}  // namespace shunt
