// SPDX-License-Identifier: Apache-2.0
#include "tools/runtime_door.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "tools/log.h"

namespace shunt {
namespace {

// The rest comes in the next turn.
constexpr int kAcceptsPerTurn = 64;
// How long connections are left waiting when descriptors are short.
constexpr std::chrono::milliseconds kShortageWait{100};
constexpr std::chrono::seconds kComplaintInterval{10};

}  // namespace

RuntimeDoor::RuntimeDoor(Fd socket, Keeper& keeper) : socket_(std::move(socket)), keeper_(keeper) {
  // One that a service manager has passed may block.
  fcntl(socket_.get(), F_SETFL, O_NONBLOCK);
  for (const auto& [name, holding] : keeper_.holdings().all()) {
    if (name.tag == HoldingTag::kIntake) last_name_ = std::max(last_name_, name.id);
  }
}

// The socket itself is one of those that are held. An engine that prepares to take over reads nothing:
// whoever came and went meanwhile would fill its queue.
bool RuntimeDoor::HasRoom() const {
  return keeper_.holdings().Count(HoldingTag::kIntake) <= kMostHeld && !keeper_.upgrading();
}

int RuntimeDoor::fd() const {
  return HasRoom() && Clock::now() >= closed_until_ ? socket_.get() : -1;
}

int RuntimeDoor::timeout() const {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(closed_until_ - Clock::now()).count();
  return left > 0 ? static_cast<int>(left) : -1;
}

void RuntimeDoor::Accept() {
  for (int i = 0; i < kAcceptsPerTurn && HasRoom() && socket_.valid(); ++i) {
    if (keeper_.holdings().full()) return Pause();
    Fd connection(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!connection.valid()) {
      if (errno == EAGAIN) return;
      if (errno == ECONNABORTED || errno == EINTR) continue;  // concerns only the one that left
      return Pause();
    }
    std::vector<Fd> fds;
    fds.push_back(std::move(connection));
    // There is room for it.
    keeper_.Hold({HoldingTag::kIntake, ++last_name_}, std::move(fds)).IgnoreError();
  }
}

void RuntimeDoor::Pause() {
  const Clock::time_point now = Clock::now();
  closed_until_ = now + kShortageWait;
  if (now - complained_ < kComplaintInterval) return;
  complained_ = now;
  log::Warning("no descriptor is free for a new connection, which has to wait: raise the limit (ulimit -n)");
}

}  // namespace shunt
