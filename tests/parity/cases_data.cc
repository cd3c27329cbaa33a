// SPDX-License-Identifier: Apache-2.0
// Bytes over a connected socket: bulk with a checksum, half closes, resets, urgent data, and the calls that
// move data without copying it.
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

#include "tests/parity/guest.h"

namespace parity {
namespace {

constexpr size_t kBulk = 4 << 20;

int Connected(const char* service) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt(service)));
  return fd;
}

// FNV-1a over what is written and over what comes back.
uint32_t Mix(uint32_t hash, const unsigned char* bytes, size_t size) {
  for (size_t i = 0; i < size; ++i) hash = (hash ^ bytes[i]) * 16777619U;
  return hash;
}

// Writes and reads at once (the echo would stop a writer that never reads), until all is back.
void EchoBulk(int fd, size_t total) {
  static unsigned char out[65536];
  static unsigned char in[65536];
  uint32_t sent_hash = 2166136261U;
  uint32_t read_hash = 2166136261U;
  size_t sent = 0;
  size_t received = 0;
  uint32_t random = 12345;
  size_t pending = 0;
  size_t at = 0;
  while (received < total) {
    pollfd one = {fd, static_cast<short>(POLLIN | (sent < total ? POLLOUT : 0)), 0};
    if (poll(&one, 1, 5000) != 1) break;
    if ((one.revents & POLLIN) != 0) {
      const ssize_t got = recv(fd, in, sizeof in, MSG_DONTWAIT);
      if (got <= 0) break;
      read_hash = Mix(read_hash, in, static_cast<size_t>(got));
      received += static_cast<size_t>(got);
    }
    if ((one.revents & POLLOUT) == 0 || sent >= total) continue;
    if (pending == 0) {
      for (unsigned char& byte : out)
        byte = static_cast<unsigned char>((random = random * 1103515245 + 12345) >> 16);
      pending = sizeof out < total - sent ? sizeof out : total - sent;
      at = 0;
    }
    const ssize_t put = send(fd, out + at, pending, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put < 0 && errno != EAGAIN) break;
    if (put <= 0) continue;
    sent_hash = Mix(sent_hash, out + at, static_cast<size_t>(put));
    at += static_cast<size_t>(put);
    sent += static_cast<size_t>(put);
    pending -= static_cast<size_t>(put);
  }
  Fact("received", "%zu", received);
  Fact("hash", "%s", sent_hash == read_hash ? "same" : "different");
}

}  // namespace

PARITY_CASE(data, bulk_echo, kPlain) {
  EchoBulk(Connected("echo"), kBulk);
}

PARITY_CASE(data, bulk_echo_nonblocking, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  ConnectAndWait(fd, PeerAt("echo"));
  EchoBulk(fd, kBulk);
}

PARITY_CASE(data, bulk_echo_with_small_buffers, kPlain) {
  const int fd = Tcp();
  SetOption(fd, SOL_SOCKET, SO_SNDBUF, 8192);
  SetOption(fd, SOL_SOCKET, SO_RCVBUF, 8192);
  Step("connect", Connect(fd, PeerAt("echo")));
  EchoBulk(fd, kBulk / 8);
}

PARITY_CASE(data, bulk_read, kPlain) {
  const int fd = Connected("source");
  static unsigned char in[65536];
  size_t total = 0;
  uint32_t hash = 2166136261U;
  while (true) {
    const ssize_t got = recv(fd, in, sizeof in, 0);
    if (got <= 0) break;
    hash = Mix(hash, in, static_cast<size_t>(got));
    total += static_cast<size_t>(got);
  }
  Fact("total", "%zu", total);
  Fact("hash", "%#x", hash);
}

PARITY_CASE(data, half_close, kPlain) {
  const int fd = Connected("count");
  static char block[50000];
  Step("send", send(fd, block, sizeof block, 0));
  Step("shutdown", shutdown(fd, SHUT_WR));
  char text[16] = {};
  const ssize_t got = ReadFully(fd, text, 5);
  Fact("counted", "%.*s", static_cast<int>(got > 0 ? got : 0), text);
  Step("eof", recv(fd, text, 1, 0));
  Step("send", send(fd, "x", 1, MSG_NOSIGNAL));
  Step("shutdown", shutdown(fd, SHUT_RDWR));
}

