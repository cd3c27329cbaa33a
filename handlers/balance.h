// SPDX-License-Identifier: Apache-2.0
// Balancing: connect(2) to the address of a service is a connection to one of its backends.
//
// The backend is picked in the notification. Where it is in the container's own network (or the container is
// not accelerated), the very socket of the program is connected, through our duplicate of it; where it is in
// the host's, the socket is moved first, as for any other connect. What fails is followed by another backend
// within the same call, on the same socket, before the program knows:
//
//   blocking      an attempt that is not over at once is waited for in a task, up to its timeout; the last
//   one
//                 is left to the kernel, as every connect
//   nonblocking   never held: one look right after the start, then EINPROGRESS. What fails later, the program
//                 sees
//
// Only what says something about the backend is followed by another attempt: refused, unreachable, timed out,
// reset. What the socket itself forbids is the program's answer.

#pragma once

#include <cerrno>

#include "core/call.h"
#include "core/reply.h"
#include "handlers/destination.h"
#include "handlers/socket_call.h"
#include "handlers/swap.h"
#include "net/balancer/service_table.h"

namespace shunt {

// The service that `peer` is an address of; nullptr: none. Good until the call returns or waits.
const net::Service* ServiceAt(const Call& call, net::Transport transport, const net::SockAddr& peer);

// connect(2) on a TCP socket that was just taken, and claimed, to `peer`, an address of `service`.
Reply ConnectToService(Call& call, int number, TargetSocket socket, SocketClaim claim,
                       const net::SockAddr& peer, const net::Service& service);

// The same on a UDP socket, which stays in its network. Nothing: it is none.
std::optional<Reply> AimDatagrams(Call& call, int number, const net::SockAddr& peer,
                                  const net::Service& service);

// The program itself connects a socket to `peer`, which is no address of a service of UDP: should that be a
// backend, the socket is nobody's to aim elsewhere when it goes.
void ForgetFlow(const Call& call, int number, const net::SockAddr& peer);

// Where nothing is done for want of means: the kernel may connect a plain socket, but knows no service, whose
// address nobody may have.
inline Reply InsteadOfConnecting(bool to_service) {
  return to_service ? Reply::Fail(ENOBUFS) : Reply::Continue();
}

// The attempt to reach a service's backend has begun with `error`, on a socket that has O_NONBLOCK for now:
// goes on from there.
Reply AfterStart(Call& call, Twin twin, const Destination& to, int error);

// Starts the attempt on the container's own socket under `number`, wherever it is. For who has tried to move
// it.
Reply ConnectInPlace(Call& call, int number, const Destination& to);

// For a call that an engine before this one has begun: the attempt to reach `address`, which may be under
// way.
Destination AttemptUnderWay(const Call& call, const net::Service& service, const net::SockAddr& peer,
                            const net::SockAddr& address);

}  // namespace shunt
