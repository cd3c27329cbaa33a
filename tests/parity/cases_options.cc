// SPDX-License-Identifier: Apache-2.0
// Socket options set before a connect must read the same after it, and be in force; options set after it too.
#include <linux/net_tstamp.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>

#include "tests/parity/guest.h"

namespace parity {
namespace {

struct IntOption {
  const char* name;
  int level;
  int number;
  int value;
};

// Numbers instead of names where musl's or older glibc's headers lack them.
constexpr IntOption kCommon[] = {
    {"SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, 1},
    {"SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR, 1},
    {"SO_OOBINLINE", SOL_SOCKET, SO_OOBINLINE, 1},
    {"SO_RCVLOWAT", SOL_SOCKET, SO_RCVLOWAT, 7},
    {"SO_SNDBUF", SOL_SOCKET, SO_SNDBUF, 30000},
    {"SO_RCVBUF", SOL_SOCKET, SO_RCVBUF, 50000},
    {"SO_PRIORITY", SOL_SOCKET, SO_PRIORITY, 4},
    {"TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY, 1},
    {"TCP_KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE, 77},
    {"TCP_KEEPINTVL", IPPROTO_TCP, TCP_KEEPINTVL, 11},
    {"TCP_KEEPCNT", IPPROTO_TCP, TCP_KEEPCNT, 3},
    {"TCP_USER_TIMEOUT", IPPROTO_TCP, TCP_USER_TIMEOUT, 12345},
    {"TCP_CORK", IPPROTO_TCP, TCP_CORK, 1},
    {"TCP_LINGER2", IPPROTO_TCP, TCP_LINGER2, 9},
    {"TCP_SYNCNT", IPPROTO_TCP, TCP_SYNCNT, 3},
    {"TCP_NOTSENT_LOWAT", IPPROTO_TCP, 25, 16384},
    {"TCP_QUICKACK", IPPROTO_TCP, TCP_QUICKACK, 0},
    {"TCP_MAXSEG", IPPROTO_TCP, TCP_MAXSEG, 1000},
    {"TCP_WINDOW_CLAMP", IPPROTO_TCP, TCP_WINDOW_CLAMP, 20000},
    {"IP_TOS", IPPROTO_IP, IP_TOS, 0x10},
    {"IP_TTL", IPPROTO_IP, IP_TTL, 55},
};

constexpr IntOption kRare[] = {
    {"SO_REUSEPORT", SOL_SOCKET, SO_REUSEPORT, 1},
    {"SO_DONTROUTE", SOL_SOCKET, SO_DONTROUTE, 0},
    {"SO_BROADCAST", SOL_SOCKET, SO_BROADCAST, 1},
    {"SO_PEEK_OFF", SOL_SOCKET, 42, 0},
    {"SO_TIMESTAMP", SOL_SOCKET, SO_TIMESTAMP, 1},
    {"SO_TIMESTAMPNS", SOL_SOCKET, 35, 1},
    {"SO_TIMESTAMPING", SOL_SOCKET, 37, SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_RX_SOFTWARE},
    {"SO_WIFI_STATUS", SOL_SOCKET, 41, 1},
    {"SO_SELECT_ERR_QUEUE", SOL_SOCKET, 45, 1},
    {"SO_MAX_PACING_RATE", SOL_SOCKET, 47, 100000000},
    {"SO_ZEROCOPY", SOL_SOCKET, 60, 1},
    {"SO_TXREHASH", SOL_SOCKET, 74, 0},
    {"SO_BUF_LOCK", SOL_SOCKET, 72, 3},
    {"SO_PASSCRED", SOL_SOCKET, SO_PASSCRED, 1},
    {"SO_NO_CHECK", SOL_SOCKET, 11, 1},
    {"SO_INCOMING_CPU", SOL_SOCKET, 49, 0},
    {"SO_PREFER_BUSY_POLL", SOL_SOCKET, 69, 0},
    {"SO_MARK", SOL_SOCKET, 36, 5},
    {"SO_PRIORITY_7", SOL_SOCKET, SO_PRIORITY, 7},
    {"SO_SNDBUFFORCE", SOL_SOCKET, 32, 30000},
    {"SO_DEBUG", SOL_SOCKET, SO_DEBUG, 1},
    {"SO_LOCK_FILTER", SOL_SOCKET, 44, 1},
    {"TCP_DEFER_ACCEPT", IPPROTO_TCP, TCP_DEFER_ACCEPT, 5},
    {"TCP_THIN_LINEAR_TIMEOUTS", IPPROTO_TCP, 16, 1},
    {"TCP_THIN_DUPACK", IPPROTO_TCP, 17, 1},
    {"TCP_REPAIR", IPPROTO_TCP, 19, 1},
    {"TCP_TIMESTAMP", IPPROTO_TCP, 24, 5},
    {"TCP_SAVE_SYN", IPPROTO_TCP, 27, 1},
    {"TCP_INQ", IPPROTO_TCP, 36, 1},
    {"TCP_TX_DELAY", IPPROTO_TCP, 37, 1000},
    {"TCP_FASTOPEN", IPPROTO_TCP, 23, 5},
    {"TCP_FASTOPEN_NO_COOKIE", IPPROTO_TCP, 34, 1},
    {"IP_RECVTOS", IPPROTO_IP, 13, 1},
    {"IP_RECVTTL", IPPROTO_IP, 12, 1},
    {"IP_PKTINFO", IPPROTO_IP, 8, 1},
    {"IP_RECVERR", IPPROTO_IP, 11, 1},
    {"IP_RECVOPTS", IPPROTO_IP, 6, 1},
    {"IP_RETOPTS", IPPROTO_IP, 7, 1},
    {"IP_MTU_DISCOVER", IPPROTO_IP, 10, 2},
    {"IP_MINTTL", IPPROTO_IP, 21, 3},
    {"IP_FREEBIND", IPPROTO_IP, 15, 1},
    {"IP_TRANSPARENT", IPPROTO_IP, 19, 1},
    {"IP_BIND_ADDRESS_NO_PORT", IPPROTO_IP, 24, 1},
    {"IP_LOCAL_PORT_RANGE", IPPROTO_IP, 51, (40100 << 16) | 40000},
    {"IP_MULTICAST_TTL", IPPROTO_IP, 33, 9},
    {"IP_MULTICAST_LOOP", IPPROTO_IP, 34, 0},
};

constexpr IntOption kSix[] = {
    {"IPV6_V6ONLY", IPPROTO_IPV6, IPV6_V6ONLY, 1},
    {"IPV6_TCLASS", IPPROTO_IPV6, 67, 0x28},
    {"IPV6_UNICAST_HOPS", IPPROTO_IPV6, IPV6_UNICAST_HOPS, 44},
    {"IPV6_RECVPKTINFO", IPPROTO_IPV6, 49, 1},
    {"IPV6_RECVTCLASS", IPPROTO_IPV6, 66, 1},
    {"IPV6_RECVHOPLIMIT", IPPROTO_IPV6, 51, 1},
    {"IPV6_RECVERR", IPPROTO_IPV6, 25, 1},
    {"IPV6_MTU_DISCOVER", IPPROTO_IPV6, 23, 2},
    {"IPV6_DONTFRAG", IPPROTO_IPV6, 62, 1},
    {"IPV6_MINHOPCOUNT", IPPROTO_IPV6, 73, 2},
    {"IPV6_AUTOFLOWLABEL", IPPROTO_IPV6, 70, 0},
    {"IPV6_FLOWINFO_SEND", IPPROTO_IPV6, 33, 1},
    {"IPV6_ADDR_PREFERENCES", IPPROTO_IPV6, 72, 2},
    {"IP_TOS_on_v6", IPPROTO_IP, IP_TOS, 0x8},
    {"IP_TTL_on_v6", IPPROTO_IP, IP_TTL, 33},
};

// What the kernel itself changes under way: settable, but its value afterwards is nobody's promise.
bool Volatile(const IntOption& option) {
  if (option.level == IPPROTO_TCP)
    return option.number == TCP_QUICKACK || option.number == 24 /* TCP_TIMESTAMP */;
  return option.level == SOL_SOCKET && option.number == 49 /* SO_INCOMING_CPU */;
}

// Each option alone on a socket of its own: set, connected, read back.
template <size_t kCount>
void EachAlone(const IntOption (&options)[kCount], int family, const Address& address) {
  for (const IntOption& option : options) {
    const int fd = Tcp(family);
    char name[64];
    const int set = SetOption(fd, option.level, option.number, option.value);
    snprintf(name, sizeof name, "%s.set", option.name);
    Step(name, set);
    snprintf(name, sizeof name, "%s.connect", option.name);
    Step(name, Connect(fd, address));
    if (!Volatile(option)) Step(option.name, Option(fd, option.level, option.number));
    close(fd);
  }
}

}  // namespace

PARITY_CASE(options, common_each_alone, kPlain) {
  EachAlone(kCommon, AF_INET, PeerAt("hold"));
}
PARITY_CASE(options, common_each_alone_host, kPlain) {
  EachAlone(kCommon, AF_INET, HostAt("hold"));
}
PARITY_CASE(options, rare_each_alone, kOrdinary) {
  EachAlone(kRare, AF_INET, PeerAt("hold"));
}
PARITY_CASE(options, six_each_alone, kPlain) {
  EachAlone(kSix, AF_INET6, PeerAt6("hold"));
}
PARITY_CASE(options, common_on_six, kPlain) {
  EachAlone(kCommon, AF_INET6, PeerAt6("hold"));
}

PARITY_CASE(options, common_together, kPlain) {
  const int fd = Tcp();
  for (const IntOption& option : kCommon) SetOption(fd, option.level, option.number, option.value);
  Step("connect", Connect(fd, PeerAt("echo")));
  for (const IntOption& option : kCommon) {
    if (!Volatile(option)) Step(option.name, Option(fd, option.level, option.number));
  }
  Talk("talk", fd);
}

PARITY_CASE(options, none_set, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("hold")));
  for (const IntOption& option : kCommon) {
    const bool tuned = option.number == SO_SNDBUF || option.number == SO_RCVBUF;
    if ((option.level == SOL_SOCKET && tuned) || Volatile(option)) continue;
    Step(option.name, Option(fd, option.level, option.number));
  }
  for (const IntOption& option : kRare) {
    if (!Volatile(option)) Step(option.name, Option(fd, option.level, option.number));
  }
}

PARITY_CASE(options, set_after_connect, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("echo")));
  for (const IntOption& option : kCommon) {
    char name[64];
    snprintf(name, sizeof name, "%s.set", option.name);
    Step(name, SetOption(fd, option.level, option.number, option.value));
    if (!Volatile(option)) Step(option.name, Option(fd, option.level, option.number));
  }
  Talk("talk", fd);
}

PARITY_CASE(options, nonblocking_keeps_them, kPlain) {
  const int fd = Tcp(AF_INET, SOCK_NONBLOCK);
  for (const IntOption& option : kCommon) SetOption(fd, option.level, option.number, option.value);
  ConnectAndWait(fd, PeerAt("echo"));
  for (const IntOption& option : kCommon) {
    if (!Volatile(option)) Step(option.name, Option(fd, option.level, option.number));
  }
}

PARITY_CASE(options, kept_when_refused_and_retried, kPlain) {
  const int fd = Tcp();
  Step("nodelay", SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1));
  Step("connect", Connect(fd, PeerAt("closed")));
  Step("keepalive", SetOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1));
  Step("connect", Connect(fd, PeerAt("echo")));
  Step("nodelay", Option(fd, IPPROTO_TCP, TCP_NODELAY));
  Step("keepalive", Option(fd, SOL_SOCKET, SO_KEEPALIVE));
}

