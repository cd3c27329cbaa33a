// SPDX-License-Identifier: Apache-2.0
#include "tools/packet_queue.h"

#include <cerrno>
#include <span>

#include "core/packet_socket.h"

namespace shunt {

void PacketQueue::Push(int socket_fd, const KeeperPacket& packet, std::shared_ptr<const Holding> holding) {
  waiting_.emplace_back(packet, std::move(holding));
  if (waiting_.size() == 1) Flush(socket_fd);
}

void PacketQueue::Flush(int socket_fd) {
  descriptors_stuck_ = false;
  while (!waiting_.empty()) {
    const auto& [packet, holding] = waiting_.front();
    const Result<void> sent = SendPacket(socket_fd, std::as_bytes(std::span(&packet, 1)),
                                         holding == nullptr ? std::span<const int>() : holding->fds());
    if (!sent.has_value()) {
      descriptors_stuck_ = sent.error().code == ETOOMANYREFS;
      if (descriptors_stuck_ || sent.error().code == EAGAIN) return;
      // Whoever reads the link learns that it is broken.
    }
    waiting_.pop_front();
  }
}

}  // namespace shunt
