// SPDX-License-Identifier: Apache-2.0
// Racing: an attempt that takes long is not given up but joined by another one, to another backend, on a
// second twin; whichever connects first is the program's socket (RFC 8305, gRPC A61).
//
//   first    the twin that is under the program's descriptor, connecting. What happens to the call (a signal,
//            its end, ours) finds the socket as any other connect does
//   others   twins of it, each locked before it connects, which only we hold. One that wins is swapped in for
//            the first (handlers/move.h), as a twin is for the container's own socket: epolls that watch it
//            are seen to in the same way; and if somebody else holds it, it stays, and is itself connected to
//            the backend of the winner
//
// Losers are closed before the answer. Of an engine that dies they are closed by the kernel, and the next one
// finds the first attempt under way.

#pragma once

#include "core/call.h"
#include "core/reply.h"
#include "handlers/destination.h"
#include "handlers/swap.h"

namespace shunt {

// Whether others can join the attempt `to`: it is one of a blocking connect, on a twin that may be replaced,
// and there is another backend.
bool MayRace(const Call& call, const Destination& to);

// Answers the call whose first attempt is under way on `first`, which has its own flags again.
Reply Race(Call& call, Twin first, const Destination& to);

}  // namespace shunt