PARITY_CASE(data, shutdown_read, kPlain) {
  const int fd = Connected("hold");
  Step("shutdown", shutdown(fd, SHUT_RD));
  char byte = 0;
  Step("recv", recv(fd, &byte, 1, 0));
  Step("send", send(fd, "x", 1, MSG_NOSIGNAL));
  pollfd one = {fd, POLLIN | POLLOUT | POLLRDHUP, 0};
  Step("poll", poll(&one, 1, 0));
  Fact("events", "%#x", one.revents);
  Step("bad", shutdown(fd, 3));
}

PARITY_CASE(data, shutdown_both, kPlain) {
  const int fd = Connected("hold");
  Step("shutdown", shutdown(fd, SHUT_RDWR));
  Fact("state", "%s", StateOf(fd));
  Step("connect", Connect(fd, PeerAt("echo")));
  Step("again", shutdown(fd, SHUT_RDWR));
}

PARITY_CASE(data, reset_by_linger_zero, kPlain) {
  const int fd = Connected("count");
  linger now = {1, 0};
  Step("linger", setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now));
  Step("send", send(fd, "abc", 3, 0));
  Step("close", close(fd));
}

PARITY_CASE(data, reset_seen_by_writer, kPlain) {
  const int fd = Connected("reset");
  Step("send", send(fd, "x", 1, MSG_NOSIGNAL));
  WaitFor(fd, POLLIN);
  Step("send", send(fd, "x", 1, MSG_NOSIGNAL));
  Step("send", send(fd, "x", 1, MSG_NOSIGNAL));
  Fact("so_error", "%s", ErrnoName(TakeError(fd)));
  Where(fd);
}

PARITY_CASE(data, sigpipe, kPlain) {
  Count(SIGPIPE, 0);
  const int fd = Connected("hold");
  Step("shutdown", shutdown(fd, SHUT_WR));
  Step("write", write(fd, "x", 1));
  Fact("signals", "%d", Counted());
}

PARITY_CASE(data, sigpipe_kills, kPlain) {
  const pid_t pid = Child([] {
    const int fd = Tcp();
    if (Connect(fd, PeerAt("hold")) != 0) return 1;
    shutdown(fd, SHUT_WR);
    return write(fd, "x", 1) == 1 ? 2 : 3;
  });
  Fact("child", "%d", WaitChild(pid));
}

PARITY_CASE(data, urgent, kPlain) {
  const int fd = Connected("urgent");
  // The server answers a byte with "ab" and an urgent "!".
  Step("send", send(fd, "x", 1, 0));
  Fact("events", "%#x", WaitFor(fd, POLLPRI) & POLLPRI);
  char byte = 0;
  Step("urgent", recv(fd, &byte, 1, MSG_OOB));
  Fact("byte", "%c", byte);
  char text[4] = {};
  Step("read", ReadFully(fd, text, 2));
  Fact("text", "%s", text);
  Step("at_mark", ioctl(fd, 0x8905 /* SIOCATMARK */, &byte));
}

PARITY_CASE(data, urgent_inline, kPlain) {
  const int fd = Tcp();
  Step("oobinline", SetOption(fd, SOL_SOCKET, SO_OOBINLINE, 1));
  Step("connect", Connect(fd, PeerAt("urgent")));
  Step("send", send(fd, "x", 1, 0));
  char text[4] = {};
  Step("read", ReadFully(fd, text, 3));
  Fact("text", "%s", text);
  char byte = 0;
  Step("urgent", recv(fd, &byte, 1, MSG_OOB));
}

PARITY_CASE(data, peek, kPlain) {
  const int fd = Connected("banner");
  WaitFor(fd, POLLIN);
  char text[16] = {};
  Step("peek", recv(fd, text, 7, MSG_PEEK | MSG_WAITALL));
  Step("peek", recv(fd, text, 3, MSG_PEEK));
  Step("read", ReadFully(fd, text, 7));
  Fact("text", "%.5s", text);
}

PARITY_CASE(data, vectors, kPlain) {
  const int fd = Connected("echo");
  char one[] = "one";
  char two[] = "two";
  iovec parts[2] = {{one, 3}, {two, 3}};
  Step("writev", writev(fd, parts, 2));
  char back[8] = {};
  Step("read", ReadFully(fd, back, 6));
  Fact("text", "%s", back);
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  Step("sendmsg", sendmsg(fd, &message, 0));
  Step("waitall", recv(fd, back, 6, MSG_WAITALL));
}

