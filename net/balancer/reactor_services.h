// SPDX-License-Identifier: Apache-2.0
// ReactorServices: all that one reactor has for connects to services. Its thread only.

#pragma once

#include "net/balancer/affinity_memory.h"
#include "net/balancer/held_place.h"
#include "net/balancer/outcomes.h"
#include "net/balancer/pick_table.h"
#include "net/balancer/place_queue.h"
#include "net/balancer/service_table.h"

namespace shunt::net {

struct ReactorServices {
  // `counts` and `event_fd` (Outcomes, PlaceQueue) outlive this.
  ReactorServices(size_t reactor, const BackendCountBook& its_counts, uint64_t seed, int event_fd)
      : counts(its_counts), picks(reactor, its_counts, seed), outcomes(event_fd), queue(event_fd) {}

  BackendCounts& CountsOf(uint32_t slot) const { return counts.At(picks.reactor(), slot); }

  // Replaced between two calls; null: there are no services.
  const ServiceTable* table = nullptr;
  const BackendCountBook& counts;
  PickSeat picks;
  Outcomes outcomes;
  AffinityMemory* affinities =
      nullptr;  // all reactors'; set before the first call; null: nothing is remembered
  HeldPlaces held;
  PlaceQueue queue;
};

}  // namespace shunt::net
