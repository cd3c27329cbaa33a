// SPDX-License-Identifier: Apache-2.0
// TimedCalls: the connects with a send timeout that wait in the engine, by thread.
//
// A signal takes a thread out of its trapped call without our being told. With SA_RESTART the same thread
// then calls again, although for a socket with a send timeout the kernel itself would have said EINTR. So: a
// thread that calls while an earlier call of its own still waits has been interrupted.

#pragma once

#include <sys/types.h>

namespace shunt {

class TimedCalls {
 public:
  // One waiting call; lives in its task's frame.
  class Mark {
   public:
    Mark(TimedCalls& calls, pid_t tid) : tid_(tid), link_(&calls.first_), next_(calls.first_) {
      if (next_ != nullptr) next_->link_ = &next_;
      calls.first_ = this;
    }
    Mark(const Mark&) = delete;
    Mark& operator=(const Mark&) = delete;
    ~Mark() {
      *link_ = next_;
      if (next_ != nullptr) next_->link_ = link_;
    }

   private:
    friend class TimedCalls;
    pid_t tid_;
    Mark** link_;
    Mark* next_;
  };

  // True if `tid` is found waiting: its earlier call is over. Says so only once for each.
  bool TakeInterrupted(pid_t tid) {
    for (Mark* mark = first_; mark != nullptr; mark = mark->next_) {
      if (mark->tid_ != tid) continue;
      mark->tid_ = 0;
      return true;
    }
    return false;
  }

 private:
  Mark* first_ = nullptr;
};

}  // namespace shunt
