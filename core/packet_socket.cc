// SPDX-License-Identifier: Apache-2.0
#include "core/packet_socket.h"

#include <sys/socket.h>

#include <algorithm>
#include <cstring>

namespace shunt {
namespace {

constexpr size_t kMostFds = 8;  // beside one packet; more than anybody allows

union ControlBuffer {
  cmsghdr header;  // for its alignment
  char bytes[CMSG_SPACE(kMostFds * sizeof(int))];
};

std::vector<Fd> TakeDescriptors(msghdr& message) {
  std::vector<Fd> fds;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(fd));
      fds.emplace_back(fd);
    }
  }
  return fds;
}

}  // namespace

Result<std::pair<Fd, Fd>> MakePacketSockets() {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) return FailErrno();
  return std::pair(Fd(pair[0]), Fd(pair[1]));
}

Result<void> SendPacket(int socket_fd, std::span<const std::byte> packet, std::span<const int> fds) {
  if (fds.size() > kMostFds) return Fail(EINVAL);
  iovec piece = {.iov_base = const_cast<std::byte*>(packet.data()), .iov_len = packet.size()};
  msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
  ControlBuffer control{};
  if (!fds.empty()) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  }
  ssize_t sent;
  do {
    sent = sendmsg(socket_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) return FailErrno();
  return {};
}

Result<PacketArrival> ReceivePacket(int socket_fd, std::span<std::byte> packet, size_t max_fds) {
  max_fds = std::min(max_fds, kMostFds);
  iovec piece = {.iov_base = packet.data(), .iov_len = packet.size()};
  ControlBuffer control{};
  msghdr message{};
  ssize_t size;
  do {
    message = {.msg_iov = &piece,
               .msg_iovlen = 1,
               .msg_control = control.bytes,
               .msg_controllen = max_fds == 0 ? 0 : CMSG_SPACE(max_fds * sizeof(int))};
    size = recvmsg(socket_fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    // ECONNRESET says, once, that the other side left without reading all; what it sent is still there.
  } while (size < 0 && (errno == EINTR || errno == ECONNRESET));
  if (size < 0) return FailErrno();
  PacketArrival arrival{.fds = TakeDescriptors(message)};
  if (size == 0) return Fail(EPIPE);  // an empty packet looks the same, and nobody sends one
  if (static_cast<size_t>(size) != packet.size() || (message.msg_flags & MSG_TRUNC) != 0) return Fail(EPROTO);
  // The room is a multiple of eight bytes, so an odd number of descriptors leaves room for one more.
  if (arrival.fds.size() > max_fds) return Fail(EPROTO);
  if ((message.msg_flags & MSG_CTRUNC) != 0) {
    if (arrival.fds.size() == max_fds) return Fail(EPROTO);
    arrival.lost_fds = true;
  }
  return arrival;
}

}  // namespace shunt
