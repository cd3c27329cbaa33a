// SPDX-License-Identifier: Apache-2.0
// Counters: what a reactor has done so far. Written by its reactor alone, read by the control thread at any
// time.

#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace shunt {

// X(name, what it counts)
#define SHUNT_COUNTERS(X)                                                                  \
  X(received, "notifications received")                                                    \
  X(answered, "notifications answered")                                                    \
  X(gone, "targets that left before they were answered")                                   \
  X(continued, "calls that the kernel ran as if they had not been trapped")                \
  X(stalled, "waits for a target that got no CPU in time, or held up its memory")          \
  X(no_slot, "calls that could not wait because every task slot was taken")                \
  X(waits_begun, "calls that waited inside the engine")                                    \
  X(waits_ended, "calls that have stopped waiting inside the engine")                      \
  X(resumed, "calls taken over from an engine that had died or was replaced")              \
  X(accelerated, "sockets moved to the host's network for a connect")                      \
  X(published, "sockets moved to the host's network for a bind")                           \
  X(returned_home, "sockets moved back to their container's network")                      \
  X(kept_options, "sockets left on the ordinary path: an option that cannot be carried")   \
  X(kept_shared, "sockets left on the ordinary path: somebody else holds the same socket") \
  X(kept_unlocked, "sockets left on the ordinary path: no lock for the destination")       \
  X(kept_source, "sockets left on the ordinary path: their source address cannot be kept") \
  X(kept_error, "sockets left on the ordinary path: something failed in the engine")       \
  X(shared_lost, "sockets whose other holder could not be found after a swap")             \
  X(epolls_migrated, "epoll registrations carried over to the new socket")                 \
  X(unreadable, "calls whose memory or descriptors we may not look at")                    \
  X(exchanged, "sockets exchanged for another file meanwhile: ends acceleration")          \
  X(balanced, "connects to services")                                                      \
  X(failed_over, "attempts to reach a backend that were followed by another one")          \
  X(failover_missed, "nonblocking connects to services that were not over when answered")  \
  X(no_backend, "connects to services that had no backend")                                \
  X(flows_moved, "UDP sockets connected to another backend because theirs had gone")       \
  X(flows_stuck, "UDP sockets that could not be connected to another backend, or not be found in time")

enum class Counter : uint8_t {
#define SHUNT_COUNTER_NAME(name, text) name,
  SHUNT_COUNTERS(SHUNT_COUNTER_NAME)
#undef SHUNT_COUNTER_NAME
      count_
};
inline constexpr size_t kCounterCount = static_cast<size_t>(Counter::count_);

struct CounterText {
  std::string_view name;
  std::string_view help;
};
inline constexpr std::array<CounterText, kCounterCount> kCounterTexts = {{
#define SHUNT_COUNTER_TEXT(name, text) {#name, text},
    SHUNT_COUNTERS(SHUNT_COUNTER_TEXT)
#undef SHUNT_COUNTER_TEXT
}};

class alignas(64) Counters {
 public:
  // One writer, so a load and a store do; no locked instruction.
  void Add(Counter counter, uint64_t more = 1) {
    std::atomic<uint64_t>& value = values_[static_cast<size_t>(counter)];
    value.store(value.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
  }
  // Takes over what others have counted, so that they begin at 0 again. Nobody writes to either meanwhile.
  void TakeFrom(Counters& others) {
    for (size_t i = 0; i < kCounterCount; ++i) {
      values_[i].fetch_add(others.values_[i].exchange(0, std::memory_order_relaxed),
                           std::memory_order_relaxed);
    }
  }
  uint64_t Read(Counter counter) const {
    return values_[static_cast<size_t>(counter)].load(std::memory_order_relaxed);
  }

 private:
  std::array<std::atomic<uint64_t>, kCounterCount> values_{};
};

}  // namespace shunt
