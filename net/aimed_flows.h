// SPDX-License-Identifier: Apache-2.0
// AimedFlows: the UDP sockets of one container that connects to services have aimed at backends, by
// SO_COOKIE: so that those and no others can be aimed elsewhere when their backend has gone.
//
// Fixed size, and zeros in the beginning; nothing has to be taken out when a socket is closed. Each service
// has a part of the room, which it shares with few others, so that a resolver that makes a socket for each
// question makes nobody forget a flow of another service; in its part a socket is forgotten when another one
// needs its place, and stays where it is then. Cookies are never given twice.
//
// Any of a container's reactors and the errands' thread may be here at the same time, without a lock: what a
// place has says by itself whether it belongs together, so of two that write to one at least one is
// forgotten, and none is mistaken for another.

#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>

#include "absl/functional/function_ref.h"
#include "net/balancer/mix.h"

namespace shunt::net {

class AimedFlows {
 public:
  static constexpr size_t kParts = 8;
  static constexpr size_t kPlaces = 512;  // of each part

  struct Flow {
    uint64_t cookie = 0;
    uint64_t service = 0;  // HashOfName()
    uint64_t backend = 0;  // BackendIdentity()
    uint64_t key = 0;      // of the service's affinity
  };

  void Note(const Flow& flow) {
    Forget(flow.cookie);
    std::atomic_ref(seen_[SeenWord(flow.backend)]).fetch_or(BitOf(flow.backend));
    Put(ever_, 1);
    Place& place = places_[PlaceNumber(flow.service, flow.cookie)];
    Put(place.service, flow.service);
    Put(place.backend, flow.backend);
    Put(place.key, flow.key);
    Put(place.check, flow.cookie ^ Veil(flow.service, flow.backend, flow.key));
  }
  // The program has connected the socket elsewhere, by itself; or there is no such socket any more.
  void Forget(uint64_t cookie) {
    for (size_t part = 0; part < kParts; ++part) {
      Place& place = places_[part * kPlaces + cookie % kPlaces];
      uint64_t check = Get(place.check);
      if (FlowIn(place).cookie == cookie) std::atomic_ref(place.check).compare_exchange_strong(check, 0);
    }
  }
  std::optional<Flow> Find(uint64_t cookie) const {
    for (size_t part = 0; part < kParts; ++part) {
      const size_t number = part * kPlaces + cookie % kPlaces;
      const Flow flow = FlowIn(places_[number]);
      if (flow.cookie == cookie && PlaceNumber(flow.service, cookie) == number) return flow;
    }
    return {};
  }
  // Calls `see` with each flow, until it returns false.
  void ForEach(absl::FunctionRef<bool(const Flow&)> see) const {
    if (empty()) return;
    for (size_t i = 0; i < places_.size(); ++i) {
      const Flow flow = FlowIn(places_[i]);
      if (flow.cookie != 0 && PlaceNumber(flow.service, flow.cookie) == i && !see(flow)) return;
    }
  }

  bool empty() const { return Get(ever_) == 0; }
  // False: no flow was ever aimed at this backend.
  bool MayHave(uint64_t backend) const {
    return !empty() && (Get(seen_[SeenWord(backend)]) & BitOf(backend)) != 0;
  }

 private:
  static constexpr size_t kSeenWords = 16;
  // Plain words, so that a page that nobody writes to takes no memory; read and written as atomics.
  struct Place {
    uint64_t check, service, backend, key;
  };
  static_assert(std::is_trivially_default_constructible_v<Place>);

  static size_t SeenWord(uint64_t backend) { return backend / 64 % kSeenWords; }
  static uint64_t BitOf(uint64_t backend) { return uint64_t{1} << (backend % 64); }
  static size_t PlaceNumber(uint64_t service, uint64_t cookie) {
    return service % kParts * kPlaces + cookie % kPlaces;
  }
  static uint64_t Get(const uint64_t& word) {
    return std::atomic_ref(const_cast<uint64_t&>(word)).load(std::memory_order_acquire);
  }
  static void Put(uint64_t& word, uint64_t value) {
    std::atomic_ref(word).store(value, std::memory_order_release);
  }

  // What hides the cookie: with other words it would be another cookie, which no socket has.
  static uint64_t Veil(uint64_t service, uint64_t backend, uint64_t key) {
    return Mix64(service + kMixStep) ^ Mix64(backend + 2 * kMixStep) ^ Mix64(key + 3 * kMixStep);
  }
  static Flow FlowIn(const Place& place) {
    const uint64_t check = Get(place.check);
    if (check == 0) return {};
    Flow flow{.service = Get(place.service), .backend = Get(place.backend), .key = Get(place.key)};
    flow.cookie = check ^ Veil(flow.service, flow.backend, flow.key);
    return flow;
  }

  uint64_t ever_;
  std::array<uint64_t, kSeenWords> seen_;
  std::array<Place, kParts * kPlaces> places_;
};

static_assert(std::is_trivially_default_constructible_v<AimedFlows>);

}  // namespace shunt::net
