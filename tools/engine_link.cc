// SPDX-License-Identifier: Apache-2.0
#include "tools/engine_link.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/packet_socket.h"

namespace shunt {
namespace {

// True: it has to wait.
bool MustWait(const Result<void>& sent) {
  return !sent.has_value() && (sent.error().code == EAGAIN || sent.error().code == ETOOMANYREFS);
}

Result<void> SendNow(int socket_fd, const KeeperPacket& packet, std::span<const int> fds) {
  return SendPacket(socket_fd, std::as_bytes(std::span(&packet, 1)), fds);
}

}  // namespace

absl::StatusOr<EngineLink> EngineLink::Adopt(int fd) {
  int type = 0;
  socklen_t size = sizeof(type);
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_SEQPACKET) {
    return absl::InvalidArgumentError(absl::StrCat("--link ", fd,
                                                   ": there is no link to a keeper; engines are started by "
                                                   "`shunt agent` and `shunt run`, not by hand"));
  }
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  return EngineLink(Fd(fd));
}

short EngineLink::events() const {
  return static_cast<short>(waiting_.empty() ? POLLIN : POLLIN | POLLOUT);
}

Result<EngineLink::Arrival> EngineLink::Receive() {
  Arrival result;
  Result<PacketArrival> arrival =
      ReceivePacket(socket_.get(), std::as_writable_bytes(std::span(&result.packet, 1)), kHoldingDescriptors);
  if (!arrival.has_value()) return tl::unexpected(arrival.error());
  const size_t sent = arrival->lost_fds ? std::max<size_t>(arrival->fds.size(), 1) : arrival->fds.size();
  if (!IsWellFormed(result.packet, sent)) return shunt::Fail(EPROTO);
  if (!arrival->lost_fds) result.fds = std::move(arrival->fds);
  return result;
}

Result<void> EngineLink::Hold(HoldingName name, std::span<const int> fds) {
  return Push(MakePacket(KeeperMessage::kHold, name), fds);
}

Result<void> EngineLink::Push(const KeeperPacket& packet, std::span<const int> fds) {
  Flush();
  if (waiting_.empty() && !MustWait(SendNow(socket_.get(), packet, fds))) return {};
  Waiting waiting{.packet = packet};
  for (const int fd : fds) {
    waiting.fds.emplace_back(fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!waiting.fds.back().valid()) return FailErrno();
  }
  waiting_.push_back(std::move(waiting));
  return {};
}

void EngineLink::Flush() {
  while (!waiting_.empty()) {
    std::vector<int> fds;
    for (const Fd& fd : waiting_.front().fds) fds.push_back(fd.get());
    if (MustWait(SendNow(socket_.get(), waiting_.front().packet, fds))) return;
    waiting_.pop_front();
  }
}

}  // namespace shunt
