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
#include "handlers/destination.h"
#include "handlers/swap.h"

namespace shunt {

// Starts the connection on our duplicate of an unconnected socket that is where it belongs (and locked, if
// that is the host's network) and has O_NONBLOCK for now, and says what the target gets.
Reply StartConnection(Call& call, Twin twin, const Destination& to);

// For a blocking connect that has begun, on a socket that has its own flags again.
Reply AwaitByKernel(Call& call, Twin twin);

// Nobody tells when a target that waits is killed, or called away by a signal, so it is looked after this
// often. Else programs that are would fill their container's slots until their timeouts are over.
inline constexpr int64_t kLookAfterNs = 50'000'000;

// SO_SNDTIMEO; 0: none.
int64_t ReadSendTimeout(int socket_fd);

}  // namespace shunt
