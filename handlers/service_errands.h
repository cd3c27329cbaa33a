// SPDX-License-Identifier: Apache-2.0
// What is done in containers when backends of services go: connections to them are closed, UDP flows are
// aimed at others.
//
// Control thread, which has the rights over the containers. Each walk through one takes 3 us for each of its
// descriptors; containers without a flow that is to leave are not walked through for that.

#pragma once

#include "core/counters.h"
#include "handlers/served.h"
#include "handlers/services.h"

namespace shunt {

// Of one container, whose `task` is in its network. `counters` are the control thread's.
void CarryOut(const Services::Wants& wants, Services& services, const Served& served, pid_t task,
              Counters& counters);

}  // namespace shunt