PARITY_CASE(options, linger, kPlain) {
  const int fd = Tcp();
  linger value = {1, 42};
  Step("set", setsockopt(fd, SOL_SOCKET, SO_LINGER, &value, sizeof value));
  Step("connect", Connect(fd, PeerAt("hold")));
  value = {};
  socklen_t size = sizeof value;
  Step("get", getsockopt(fd, SOL_SOCKET, SO_LINGER, &value, &size));
  Fact("linger", "%d %d", value.l_onoff, value.l_linger);
}

PARITY_CASE(options, timeouts, kPlain) {
  const int fd = Tcp();
  timeval receive = {3, 500000};
  timeval send = {7, 0};
  Step("rcvtimeo", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &receive, sizeof receive));
  Step("sndtimeo", setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &send, sizeof send));
  Step("connect", Connect(fd, PeerAt("hold")));
  receive = send = {};
  socklen_t size = sizeof receive;
  getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &receive, &size);
  getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &send, &size);
  Fact("rcvtimeo", "%ld.%06ld", static_cast<long>(receive.tv_sec), static_cast<long>(receive.tv_usec));
  Fact("sndtimeo", "%ld.%06ld", static_cast<long>(send.tv_sec), static_cast<long>(send.tv_usec));
}

PARITY_CASE(options, rcvtimeo_in_force, kPlain) {
  const int fd = Tcp();
  timeval limit = {0, 200000};
  Step("set", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
  Step("connect", Connect(fd, PeerAt("hold")));
  const int64_t start = NowMs();
  char byte = 0;
  Step("recv", recv(fd, &byte, 1, 0));
  Waited("waited", start, 200);
}

PARITY_CASE(options, congestion, kPlain) {
  const int fd = Tcp();
  Step("set", setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
  Step("connect", Connect(fd, PeerAt("hold")));
  char name[16] = {};
  socklen_t size = sizeof name;
  Step("get", getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &size));
  Fact("congestion", "%s", name);
  Step("unknown", setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "nonesuch", 8));
}

