// SPDX-License-Identifier: Apache-2.0
// Which way a connection goes: the policy of one container, asked with one address.

#pragma once

#include <optional>

#include "core/result.h"
#include "handlers/container.h"
#include "net/sock_addr.h"

namespace shunt {

// True if a connection to `peer` may be made in the host's network.
bool LeadsToHost(const Container& container, const net::SockAddr& peer);

// The device of the host that a twin for `peer` is to be locked to; 0 if its program locks it. Fails if there
// is no lock for that peer: then no socket may be moved for it.
Result<int> LockingDevice(SocketBench& bench, const Container& container, const net::SockAddr& peer);

// Where in the host's network the container's own published port is that `peer` names, in the family of
// `peer`; nothing if `peer` names none, or if not one of the container's own listeners would answer there.
//
// A container may reach its host's loopback by this rule and by no other, so the kernel is asked (sock_diag)
// who listens there: every listener that could get the connection must be one that was moved here, by its
// cookie. Between the answer and the connect a listener can still go and another come; that one would have to
// take a port that the operator gave to this container. A twin for such a connection needs the lock
// NetworkView::own_ports_lock, and gets no further with it than to the container's published ports.
std::optional<net::SockAddr> OwnPublishedPort(SocketBench& bench, const Container& container,
                                              const net::SockAddr& peer);

}  // namespace shunt