PARITY_CASE(data, sendmmsg_and_recvmmsg, kPlain) {
  const int fd = Connected("echo");
  char text[] = "message";
  iovec part = {text, 7};
  mmsghdr messages[2] = {};
  for (mmsghdr& message : messages) {
    message.msg_hdr.msg_iov = &part;
    message.msg_hdr.msg_iovlen = 1;
  }
  Step("sendmmsg", sendmmsg(fd, messages, 2, 0));
  char back[16] = {};
  Step("read", ReadFully(fd, back, 14));
}

PARITY_CASE(data, sendfile, kPlain) {
  const int fd = Connected("echo");
  const int file = memfd_create("contents", 0);
  static char block[10000];
  memset(block, 'f', sizeof block);
  Step("write", write(file, block, sizeof block));
  off_t offset = 0;
  Step("sendfile", sendfile(fd, file, &offset, sizeof block));
  static char back[10000];
  Step("read", ReadFully(fd, back, sizeof back));
  Fact("same", "%d", memcmp(block, back, sizeof block) == 0);
}

PARITY_CASE(data, splice, kPlain) {
  const int fd = Connected("echo");
  int ends[2];
  Step("pipe", pipe(ends));
  Step("fill", write(ends[1], "spliced", 7));
  Step("out", splice(ends[0], nullptr, fd, nullptr, 7, 0));
  size_t moved = 0;
  while (moved < 7 && WaitFor(fd, POLLIN) != 0) {
    const ssize_t got = splice(fd, nullptr, ends[1], nullptr, 7 - moved, 0);
    if (got <= 0) break;
    moved += static_cast<size_t>(got);
  }
  Fact("moved", "%zu", moved);
  char back[8] = {};
  Step("read", read(ends[0], back, 7));
  Fact("text", "%s", back);
}

PARITY_CASE(data, zerocopy_send, kOrdinary) {
  const int fd = Tcp();
  Step("zerocopy", SetOption(fd, SOL_SOCKET, 60 /* SO_ZEROCOPY */, 1));
  Step("connect", Connect(fd, PeerAt("echo")));
  Step("send", send(fd, "abc", 3, 0x4000000 /* MSG_ZEROCOPY */));
  char back[4] = {};
  Step("read", ReadFully(fd, back, 3));
}

PARITY_CASE(data, wait_all_interrupted_by_eof, kPlain) {
  const int fd = Connected("banner");
  char text[64] = {};
  Step("shutdown", shutdown(fd, SHUT_WR));
  Step("recv", recv(fd, text, sizeof text, MSG_WAITALL));
}

PARITY_CASE(data, nonblocking_recv_after_blocking_connect, kPlain) {
  const int fd = Connected("hold");
  char byte = 0;
  Step("recv", recv(fd, &byte, 1, MSG_DONTWAIT));
  Step("zero", recv(fd, &byte, 0, MSG_DONTWAIT));
  Step("errqueue", recv(fd, &byte, 1, MSG_ERRQUEUE));
}

PARITY_CASE(data, read_and_write_pointers, kPlain) {
  const int fd = Connected("echo");
  Step("write_null", syscall(SYS_write, fd, nullptr, 5));
  Step("read_null", [&] {
    if (send(fd, "abc", 3, 0) != 3) return -1L;
    WaitFor(fd, POLLIN);
    return syscall(SYS_read, fd, nullptr, 3);
  }());
  char back[4] = {};
  Step("read", ReadFully(fd, back, 3));
  Step("pwrite", pwrite(fd, "x", 1, 0));
  Step("lseek", lseek(fd, 0, SEEK_SET));
  Step("fsync", fsync(fd));
  Step("ftruncate", ftruncate(fd, 0));
  Step("fchmod", syscall(SYS_fchmod, fd, 0600) == 0 || errno == EPERM ? 0 : -1);
}

PARITY_CASE(data, tcp_info_after_connect, kPlain) {
  const int fd = Connected("hold");
  Fact("state", "%s", StateOf(fd));
  tcp_info info{};
  socklen_t size = sizeof info;
  Step("info", getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size));
  Fact("options", "%#x", info.tcpi_options & 0x7);
  Fact("backoff", "%u %u", info.tcpi_backoff, info.tcpi_retransmits);
}

}  // namespace parity
