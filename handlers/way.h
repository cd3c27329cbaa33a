// SPDX-License-Identifier: Apache-2.0
// Which way a connection goes: the policy of one container, asked with one address.

#pragma once

#include "core/result.h"
#include "handlers/container.h"
#include "net/sock_addr.h"

namespace shunt {

// True if a connection to `peer` may be made in the host's network.
bool LeadsToHost(const Container& container, const net::SockAddr& peer);

// The device of the host that a twin for `peer` is to be locked to; 0 if its program locks it. Fails if there
// is no lock for that peer: then no socket may be moved for it.
Result<int> LockingDevice(SocketBench& bench, const Container& container, const net::SockAddr& peer);

// The container's own published port that `peer` names, if its listener was moved to the host and is alive
// there; nullptr otherwise. Asks the kernel (sock_diag), for the port may belong to somebody else by now.
const PublishedPort* OwnPublishedPort(const Container& container, const net::SockAddr& peer);

}  // namespace shunt
