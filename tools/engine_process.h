// SPDX-License-Identifier: Apache-2.0
// EngineProcess: one engine as the keeper sees it: its link, its pidfd, how far it has got.

#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "core/fd.h"
#include "tools/packet_queue.h"

namespace shunt {

struct EngineProcess {
  using Clock = std::chrono::steady_clock;

  enum class Phase : unsigned char {
    kPreparing,  // has what we hold, and looks at it
    kPrepared,   // waits for kStart
    kStarted,    // recovers what predecessors left
    kReady,
    kStopping,  // was told to receive nothing more
    kStopped,
  };

  Fd link;
  Fd pidfd;
  pid_t pid = 0;
  uint64_t serial = 0;  // tells its events from those of others
  Phase phase = Phase::kPreparing;
  Clock::time_point deadline;  // of the phase; for one that is on its way out: when it is killed
  PacketQueue queue;
  uint32_t watched = 0;  // the epoll events of the link
  std::string failure;   // why it is about to end, or why we ended it

  Clock::time_point next_ping;
  uint64_t pings = 0;     // sent; the last one's number
  uint64_t answered = 0;  // the highest number that came back

  bool killed = false;
  Clock::time_point killed_at;

  // It may receive notifications and act on containers, so that nobody else must.
  bool MayAct() const { return phase >= Phase::kStarted && phase < Phase::kStopped; }

  // In the other phases it waits for others.
  bool HasDeadline() const {
    return phase == Phase::kPreparing || phase == Phase::kStarted || phase == Phase::kStopping;
  }

  void Send(const KeeperPacket& packet, std::shared_ptr<const Holding> holding = nullptr) {
    if (link.valid()) queue.Push(link.get(), packet, std::move(holding));
  }
  void Send(KeeperMessage message) { Send(MakePacket(message)); }
  void Kill(Clock::time_point now);
};

}  // namespace shunt
