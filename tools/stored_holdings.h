// SPDX-License-Identifier: Apache-2.0
// Holdings in the service manager's descriptor store, so that even a keeper that was killed finds everything.
//
// Each descriptor is stored for itself under "shunt.TAG.ID.INDEX": systemd keeps what comes in one datagram
// as a set, and hands it back in any order.

#pragma once

#include <cstddef>
#include <vector>

#include "core/fd.h"
#include "tools/holdings.h"
#include "tools/keeper_protocol.h"
#include "tools/systemd.h"

namespace shunt {

void StoreHolding(ServiceManager& manager, const Holding& holding);
void RemoveHolding(ServiceManager& manager, const Holding& holding);

// What the manager has passed at our start, sorted out.
struct Adopted {
  struct One {
    HoldingName name;
    // The descriptors from the first on, without a gap. The last may be missing, if the keeper ended while it
    // stored them: engines look how many there are.
    std::vector<Fd> fds;
  };
  std::vector<One> holdings;
  // Socket activation: a listening AF_UNIX stream socket under a name that is not ours. Not in the store.
  Fd activated;
  size_t refused = 0;  // descriptors that made no sense: closed, and removed from the store
};
Adopted AdoptPassed(ServiceManager& manager);

}  // namespace shunt
