// SPDX-License-Identifier: Apache-2.0
// Homecoming: the way back. An unconnected twin that its program now wants to use inside the container
// (connect to loopback or an ignored network, bind, listen) becomes a socket of the container's own network
// again.

#pragma once

#include "core/call.h"
#include "handlers/socket_call.h"

namespace shunt {

// What is done with the socket once it is home. A listen is carried out on it before the target has it: the
// kernel must not be let loose on a descriptor that could be exchanged for a twin meanwhile.
struct Arrival {
  bool listen = false;
  int backlog = 0;
};

// Replaces the unconnected twin under descriptor `number` by a socket of the container's network with the
// same options, and lets the kernel run the call on that (or listens). Without such a socket to be had the
// call fails with EADDRNOTAVAIL.
Reply GoHome(Call& call, int number, TargetSocket twin, Arrival arrival = {});

}  // namespace shunt
