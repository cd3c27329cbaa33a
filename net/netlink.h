// SPDX-License-Identifier: Apache-2.0
// netlink: one question to the kernel and its answer, for the protocols that we speak (rtnetlink, sock_diag).
//
// The kernel answers while the question is being sent, so nothing here ever waits. Datagrams from anybody but
// the kernel are read past. No heap; one socket belongs to one thread at a time.

#pragma once

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "core/result.h"

namespace shunt::net::netlink {

using Bytes = std::span<const std::byte>;

// The kernel makes its dump messages as large as the buffer of the last read, up to 32 KiB.
inline constexpr size_t kDumpBuffer = 32768;
// Datagrams that are not from the kernel, or belong to a question that was given up, are read past; so many
// at most.
inline constexpr int kMostStrangers = 4096;

// Netlink aligns everything to 4 bytes.
constexpr size_t Aligned(size_t length) {
  return (length + 3) & ~size_t{3};
}

// Copies a structure out of the front of `bytes`, which may be unaligned; nothing if it is too short.
template <typename Struct>
std::optional<Struct> Front(Bytes bytes) {
  if (bytes.size() < sizeof(Struct)) return std::nullopt;
  Struct value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

inline Bytes Behind(Bytes bytes, size_t length) {
  return bytes.subspan(std::min(Aligned(length), bytes.size()));
}

// Takes the next message off the front of `datagram`: its header, and what follows the header as `payload`.
inline std::optional<nlmsghdr> NextMessage(Bytes& datagram, Bytes& payload) {
  const std::optional<nlmsghdr> header = Front<nlmsghdr>(datagram);
  if (!header || header->nlmsg_len < sizeof(nlmsghdr) || header->nlmsg_len > datagram.size())
    return std::nullopt;
  payload = datagram.subspan(sizeof(nlmsghdr), header->nlmsg_len - sizeof(nlmsghdr));
  datagram = Behind(datagram, header->nlmsg_len);
  return header;
}

// Calls visit(type, value) for each attribute in `attributes`.
template <typename Visit>
void ForEachAttribute(Bytes attributes, Visit visit) {
  while (const std::optional<rtattr> header = Front<rtattr>(attributes)) {
    if (header->rta_len < sizeof(rtattr) || header->rta_len > attributes.size()) return;
    visit(header->rta_type & NLA_TYPE_MASK,
          attributes.subspan(sizeof(rtattr), header->rta_len - sizeof(rtattr)));
    attributes = Behind(attributes, header->rta_len);
  }
}

// One request in a fixed buffer.
class Request {
 public:
  template <typename Body>
  Request(int type, int flags, const Body& body) {
    // One counter for all sockets: an answer that was left over can never be taken for that to another
    // question.
    static std::atomic<uint32_t> last_sequence{0};
    header_.nlmsg_type = static_cast<uint16_t>(type);
    header_.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
    header_.nlmsg_seq = last_sequence.fetch_add(1, std::memory_order_relaxed) + 1;
    Append(&body, sizeof body);
  }

  template <typename Value>
  void AddAttribute(int type, const Value& value) {
    AddBytes(type, std::as_bytes(std::span(&value, 1)));
  }
  void AddBytes(int type, Bytes value) {
    const rtattr header = {static_cast<unsigned short>(sizeof(rtattr) + value.size()),
                           static_cast<unsigned short>(type)};
    Append(&header, sizeof header);
    Append(value.data(), value.size());
  }

  uint32_t sequence() const { return header_.nlmsg_seq; }

  Result<void> SendTo(int fd) {
    header_.nlmsg_len = static_cast<uint32_t>(size_);
    std::memcpy(buffer_, &header_, sizeof header_);
    sockaddr_nl kernel = {};
    kernel.nl_family = AF_NETLINK;
    for (;;) {
      const ssize_t sent =
          sendto(fd, buffer_, size_, MSG_DONTWAIT, reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel);
      if (sent >= 0) return {};
      if (errno != EINTR) return FailErrno();
    }
  }

 private:
  void Append(const void* data, size_t length) {
    std::memcpy(buffer_ + size_, data, length);
    size_ = Aligned(size_ + length);
  }

  nlmsghdr header_ = {};
  size_t size_ = sizeof(nlmsghdr);
  alignas(nlmsghdr) std::byte buffer_[512] = {};  // the longest has the filter of net/connection_census.cc
};

// The next datagram of the kernel. EAGAIN if there is none, EMSGSIZE if it does not fit.
inline Result<Bytes> ReceiveFromKernel(int fd, std::span<std::byte> buffer) {
  for (int strangers = 0; strangers < kMostStrangers; ++strangers) {
    sockaddr_nl sender = {};
    iovec part = {buffer.data(), buffer.size()};
    msghdr message = {};
    message.msg_name = &sender;
    message.msg_namelen = sizeof sender;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    const ssize_t length = recvmsg(fd, &message, MSG_DONTWAIT);
    if (length < 0) {
      if (errno == EINTR) continue;
      return FailErrno();
    }
    // The sender's port is written by the kernel and cannot be forged; its own is 0.
    if (message.msg_namelen != sizeof sender || sender.nl_pid != 0) continue;
    if ((message.msg_flags & MSG_TRUNC) != 0) return Fail(EMSGSIZE);
    return Bytes(buffer).first(static_cast<size_t>(length));
  }
  return Fail(EAGAIN);
}

// True for what the kernel returns as an error: the negative of an errno.
inline bool IsErrno(int result) {
  return result < 0 && result >= -4095;
}

inline int ErrorOf(Bytes payload) {
  const std::optional<nlmsgerr> error = Front<nlmsgerr>(payload);
  return error && IsErrno(error->error) ? -error->error : EBADMSG;
}

// What the datagrams of one dump add up to.
class DumpAnswer {
 public:
  explicit DumpAnswer(uint32_t sequence) : sequence_(sequence) {}

  // Calls visit(type, payload) for every message in `datagram` that answers the question. True: that was the
  // end, and result() tells how it ended. ERESTART: the tables changed meanwhile, so that something may be
  // missing.
  template <typename Visit>
  bool Take(Bytes datagram, Visit visit) {
    Bytes payload;
    while (const std::optional<nlmsghdr> header = NextMessage(datagram, payload)) {
      if (header->nlmsg_seq != sequence_) {
        ++strangers_;
        continue;
      }
      interrupted_ |= (header->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
      if (header->nlmsg_type == NLMSG_ERROR) return EndWith(ErrorOf(payload));
      if (header->nlmsg_type == NLMSG_DONE) {
        // The end carries the dump's own result.
        const int result = Front<int>(payload).value_or(0);
        if (result < 0) return EndWith(IsErrno(result) ? -result : EBADMSG);
        return EndWith(interrupted_ ? ERESTART : 0);
      }
      visit(header->nlmsg_type, payload);
    }
    return false;
  }

  int strangers() const { return strangers_; }  // messages that belong to other questions
  const Result<void>& result() const { return result_; }

 private:
  bool EndWith(int error) {
    result_ = error == 0 ? Result<void>() : Fail(error);
    return true;
  }

  const uint32_t sequence_;
  int strangers_ = 0;
  bool interrupted_ = false;
  Result<void> result_;
};

// Sends a dump request and calls visit(type, payload) for every message of the answer. ERESTART as in
// DumpAnswer.
template <typename Visit>
Result<void> DumpOnce(int fd, Request request, std::byte* buffer, Visit visit) {
  if (Result<void> sent = request.SendTo(fd); !sent) return sent;
  DumpAnswer answer(request.sequence());
  while (answer.strangers() < kMostStrangers) {
    const Result<Bytes> datagram = ReceiveFromKernel(fd, {buffer, kDumpBuffer});
    if (!datagram) return Fail(datagram.error().code);
    if (answer.Take(*datagram, visit)) return answer.result();
  }
  return Fail(EAGAIN);
}

}  // namespace shunt::net::netlink
