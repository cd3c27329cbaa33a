// SPDX-License-Identifier: Apache-2.0
// PickFor: the backend of one connection to a service, by what is remembered if the service remembers, and
// else by its policy.

#pragma once

#include "net/balancer/affinity_memory.h"
#include "net/balancer/pick_table.h"
#include "net/balancer/service_table.h"

namespace shunt::net {

// Whose connection it is, and what there is to know of the service's. `wish` as PickTable::Pick() takes it:
// the key is what the service's affinity says.
struct Connecting {
  bool to_v4 = false;  // as Service::TableFor() has it
  PickWish wish;
  uint64_t owner = 0;  // a hash of the container
  // Another attempt is under way, which may become the connection: this one changes nothing of what is
  // remembered, unless Overtook() says that it has.
  bool joins = false;
};

// nullptr: there is none, or none that was not tried. Hot path. `memory` may be null: nothing is remembered.
const Backend* PickFor(const Service& service, const Connecting& connecting, PickSeat& seat,
                       AffinityMemory* memory);

// The connection goes to the backend of this identity, which was picked for one that `joins`.
void Overtook(const Service& service, const Connecting& connecting, uint64_t identity,
              AffinityMemory* memory);

}  // namespace shunt::net
