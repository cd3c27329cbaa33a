// SPDX-License-Identifier: Apache-2.0
// Packets of a fixed size with descriptors beside them, on a SOCK_SEQPACKET pair. Never blocks.
//
// The other side may be anybody's: what arrives has exactly the size that was asked for and no more
// descriptors than were allowed, or is an error. Descriptors that come with a bad packet are closed.

#pragma once

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "core/fd.h"
#include "core/result.h"

namespace shunt {

// A connected pair, close-on-exec and nonblocking.
Result<std::pair<Fd, Fd>> MakePacketSockets();

// EAGAIN: the other side does not read fast enough. ETOOMANYREFS: too many descriptors of this user are in
// messages that nobody has read yet; the socket may well be writable all the same. EPIPE, ECONNRESET: there
// is no other side any more.
Result<void> SendPacket(int socket_fd, std::span<const std::byte> packet, std::span<const int> fds);

struct PacketArrival {
  std::vector<Fd> fds;
  bool lost_fds = false;  // our descriptor table is full: some that were sent are missing
};

// Fills `packet`. EAGAIN: nothing there. EPIPE: the other side is gone, and everything that it sent has been
// read. EPROTO: a packet of another size, or with more than `max_fds` descriptors.
Result<PacketArrival> ReceivePacket(int socket_fd, std::span<std::byte> packet, size_t max_fds);

}  // namespace shunt
