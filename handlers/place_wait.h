// SPDX-License-Identifier: Apache-2.0
// AwaitPlace: a blocking connect to a service whose backends have as many connections as they may have waits
// in the queue of that service (net/balancer/place_queue.h).
//
// Nothing has happened to the socket, or an attempt has failed; it is not claimed meanwhile, and the call
// keeps no table. Who dies, or is called away by a signal, has waited for nothing, and so has who is killed
// together with the engine: the next one receives the call anew.

#pragma once

#include <algorithm>
#include <cerrno>
#include <optional>

#include "core/clock.h"
#include "core/task.h"
#include "handlers/balance.h"
#include "handlers/connection.h"
#include "handlers/container.h"
#include "handlers/destination.h"
#include "handlers/pending_signals.h"
#include "handlers/timed_call.h"
#include "net/balancer/place_queue.h"

namespace shunt {

// What a call waits with.
struct PlaceWish {
  int family = 0;                // of its socket
  uint64_t inode = 0;            // of its socket
  int64_t send_timeout_ns = 0;   // SO_SNDTIMEO; 0: none
  int64_t queue_timeout_ns = 0;  // the service's
  int if_refused = ECONNREFUSED;
};

// What the queue asks when there may be places.
enum class PlaceFound : uint8_t { kYes, kNotYet, kNever };

// `find(destination)` picks a backend for it.
template <typename Find>
class PlaceWait final : public net::PlaceQueue::Waiter {
 public:
  PlaceWait(const Call& call, Destination& to, Find find)
      : Waiter(BenchOf(call).services().queue, static_cast<uint32_t>(to.service),
               ContainerOf(call).place_shares[call.place]),
        call_(call),
        to_(to),
        find_(find) {}

  // False: there is no room, or no such service any more.
  bool Join() {
    const net::Service* const service = ServiceNow();
    if (service == nullptr) return false;
    tally_ = service->queue.get();
    return Waiter::Join(*tally_, service->limits.queue);
  }
  PlaceFound found() const { return found_; }
  // A wait that ends without one.
  void CountRefusal() const {
    if (const net::Service* const service = ServiceNow())
      service->queue->refused.fetch_add(1, std::memory_order_relaxed);
  }
  // As long as it sleeps in `pause`.
  void SleepIn(Pause* pause) { pause_ = pause; }

 private:
  const net::Service* ServiceNow() const {
    const net::ServiceTable* const table = BenchOf(call_).services().table;
    return table == nullptr ? nullptr : table->At(static_cast<uint32_t>(to_.service));
  }
  void Look() override {
    // Who was called away may be back already, and is not to find the queue full of himself.
    found_ = call_.StillValid() ? find_(call_, to_) : PlaceFound::kNever;
    if (found_ == PlaceFound::kNotYet) return;
    if (found_ == PlaceFound::kYes) {
      tally_->waited.fetch_add(1, std::memory_order_relaxed);
      tally_->waited_ns.fetch_add(static_cast<uint64_t>(MonotonicNow() - begun_), std::memory_order_relaxed);
    }
    EndWait();
  }
  void GiveWay() override {
    CountRefusal();
    found_ = PlaceFound::kNever;
    EndWait();
  }
  void EndWait() {
    Leave();
    if (pause_ != nullptr) pause_->Stop();
  }

  const Call& call_;
  Destination& to_;
  Find find_;
  const int64_t begun_ = MonotonicNow();
  net::QueueTally* tally_ = nullptr;  // good while it is joined
  Pause* pause_ = nullptr;
  PlaceFound found_ = PlaceFound::kNotYet;
};

// With a place, the call goes on with `go_on(call, wish, destination)`.
template <typename Find, typename GoOn>
Task AwaitPlace(Call call, PlaceWish wish, Destination to, Find find, GoOn go_on) {
  int64_t& deadline = call.record.deadline_ns;
  if (deadline == 0 && wish.send_timeout_ns > 0) deadline = MonotonicNow() + wish.send_timeout_ns;
  const int64_t wait_ends = MonotonicNow() + wish.queue_timeout_ns;
  // A signal has called the thread away from an earlier call, which may be in the queue of another reactor
  // for a moment yet, and keep its own place from it.
  const bool is_back = ContainerOf(call).timed_calls.TakeInterrupted(call.notification.tid, /*inode=*/0);
  {
    PlaceWait<Find> wait(call, to, find);
    if (!wait.Join() && is_back) {
      co_await Pause(call, 2 * kLookAfterNs);
      if (!call.StillValid() || call.seat.ended) co_return Reply::Gone();
      wait.Join();
    }
    if (!wait.joined()) {
      wait.CountRefusal();
      co_return Reply::Fail(wish.if_refused);
    }
    const TimedCalls::Mark waiting(ContainerOf(call).timed_calls, call.notification.tid,
                                   deadline == 0 ? 0 : wish.inode);
    while (wait.found() == PlaceFound::kNotYet) {
      const int64_t end = deadline == 0 ? wait_ends : std::min(deadline, wait_ends);
      Pause pause(call, std::clamp<int64_t>(end - MonotonicNow(), 1, kLookAfterNs));
      wait.SleepIn(&pause);
      co_await pause;
      wait.SleepIn(nullptr);
      if (!call.StillValid() || call.seat.ended) co_return Reply::Gone();
      if (wait.found() != PlaceFound::kNotYet) break;
      if (SignalKeptBack(call.notification.tid)) co_return Reply::Fail(EINTR);
      if (deadline != 0 && MonotonicNow() >= deadline) co_return Reply::Fail(EINPROGRESS);
      if (MonotonicNow() >= wait_ends) {
        wait.CountRefusal();
        co_return Reply::Fail(wish.if_refused);
      }
    }
    if (wait.found() == PlaceFound::kNever) co_return Reply::Fail(wish.if_refused);
  }
  call.alone = false;
  const Reply reply = go_on(call, wish, to);
  co_return reply;
}

}  // namespace shunt
