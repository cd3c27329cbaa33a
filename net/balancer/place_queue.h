// SPDX-License-Identifier: Apache-2.0
// PlaceQueue: calls that wait for a place at a backend of their service, on one reactor, first come, first
// served. And QueueTally: what all reactors have in the queue of one service, and what has become of it.
//
// A place becomes free when its connection is closed, which nobody tells: the kernel is asked more often
// while somebody waits (net/balancer/live_counts.h), and after each look all reactors offer what there is to
// those who wait with them, in their order. Who comes later takes none before them.
//
// All services have one queue on a reactor, and its room is shared out between containers: where there is
// none left, the container that has most of it loses the last that it has taken to one that has less.

#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/limits.h"

namespace shunt::net {

// Of one service, as long as that is configured. Any thread.
struct QueueTally {
  std::atomic<uint32_t> waiting{0};
  std::atomic<uint64_t> refused{0};  // connects for which there was no place, in the end
  std::atomic<uint64_t> waited{0};   // connects that have waited, and how long together
  std::atomic<uint64_t> waited_ns{0};
};

// The reactor's thread, but for busy().
class PlaceQueue {
 public:
  // What one container has of the queue.
  struct Share {
    size_t waiting = 0;
  };

  // In its task's frame. Leaves when it goes.
  class Waiter {
   public:
    // `share` is its container's, and outlives it.
    Waiter(PlaceQueue& queue, uint32_t service, Share& share)
        : queue_(queue), service_(service), share_(share) {}
    Waiter(const Waiter&) = delete;
    Waiter& operator=(const Waiter&) = delete;
    virtual ~Waiter() { Leave(); }

    // False: there is no room, in the queue of `most` or on this reactor.
    bool Join(QueueTally& tally, uint32_t most) {
      if (!queue_.Enter(share_, tally, most)) {
        queue_.Offer();  // somebody may be in it who does not wait any more
        if (!queue_.Enter(share_, tally, most)) return false;
      }
      tally_ = &tally;
      before_ = queue_.last_;
      (before_ != nullptr ? before_->behind_ : queue_.first_) = this;
      queue_.last_ = this;
      ++share_.waiting;
      queue_.SetCount(queue_.count_ + 1);
      if (queue_.count_ == 1) queue_.WakeWhoLooks();
      return true;
    }
    bool joined() const { return tally_ != nullptr; }

   protected:
    // There may be a place, or another table: leaves if it has found one, or there is nothing to wait for.
    virtual void Look() = 0;
    // It has to leave, without a place.
    virtual void GiveWay() = 0;
    void Leave() {
      if (tally_ == nullptr) return;
      tally_->waiting.fetch_sub(1, std::memory_order_relaxed);
      tally_ = nullptr;
      (before_ != nullptr ? before_->behind_ : queue_.first_) = behind_;
      (behind_ != nullptr ? behind_->before_ : queue_.last_) = before_;
      --share_.waiting;
      queue_.SetCount(queue_.count_ - 1);
    }

   private:
    friend class PlaceQueue;
    PlaceQueue& queue_;
    const uint32_t service_;
    Share& share_;
    QueueTally* tally_ = nullptr;  // null: it is not in the queue
    Waiter* before_ = nullptr;
    Waiter* behind_ = nullptr;
  };

  // Half of the tasks that there may be: however many wait, others find a slot.
  static constexpr size_t kMost = limits::kTaskSlots / 2;

  // `event_fd`: wakes the thread that looks; outlives this.
  explicit PlaceQueue(int event_fd) : event_fd_(event_fd) {}

  bool HasWaiters(uint32_t service) const {
    for (const Waiter* waiter = first_; waiter != nullptr; waiter = waiter->behind_) {
      if (waiter->service_ == service) return true;
    }
    return false;
  }
  // Has all of them look, in their order.
  void Offer() {
    for (Waiter* waiter = first_; waiter != nullptr;) {
      Waiter* const next = waiter->behind_;
      waiter->Look();
      waiter = next;
    }
  }
  // Somebody waits. Any thread.
  bool busy() const { return busy_.load(std::memory_order_relaxed); }

 private:
  bool Enter(const Share& share, QueueTally& tally, uint32_t most) {
    uint32_t waiting = tally.waiting.load(std::memory_order_relaxed);
    do {
      if (waiting >= most) return false;
    } while (!tally.waiting.compare_exchange_weak(waiting, waiting + 1, std::memory_order_relaxed));
    if (count_ < kMost || MakeRoomFor(share)) return true;
    tally.waiting.fetch_sub(1, std::memory_order_relaxed);
    return false;
  }
  // False: no container has so many more places that it would not be worse off than this one.
  bool MakeRoomFor(const Share& share) {
    Waiter* last = first_;  // of the container that has most
    for (Waiter* waiter = first_; waiter != nullptr; waiter = waiter->behind_) {
      if (waiter->share_.waiting >= last->share_.waiting) last = waiter;
    }
    if (last->share_.waiting < share.waiting + 2) return false;
    last->GiveWay();
    return true;
  }
  void SetCount(size_t count) {
    count_ = count;
    busy_.store(count > 0, std::memory_order_relaxed);
  }
  void WakeWhoLooks() const {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(event_fd_, &one, sizeof(one));
  }

  const int event_fd_;
  Waiter* first_ = nullptr;
  Waiter* last_ = nullptr;
  size_t count_ = 0;
  std::atomic<bool> busy_{false};
};

}  // namespace shunt::net