PARITY_CASE(options, bind_to_device_lo, kOrdinary) {
  const int fd = Tcp();
  Step("set", setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3));
  const int listener = Listener(V4("127.0.0.1", 0));
  Step("connect", Connect(fd, LocalOf(listener)));
  char name[32] = {};
  socklen_t size = sizeof name;
  Step("get", getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, &size));
  Fact("device", "%s", name);
  Step("unknown", setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "nonesuch0", 10));
}

PARITY_CASE(options, ip_options, kOrdinary) {
  const int fd = Tcp();
  const unsigned char kNoOperations[4] = {1, 1, 1, 0};
  Step("set", setsockopt(fd, IPPROTO_IP, IP_OPTIONS, kNoOperations, sizeof kNoOperations));
  unsigned char back[40] = {};
  socklen_t size = sizeof back;
  Step("get", getsockopt(fd, IPPROTO_IP, IP_OPTIONS, back, &size));
  Fact("size", "%u", size);
}

PARITY_CASE(options, refused_option_then_connect, kPlain) {
  const int fd = Tcp();
  Step("bad_length", setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, "", 0));
  Step("negative", setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, "", static_cast<socklen_t>(-1)));
  Step("null", setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, nullptr, sizeof(int)));
  Step("unknown_name", SetOption(fd, SOL_SOCKET, 9999, 1));
  Step("unknown_level", SetOption(fd, 9999, 1, 1));
  Step("mark", SetOption(fd, SOL_SOCKET, 36 /* SO_MARK */, 7));
  Step("connect", Connect(fd, PeerAt("echo")));
  Step("mark", Option(fd, SOL_SOCKET, 36));
  Talk("talk", fd);
}

