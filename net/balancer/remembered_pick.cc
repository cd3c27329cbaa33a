// SPDX-License-Identifier: Apache-2.0
#include "net/balancer/remembered_pick.h"

#include "core/clock.h"
#include "net/balancer/grouped_picks.h"
#include "net/balancer/mix.h"

namespace shunt::net {
namespace {

const Backend* IfNotOut(const Backend* backend, const PickWish& wish, const PickSeat& seat) {
  return backend == nullptr || IsOut(*backend, wish, seat) ? nullptr : backend;
}

// A key that reaches backends of both families has one of each.
AffinityMemory::Use UseOf(const Service& service, const Connecting& connecting) {
  return {.key = Mix64(MixNth(connecting.wish.key, connecting.to_v4 ? 4 : 6) ^ service.name_hash),
          .owner = connecting.owner,
          .now = MonotonicNow(),
          .timeout = service.remembers_ns};
}

// What was remembered and cannot be had (it has gone, is not available, was tried, is full) makes way for
// what is picked now.
[[gnu::noinline]] const Backend* PickRemembered(const Service& service, const PickTable& table,
                                                const Connecting& connecting, PickSeat& seat,
                                                AffinityMemory& memory) {
  const BackendIndex& index = *service.IndexFor(connecting.to_v4);
  const AffinityMemory::Use use = UseOf(service, connecting);
  const AffinityMemory::Entry entry = memory.Find(use);
  if (entry.backend != 0) {
    if (const Backend* const known = IfNotOut(index.Find(entry.backend), connecting.wish, seat)) {
      memory.Renew(entry, use);
      return known;
    }
  }
  PickWish fresh = connecting.wish;
  fresh.has_key = false;
  const Backend* const picked = table.Pick(fresh, seat);
  if (picked == nullptr || connecting.joins) return picked;
  const uint64_t name = AffinityMemory::NameOf(picked->identity);
  const uint64_t theirs = memory.Remember(use, entry, name);
  if (theirs == name) return picked;
  const Backend* const quicker = IfNotOut(index.Find(theirs), connecting.wish, seat);
  return quicker == nullptr ? picked : quicker;
}

}  // namespace

const Backend* PickFor(const Service& service, const Connecting& connecting, PickSeat& seat,
                       AffinityMemory* memory) {
  const PickTable* const table = service.TableFor(connecting.to_v4);
  if (table == nullptr) return nullptr;
  if (service.remembers_ns == 0) [[likely]]
    return table->Pick(connecting.wish, seat);
  if (memory != nullptr) return PickRemembered(service, *table, connecting, seat, *memory);
  PickWish wish = connecting.wish;
  wish.has_key = false;
  return table->Pick(wish, seat);
}

void Overtook(const Service& service, const Connecting& connecting, uint64_t identity,
              AffinityMemory* memory) {
  if (service.remembers_ns == 0 || memory == nullptr) return;
  const AffinityMemory::Use use = UseOf(service, connecting);
  memory->Remember(use, memory->Find(use), AffinityMemory::NameOf(identity));
}

}  // namespace shunt::net
