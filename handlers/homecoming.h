// SPDX-License-Identifier: Apache-2.0
// Homecoming: the way back. An unconnected twin that its program now wants to use inside the container
// (connect to loopback or an ignored network, bind, listen) becomes a socket of the container's own network
// again.

#pragma once

#include "core/call.h"
#include "handlers/destination.h"
#include "handlers/socket_call.h"

namespace shunt {

// What is done with the socket before the target gets it. The kernel must not be let loose on a descriptor
// that could be exchanged for a twin meanwhile, so listen and bind are carried out here.
struct Arrival {
  enum class Kind : uint8_t { kContinue, kListen, kBind, kConnect };
  Kind kind = Kind::kContinue;
  int backlog = 0;
  net::SockAddr address;    // kBind
  Destination destination;  // kConnect: a service's backend
};

// Replaces the unconnected twin under descriptor `number` by a socket of the container's network with the
// same options, and answers the call with what it does there. If that fails the twin stays. Without a socket
// of that network to be had the call fails with EADDRNOTAVAIL.
Reply GoHome(Call& call, int number, TargetSocket twin, const Arrival& arrival = {});

// What bind(2) to `address` says of a socket that has been bound or connected: the address is judged first,
// by the container's own network.
Reply RefuseBind(Call& call, TargetSocket twin, const net::SockAddr& address);

}  // namespace shunt
