// SPDX-License-Identifier: Apache-2.0
// EngineLink: the engine's side of its link to the keeper (keeper_protocol.h has the order of things).
//
// Never blocks: what the socket does not take yet waits here, with duplicates of its descriptors, until
// Flush(). A packet that was sent is with the keeper even if the engine dies in the next instant. One thread.

#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/fd.h"
#include "core/result.h"
#include "tools/keeper_protocol.h"

namespace shunt {

class EngineLink {
 public:
  // `fd` is what `--link` names. InvalidArgument if there is no such socket.
  static absl::StatusOr<EngineLink> Adopt(int fd);

  int fd() const { return socket_.get(); }
  // For a poll loop: POLLIN, and POLLOUT while something waits.
  short events() const;

  struct Arrival {
    KeeperPacket packet;  // well formed
    std::vector<Fd> fds;  // of a kGive; none if our table had no room for all of them
  };
  // The next packet from the keeper. EAGAIN: nothing there. EPIPE: the keeper has closed the link, or has
  // ended: the engine must end now. EPROTO: what came makes no sense; end as well.
  Result<Arrival> Receive();

  // The descriptors stay the caller's. An error (EMFILE): it is neither sent nor waiting.
  Result<void> Hold(HoldingName name, std::span<const int> fds);
  void Again(HoldingName name) { Send(MakePacket(KeeperMessage::kAgain, name)); }
  void Drop(HoldingName name) { Send(MakePacket(KeeperMessage::kDrop, name)); }
  void Prepared() { Send(MakePacket(KeeperMessage::kPrepared)); }
  void Ready(uint64_t flags, std::string_view text) {
    Send(MakePacket(KeeperMessage::kReady, {}, flags, text));
  }
  void Serving(HoldingName name, std::string_view text) {
    Send(MakePacket(KeeperMessage::kServing, name, 0, text));
  }
  void Stopped() { Send(MakePacket(KeeperMessage::kStopped)); }
  void Pong(uint64_t sequence) { Send(MakePacket(KeeperMessage::kPong, {}, sequence)); }
  // The descriptor stays the caller's.
  void Worker(int fd) { (void)Push(MakePacket(KeeperMessage::kWorker), {{fd}}); }
  void Upgrade() { Send(MakePacket(KeeperMessage::kUpgrade)); }
  void Failed(std::string_view text) { Send(MakePacket(KeeperMessage::kFailed, {}, 0, text)); }

  // Sends what waits, as far as the socket takes it.
  void Flush();

 private:
  struct Waiting {
    KeeperPacket packet;
    std::vector<Fd> fds;
  };

  explicit EngineLink(Fd socket) : socket_(std::move(socket)) {}
  void Send(const KeeperPacket& packet) { (void)Push(packet, {}); }
  Result<void> Push(const KeeperPacket& packet, std::span<const int> fds);

  Fd socket_;
  std::deque<Waiting> waiting_;
};

}  // namespace shunt