PARITY_CASE(options, user_timeout_zero_and_again, kPlain) {
  const int fd = Tcp();
  Step("set", SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1));
  Step("unset", SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 0));
  Step("set", SetOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1));
  Step("unset", SetOption(fd, SOL_SOCKET, SO_KEEPALIVE, 0));
  Step("connect", Connect(fd, PeerAt("hold")));
  Step("nodelay", Option(fd, IPPROTO_TCP, TCP_NODELAY));
  Step("keepalive", Option(fd, SOL_SOCKET, SO_KEEPALIVE));
}

PARITY_CASE(options, buffers_bounded_by_the_maximum, kOrdinary) {
  const int fd = Tcp();
  Step("rcvbuf", SetOption(fd, SOL_SOCKET, SO_RCVBUF, 1 << 30));
  Step("sndbuf", SetOption(fd, SOL_SOCKET, SO_SNDBUF, 1 << 30));
  Step("connect", Connect(fd, PeerAt("hold")));
  Step("rcvbuf", Option(fd, SOL_SOCKET, SO_RCVBUF));
  Step("sndbuf", Option(fd, SOL_SOCKET, SO_SNDBUF));
}

PARITY_CASE(options, set_through_a_dup, kPlain) {
  const int fd = Tcp();
  const int copy = dup(fd);
  Step("set", SetOption(copy, IPPROTO_TCP, TCP_NODELAY, 1));
  close(copy);
  Step("connect", Connect(fd, PeerAt("hold")));
  Step("nodelay", Option(fd, IPPROTO_TCP, TCP_NODELAY));
}

PARITY_CASE(options, filter_attached, kOrdinary) {
  const int fd = Tcp();
  struct Instruction {
    uint16_t code;
    uint8_t jump_true, jump_false;
    uint32_t value;
  } accept_all = {0x06, 0, 0, 0xffffffff};
  struct {
    uint16_t length;
    Instruction* program;
  } filter = {1, &accept_all};
  Step("attach", setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter));
  Step("connect", Connect(fd, PeerAt("echo")));
  Step("detach", SetOption(fd, SOL_SOCKET, SO_DETACH_FILTER, 0));
  Step("detach", SetOption(fd, SOL_SOCKET, SO_DETACH_FILTER, 0));
  Talk("talk", fd);
}

PARITY_CASE(options, locked_filter_stays_locked, kPlain) {
  const int fd = Tcp();
  Step("connect", Connect(fd, PeerAt("echo")));
  Step("locked", Option(fd, SOL_SOCKET, 44 /* SO_LOCK_FILTER */));
}

}  // namespace parity
