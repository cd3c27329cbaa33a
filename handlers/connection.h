// SPDX-License-Identifier: Apache-2.0
// How a connection begins on a socket that is in its place, and what its program is told.
//
// A blocking connect that is not over at once is answered with CONTINUE: the kernel then finds a socket that
// is connecting already, waits as it always does (signals, SO_SNDTIMEO, shutdown and close by other threads),
// and looks at no address. So nothing waits in here, and the result is the kernel's own. The one exception is
// SO_SNDTIMEO, where a second connect(2) says EALREADY when the time is over and a first one EINPROGRESS; it
// waits in a task.

#pragma once

#include "core/call.h"
#include "core/reply.h"
#include "handlers/swap.h"
#include "net/sock_addr.h"

namespace shunt {

// Starts the connection on our duplicate of an unconnected socket that is in the host's network and locked,
// and says what the target gets.
Reply StartConnection(Call& call, Twin twin, const net::SockAddr& peer);

}  // namespace shunt
