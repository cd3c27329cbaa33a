// SPDX-License-Identifier: Apache-2.0
// Mailbox: how one thread gives another something to do. Messages belong to whoever sent them and are linked
// through themselves, so that neither side allocates.

#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

#include "core/check.h"
#include "core/fd.h"

namespace shunt {

// `deliver` runs on the receiving thread and may free the message or send it on.
struct Message {
  void (*deliver)(Message& self) = nullptr;
  void* context = nullptr;  // the sender's: what the message is about
  Message* next = nullptr;

  template <typename T>
  T& about() const {
    return *static_cast<T*>(context);
  }
};

class Mailbox {
 public:
  Mailbox() : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) { SHUNT_CHECK(event_.valid()); }

  // Readable while there may be messages.
  int event_fd() const { return event_.get(); }

  // From any thread.
  void Push(Message* message) {
    Message* head = head_.load(std::memory_order_relaxed);
    do {
      message->next = head;
    } while (
        !head_.compare_exchange_weak(head, message, std::memory_order_release, std::memory_order_relaxed));
    if (head == nullptr) {
      const uint64_t one = 1;
      [[maybe_unused]] const ssize_t written = write(event_.get(), &one, sizeof(one));
    }
  }

  // On the owner's thread: delivers all that is there, in the order in which it was sent.
  void Deliver() {
    uint64_t ignored;
    [[maybe_unused]] const ssize_t got = read(event_.get(), &ignored, sizeof(ignored));
    Message* newest_first = head_.exchange(nullptr, std::memory_order_acquire);
    Message* oldest_first = nullptr;
    while (newest_first != nullptr) {
      Message* const next = newest_first->next;
      newest_first->next = oldest_first;
      oldest_first = newest_first;
      newest_first = next;
    }
    while (oldest_first != nullptr) {
      Message* const message = oldest_first;
      oldest_first = message->next;
      message->deliver(*message);
    }
  }

 private:
  Fd event_;
  std::atomic<Message*> head_{nullptr};
};

}  // namespace shunt
