// SPDX-License-Identifier: Apache-2.0
// PacketQueue: the keeper's packets that an engine has yet to read. Sends at once while the socket takes it,
// so that it is normally empty; never blocks, and is bounded by whoever looks at size().

#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <utility>

#include "tools/holdings.h"
#include "tools/keeper_protocol.h"

namespace shunt {

class PacketQueue {
 public:
  // `holding`: whose descriptors go beside the packet; may be null. It is kept until they are sent.
  void Push(int socket_fd, const KeeperPacket& packet, std::shared_ptr<const Holding> holding);
  void Flush(int socket_fd);

  size_t size() const { return waiting_.size(); }
  // The socket would take more bytes, but too many descriptors are on their way: nothing tells when that has
  // changed, so look again after a while.
  bool descriptors_stuck() const { return descriptors_stuck_; }

 private:
  std::deque<std::pair<KeeperPacket, std::shared_ptr<const Holding>>> waiting_;
  bool descriptors_stuck_ = false;
};

}  // namespace shunt
