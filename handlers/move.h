// SPDX-License-Identifier: Apache-2.0
// Moving a socket for its connection: the twin is made, put in the socket's place, and connected there.

#pragma once

#include "core/call.h"
#include "core/reply.h"
#include "core/result.h"
#include "handlers/destination.h"
#include "handlers/socket_call.h"
#include "handlers/swap.h"
#include "net/lock.h"
#include "net/twin_pool.h"

namespace shunt {

// A twin of an unconnected socket, with `lock` on it (by `device`, if it is that kind) and ready to be
// installed. An error: it stays where it is, which has been counted.
Result<Twin> MakeTwin(Call& call, TargetSocket& socket, const net::NumberedLock& lock, int device);

// Moves a socket: with `twin` in its place, connecting to `to`.
Reply Move(Call& call, int number, TargetSocket socket, Twin twin, const Destination& to);

// Somebody else holds the old socket, whose inode is `old_inode`, although `twin` is in place: the old one is
// put back and connected on its ordinary path. Where that cannot be, the twin connects.
Reply StayInside(Call& call, int number, Twin twin, const Destination& to, uint64_t old_inode);

}  // namespace shunt
