// SPDX-License-Identifier: Apache-2.0
// sock_diag: who listens on a port of the host, asked and answered in netlink's own messages.

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "tests/sim/kernel.h"
#include "tests/sim/world.h"

namespace shunt::sim {
namespace {

ssize_t Refuse(int error) {
  errno = error;
  return -1;
}

void Append(std::vector<std::byte>& datagram, uint16_t type, uint32_t sequence, const void* body,
            size_t size) {
  const nlmsghdr header = {.nlmsg_len = static_cast<uint32_t>(sizeof(nlmsghdr) + size),
                           .nlmsg_type = type,
                           .nlmsg_flags = NLM_F_MULTI,
                           .nlmsg_seq = sequence,
                           .nlmsg_pid = 0};
  const size_t start = datagram.size();
  datagram.resize(start + NLMSG_ALIGN(header.nlmsg_len));
  std::memcpy(datagram.data() + start, &header, sizeof(header));
  std::memcpy(datagram.data() + start + sizeof(header), body, size);
}

inet_diag_msg Describe(const Socket& socket) {
  inet_diag_msg message{};
  message.idiag_family = static_cast<uint8_t>(socket.family);
  message.idiag_state = TCP_LISTEN;
  message.id.idiag_sport = htons(socket.local.port());
  const in6_addr v6 = socket.local.ip().ToV6();
  if (socket.family == AF_INET) {
    std::memcpy(message.id.idiag_src, v6.s6_addr + 12, 4);
  } else {
    std::memcpy(message.id.idiag_src, v6.s6_addr, 16);
  }
  message.id.idiag_cookie[0] = static_cast<uint32_t>(socket.cookie);
  message.id.idiag_cookie[1] = static_cast<uint32_t>(socket.cookie >> 32);
  return message;
}

}  // namespace
}  // namespace shunt::sim

using namespace shunt::sim;  // NOLINT: this file is about nothing else

extern "C" {

ssize_t __wrap_sendto(int fd, const void* data, size_t size, int, const sockaddr*, socklen_t) {
  World& world = World::Get();
  world.Enter("sendto", fd);
  const auto netlink = Fiber::Current()->table->GetAs<NetlinkFile>(fd);
  if (netlink == nullptr || size < sizeof(nlmsghdr) + sizeof(inet_diag_req_v2))
    world.Wrong("sendto: no question");
  if (const int error = world.Fault({EINTR, ENOBUFS, ENOMEM}); error != 0) return Refuse(error);
  nlmsghdr header;
  inet_diag_req_v2 question;
  std::memcpy(&header, data, sizeof(header));
  std::memcpy(&question, static_cast<const std::byte*>(data) + sizeof(header), sizeof(question));
  std::vector<std::byte> answer;
  for (const auto& [inode, socket] : Kernel::Get().sockets) {
    if (socket->netns != netlink->netns || socket->state != TcpState::kListening) continue;
    if (socket->family != question.sdiag_family || htons(socket->local.port()) != question.id.idiag_sport)
      continue;
    const inet_diag_msg message = Describe(*socket);
    Append(answer, SOCK_DIAG_BY_FAMILY, header.nlmsg_seq, &message, sizeof(message));
  }
  const int result = 0;
  Append(answer, NLMSG_DONE, header.nlmsg_seq, &result, sizeof(result));
  netlink->answers.push_back(std::move(answer));
  return static_cast<ssize_t>(size);
}

ssize_t __wrap_recvmsg(int fd, msghdr* message, int) {
  World& world = World::Get();
  world.Enter("recvmsg", fd);
  const auto netlink = Fiber::Current()->table->GetAs<NetlinkFile>(fd);
  if (netlink == nullptr) world.Wrong("recvmsg on what is no netlink socket");
  if (const int error = world.Fault({EINTR, ENOMEM}); error != 0) return Refuse(error);
  if (netlink->answers.empty()) return Refuse(EAGAIN);
  const std::vector<std::byte> answer = std::move(netlink->answers.front());
  netlink->answers.pop_front();
  std::memset(message->msg_name, 0, 12);
  message->msg_namelen = 12;  // sockaddr_nl of the kernel: port 0
  message->msg_flags = 0;
  std::memcpy(message->msg_iov->iov_base, answer.data(), answer.size());
  return static_cast<ssize_t>(answer.size());
}

}  // extern "C"
