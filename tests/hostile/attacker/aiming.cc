// SPDX-License-Identifier: Apache-2.0
// Words that connect the socket to the target, by every door that leads into the kernel.

#include <fcntl.h>
#include <liburing.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "tests/hostile/attacker/attacker.h"
#include "tests/support/int80.h"

namespace attacker {

long Int80(long number, long first, long second, long third, long fourth, long fifth, long sixth) {
#ifdef __x86_64__
  if (!shunt::HasInt80()) {
    errno = ENOSYS;
    return -1;
  }
  long result = number;
  asm volatile(
      "push %%rbp\n\t"
      "mov %[sixth], %%rbp\n\t"
      "int $0x80\n\t"
      "pop %%rbp"
      : "+a"(result)
      : "b"(first), "c"(second), "d"(third), "S"(fourth), "D"(fifth), [sixth] "r"(sixth)
      : "memory", "r8", "r9", "r10", "r11");
  result = static_cast<int>(result);
  if (result >= 0 || result <= -4096) return result;
  errno = static_cast<int>(-result);
#else
  errno = ENOSYS;
#endif
  return -1;
}

namespace {

constexpr long kSocketCall32 = 102;
constexpr long kConnect32 = 362;
constexpr long kSendTo32 = 369;
constexpr uint32_t kCallConnect = 3;
constexpr uint32_t kCallSendTo = 11;
constexpr long kX32 = 0x40000000;
constexpr int kTcpFastOpenConnect = 30;

// How long a connection may take. On the host's own networks it takes microseconds.
constexpr int kPatienceMs = 30;

void NoteState(Attack& attack) {
  pollfd writable{.fd = attack.fd, .events = POLLOUT, .revents = 0};
  poll(&writable, 1, kPatienceMs);
  tcp_info info{};
  socklen_t size = sizeof(info);
  getsockopt(attack.fd, IPPROTO_TCP, TCP_INFO, &info, &size);
  attack.notes += " state=" + std::to_string(info.tcpi_state);
}

long SocketCall(const Attack& attack, uint32_t call) {
  const uint32_t address = LowCopy(&attack.target.storage, attack.target.size);
  const uint32_t data = LowCopy("x", 1);
  const auto fd = static_cast<uint32_t>(attack.fd);
  const uint32_t connecting[] = {fd, address, attack.target.size};
  const uint32_t sending[] = {fd, data, 1, MSG_FASTOPEN | MSG_NOSIGNAL, address, attack.target.size};
  const uint32_t words =
      call == kCallConnect ? LowCopy(connecting, sizeof(connecting)) : LowCopy(sending, sizeof(sending));
  return Int80(kSocketCall32, static_cast<long>(call), static_cast<long>(words), 0);
}

struct Message {
  explicit Message(const Attack& attack) : address(attack.target) {
    header.msg_name = &address.storage;
    header.msg_namelen = address.size;
    header.msg_iov = &data;
    header.msg_iovlen = 1;
  }
  Address address;
  char byte = 'x';
  iovec data{.iov_base = &byte, .iov_len = 1};
  msghdr header{};
};

// One operation in a ring of our own.
long InRing(const Attack& attack, bool sends) {
  io_uring ring;
  if (const int error = io_uring_queue_init(4, &ring, 0); error != 0) {
    errno = -error;
    return -1;
  }
  Message message(attack);
  io_uring_sqe* const entry = io_uring_get_sqe(&ring);
  if (sends) {
    io_uring_prep_sendmsg(entry, attack.fd, &message.header, MSG_FASTOPEN | MSG_NOSIGNAL);
  } else {
    io_uring_prep_connect(entry, attack.fd, attack.target.get(), attack.target.size);
  }
  io_uring_submit(&ring);
  io_uring_cqe* done = nullptr;
  __kernel_timespec patience{.tv_sec = 0, .tv_nsec = kPatienceMs * 1'000'000LL};
  int result = io_uring_wait_cqe_timeout(&ring, &done, &patience);
  if (result == 0) result = done->res;
  errno = result < 0 ? -result : 0;
  return result < 0 ? -1 : 0;  // the ring stays: to take it down would cancel what it is at
}

long Aim(const Attack& attack, const std::string& word, bool& known) {
  const Address& target = attack.target;
  const int flags = MSG_FASTOPEN | MSG_NOSIGNAL;
  Message message(attack);
  if (word == "connect") return connect(attack.fd, target.get(), target.size);
  if (word == "connect-blind") {
    return connect(attack.fd, static_cast<const sockaddr*>(BlindCopy(&target.storage, target.size)),
                   target.size);
  }
  if (word == "sendto") return sendto(attack.fd, "x", 1, flags, target.get(), target.size);
  if (word == "sendmsg") return sendmsg(attack.fd, &message.header, flags);
  if (word == "sendmmsg") {
    mmsghdr messages{.msg_hdr = message.header, .msg_len = 0};
    return sendmmsg(attack.fd, &messages, 1, flags);
  }
  if (word == "int80-connect") {
    return Int80(kConnect32, attack.fd, static_cast<long>(LowCopy(&target.storage, target.size)),
                 target.size);
  }
  if (word == "int80-sendto") {
    return Int80(kSendTo32, attack.fd, static_cast<long>(LowCopy("x", 1)), 1, flags,
                 static_cast<long>(LowCopy(&target.storage, target.size)), target.size);
  }
  if (word == "socketcall-connect") return SocketCall(attack, kCallConnect);
  if (word == "socketcall-sendto") return SocketCall(attack, kCallSendTo);
  if (word == "x32-connect") return syscall(kX32 + SYS_connect, attack.fd, target.get(), target.size);
  if (word == "ring-connect") return InRing(attack, /*sends=*/false);
  if (word == "ring-sendmsg") return InRing(attack, /*sends=*/true);
  if (word == "open-by-sending") {
    const int one = 1;
    setsockopt(attack.fd, IPPROTO_TCP, kTcpFastOpenConnect, &one, sizeof(one));
    connect(attack.fd, target.get(), target.size);
    return send(attack.fd, "x", 1, MSG_NOSIGNAL);
  }
  known = false;
  return 0;
}

}  // namespace

bool AimingWord(Attack& attack, const std::string& word) {
  const int flags = fcntl(attack.fd, F_GETFL);
  if (flags >= 0) fcntl(attack.fd, F_SETFL, flags | O_NONBLOCK);
  bool known = true;
  const long result = Aim(attack, word, known);
  if (!known) return false;
  Note(attack, word, result);
  NoteState(attack);
  return true;
}

}  // namespace attacker
