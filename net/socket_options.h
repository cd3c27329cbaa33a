// SPDX-License-Identifier: Apache-2.0
// The socket options that a twin must share with the container's socket: one table for who copies and who
// traps.
//
// net/twin_options copies by it, handlers/traps derives the conditional setsockopt traps from it. An option
// is either
//   hot         read at every swap and never trapped, because ordinary programs set it on ordinary sockets;
//   rare        its setsockopt is trapped, which only marks that the rare ones have to be read at the swap;
//   unreadable  its setsockopt is trapped and means that the socket stays on the ordinary path for ever.
//
// Numbers instead of names: half of these are missing from Debian 12's headers and <linux/tcp.h> and
// <netinet/tcp.h> exclude each other. They are the asm-generic ones (x86, ARM, RISC-V, s390, POWER); a test
// compares them with the headers. Mips, parisc and sparc number SOL_SOCKET differently and are not supported.
//
// Not in the table, on purpose, so neither trapped nor copied:
//   - SO_PASSCRED, SO_PASSSEC, SO_PASSPIDFD, SO_PASSRIGHTS: common on AF_UNIX, without effect here.
//   - multicast memberships, IP_MULTICAST_IF, IP_MULTICAST_TTL: the kernel refuses them on a TCP socket.
//   - the second numbers of one thing: SO_RCVTIMEO_NEW (66) and SO_SNDTIMEO_NEW (67) set the same fields as
//   the old ones.
//   - SO_RCVBUFFORCE, SO_SNDBUFFORCE: their effect is seen in SO_RCVBUF, SO_SNDBUF and SO_BUF_LOCK.
//   - SO_DETACH_FILTER: what it leaves is read by SO_ATTACH_FILTER. SO_CNX_ADVICE: leaves nothing.
//   - TCP_THIN_DUPACK: the kernel stores nothing. TCP_TIMESTAMP, TCP_REPAIR_*, TCP_QUEUE_SEQ: only under
//   TCP_REPAIR.

#pragma once

#include <array>
#include <cstdint>

namespace shunt::net {

// Levels, as the second argument of setsockopt. kIp6 applies to AF_INET6 sockets only; all the others to both
// families (an AF_INET6 socket has the IP level as well, for v4-mapped peers).
enum OptionLevel : int { kLevelIp = 0, kLevelSocket = 1, kLevelTcp = 6, kLevelIp6 = 41 };

enum class OptionKind : uint8_t {
  kInt,      // 4 bytes
  kU64,      // 8 bytes
  kTimeval,  // 16 bytes, two longs: seconds, microseconds
  kLinger,   // 8 bytes, struct linger
  kName,     // up to 16 bytes of text (a congestion control, a device); length 0 or a leading NUL: none
  kBytes,    // up to 64 bytes that nobody interprets; the length that getsockopt returns counts
  kNone,     // cannot be read
};

// How an option gets onto the twin. Always: only what differs from the twin's value is written; an option
// that the kernel does not know (ENOPROTOOPT, EOPNOTSUPP) is passed over; any other error means the ordinary
// path.
enum class OptionRule : uint8_t {
  kSame,          // the value as it was read
  kHalfIfLocked,  // SO_SNDBUF, SO_RCVBUF: value/2 (the kernel doubles), and only if `parameter`, its bit in
                  // SO_BUF_LOCK, is set (a write stops autotuning); ordinary path if the twin does not read
                  // back the same
  kNonzeroOnly,   // as read, never zero: writing SO_TIMESTAMPNS=0 would clear SO_TIMESTAMP
  kSkipValue,     // as read, unless it is `parameter`: that value means "not set" and written back means
                  // something else
  kAtMost,        // as read; above `parameter`: ordinary path, for that takes a privilege
  kZeroOrOrdinaryPath,  // nothing is written; any nonzero byte in what was read: ordinary path
  kOrdinaryPath,        // unreadable: that it was ever set means the ordinary path
};

enum class OptionUse : uint8_t { kHot, kRare, kUnreadable };

struct SocketOption {
  int level;
  int name;
  const char* label;  // for messages and documents
  OptionKind kind;
  OptionRule rule;
  OptionUse use;
  bool before_bind = false;  // acts at bind: has to be on the twin before its bind
  int parameter = 0;         // see OptionRule
};

inline constexpr int kSoBufLock = 72;  // SO_BUF_LOCK: which of the two buffers the program has set
inline constexpr int kSndbufLocked = 1;
inline constexpr int kRcvbufLocked = 2;

// In the order of writing: what acts at bind first, SO_PRIORITY after IP_TOS (which changes it).
inline constexpr auto kSocketOptions = [] {
  using enum OptionKind;
  using enum OptionRule;
  using enum OptionUse;
  constexpr bool kBeforeBind = true;
  return std::to_array<SocketOption>({
      // Hot.
      {kLevelSocket, 2, "SO_REUSEADDR", kInt, kSame, kHot, kBeforeBind},
      {kLevelIp6, 26, "IPV6_V6ONLY", kInt, kSame, kHot, kBeforeBind},
      {kLevelSocket, 9, "SO_KEEPALIVE", kInt, kSame, kHot},
      {kLevelSocket, 13, "SO_LINGER", kLinger, kSame, kHot},
      {kLevelSocket, 20, "SO_RCVTIMEO", kTimeval, kSame, kHot},
      {kLevelSocket, 21, "SO_SNDTIMEO", kTimeval, kSame, kHot},
      {kLevelSocket, 7, "SO_SNDBUF", kInt, kHalfIfLocked, kHot, false, kSndbufLocked},
      {kLevelSocket, 8, "SO_RCVBUF", kInt, kHalfIfLocked, kHot, false, kRcvbufLocked},
      {kLevelTcp, 1, "TCP_NODELAY", kInt, kSame, kHot},
      {kLevelTcp, 3, "TCP_CORK", kInt, kSame, kHot},
      {kLevelTcp, 12, "TCP_QUICKACK", kInt, kSkipValue, kHot, false, 1},
      {kLevelTcp, 4, "TCP_KEEPIDLE", kInt, kSame, kHot},
      {kLevelTcp, 5, "TCP_KEEPINTVL", kInt, kSame, kHot},
      {kLevelTcp, 6, "TCP_KEEPCNT", kInt, kSame, kHot},

      // Rare, before bind.
      {kLevelSocket, 15, "SO_REUSEPORT", kInt, kSame, kRare, kBeforeBind},
      {kLevelIp, 15, "IP_FREEBIND", kInt, kSame, kRare, kBeforeBind},
      {kLevelIp, 24, "IP_BIND_ADDRESS_NO_PORT", kInt, kSame, kRare, kBeforeBind},
      {kLevelIp, 51, "IP_LOCAL_PORT_RANGE", kInt, kSame, kRare, kBeforeBind},
      {kLevelIp6, 78, "IPV6_FREEBIND", kInt, kSame, kRare, kBeforeBind},

      // Rare, socket level.
      {kLevelSocket, 5, "SO_DONTROUTE", kInt, kSame, kRare},
      {kLevelSocket, 6, "SO_BROADCAST", kInt, kSame, kRare},
      {kLevelSocket, 11, "SO_NO_CHECK", kInt, kSame, kRare},
      {kLevelSocket, 40, "SO_RXQ_OVFL", kInt, kSame, kRare},
      {kLevelSocket, 41, "SO_WIFI_STATUS", kInt, kSame, kRare},
      {kLevelSocket, 43, "SO_NOFCS", kInt, kSame, kRare},
      {kLevelSocket, 10, "SO_OOBINLINE", kInt, kSame, kRare},
      {kLevelSocket, 18, "SO_RCVLOWAT", kInt, kSame, kRare},
      {kLevelSocket, 42, "SO_PEEK_OFF", kInt, kSame, kRare},
      {kLevelSocket, 45, "SO_SELECT_ERR_QUEUE", kInt, kSame, kRare},
      {kLevelSocket, 46, "SO_BUSY_POLL", kInt, kSame, kRare},
      {kLevelSocket, 47, "SO_MAX_PACING_RATE", kU64, kSame, kRare},
      {kLevelSocket, 49, "SO_INCOMING_CPU", kInt, kSame, kRare},
      {kLevelSocket, 60, "SO_ZEROCOPY", kInt, kSame, kRare},
      {kLevelSocket, 74, "SO_TXREHASH", kInt, kSame, kRare},
      {kLevelSocket, 29, "SO_TIMESTAMP_OLD", kInt, kNonzeroOnly, kRare},
      {kLevelSocket, 35, "SO_TIMESTAMPNS_OLD", kInt, kNonzeroOnly, kRare},
      {kLevelSocket, 63, "SO_TIMESTAMP_NEW", kInt, kNonzeroOnly, kRare},
      {kLevelSocket, 64, "SO_TIMESTAMPNS_NEW", kInt, kNonzeroOnly, kRare},
      {kLevelSocket, 37, "SO_TIMESTAMPING_OLD", kInt, kNonzeroOnly, kRare},
      {kLevelSocket, 65, "SO_TIMESTAMPING_NEW", kInt, kNonzeroOnly, kRare},
      {kLevelSocket, 1, "SO_DEBUG", kInt, kZeroOrOrdinaryPath, kRare},
      {kLevelSocket, 36, "SO_MARK", kInt, kZeroOrOrdinaryPath, kRare},
      {kLevelSocket, 25, "SO_BINDTODEVICE", kName, kZeroOrOrdinaryPath, kRare},
      {kLevelSocket, 62, "SO_BINDTOIFINDEX", kInt, kZeroOrOrdinaryPath, kRare},
      {kLevelSocket, 44, "SO_LOCK_FILTER", kInt, kZeroOrOrdinaryPath, kRare},
      // Read with length 0 this returns the number of instructions, 0 without a filter, EACCES for an eBPF
      // one.
      {kLevelSocket, 26, "SO_ATTACH_FILTER", kBytes, kZeroOrOrdinaryPath, kRare},
      {kLevelSocket, 61, "SO_TXTIME", kBytes, kZeroOrOrdinaryPath, kRare},
      {kLevelSocket, 69, "SO_PREFER_BUSY_POLL", kInt, kZeroOrOrdinaryPath, kRare},
      {kLevelSocket, 73, "SO_RESERVE_MEM", kInt, kZeroOrOrdinaryPath, kRare},

      // Rare, IPv4 level.
      {kLevelIp, 1, "IP_TOS", kInt, kSame, kRare},
      {kLevelSocket, 12, "SO_PRIORITY", kInt, kAtMost, kRare, false, 6},
      {kLevelIp, 2, "IP_TTL", kInt, kSame, kRare},
      {kLevelIp, 34, "IP_MULTICAST_LOOP", kInt, kSame, kRare},
      {kLevelIp6, 19, "IPV6_MULTICAST_LOOP", kInt, kSame, kRare},
      {kLevelIp, 6, "IP_RECVOPTS", kInt, kSame, kRare},
      {kLevelIp, 7, "IP_RETOPTS", kInt, kSame, kRare},
      {kLevelIp, 8, "IP_PKTINFO", kInt, kSame, kRare},
      {kLevelIp, 10, "IP_MTU_DISCOVER", kInt, kSame, kRare},
      {kLevelIp, 11, "IP_RECVERR", kInt, kSame, kRare},
      {kLevelIp, 12, "IP_RECVTTL", kInt, kSame, kRare},
      {kLevelIp, 13, "IP_RECVTOS", kInt, kSame, kRare},
      {kLevelIp, 20, "IP_RECVORIGDSTADDR", kInt, kSame, kRare},
      {kLevelIp, 21, "IP_MINTTL", kInt, kSame, kRare},
      // A source route sends the connection elsewhere than to the address that was decided on.
      {kLevelIp, 4, "IP_OPTIONS", kBytes, kZeroOrOrdinaryPath, kRare},
      {kLevelIp, 19, "IP_TRANSPARENT", kInt, kZeroOrOrdinaryPath, kRare},
      {kLevelIp, 50, "IP_UNICAST_IF", kInt, kZeroOrOrdinaryPath, kRare},

      // Rare, IPv6 level.
      {kLevelIp6, 2, "IPV6_2292PKTINFO", kInt, kSame, kRare},
      {kLevelIp6, 3, "IPV6_2292HOPOPTS", kInt, kSame, kRare},
      {kLevelIp6, 4, "IPV6_2292DSTOPTS", kInt, kSame, kRare},
      {kLevelIp6, 5, "IPV6_2292RTHDR", kInt, kSame, kRare},
      {kLevelIp6, 8, "IPV6_2292HOPLIMIT", kInt, kSame, kRare},
      {kLevelIp6, 11, "IPV6_FLOWINFO", kInt, kSame, kRare},
      {kLevelIp6, 16, "IPV6_UNICAST_HOPS", kInt, kSame, kRare},
      {kLevelIp6, 23, "IPV6_MTU_DISCOVER", kInt, kSame, kRare},
      {kLevelIp6, 25, "IPV6_RECVERR", kInt, kSame, kRare},
      {kLevelIp6, 33, "IPV6_FLOWINFO_SEND", kInt, kSame, kRare},
      {kLevelIp6, 49, "IPV6_RECVPKTINFO", kInt, kSame, kRare},
      {kLevelIp6, 51, "IPV6_RECVHOPLIMIT", kInt, kSame, kRare},
      {kLevelIp6, 53, "IPV6_RECVHOPOPTS", kInt, kSame, kRare},
      {kLevelIp6, 56, "IPV6_RECVRTHDR", kInt, kSame, kRare},
      {kLevelIp6, 58, "IPV6_RECVDSTOPTS", kInt, kSame, kRare},
      {kLevelIp6, 60, "IPV6_RECVPATHMTU", kInt, kSame, kRare},
      {kLevelIp6, 62, "IPV6_DONTFRAG", kInt, kSame, kRare},
      {kLevelIp6, 66, "IPV6_RECVTCLASS", kInt, kSame, kRare},
      {kLevelIp6, 67, "IPV6_TCLASS", kInt, kSame, kRare},
      {kLevelIp6, 70, "IPV6_AUTOFLOWLABEL", kInt, kSame, kRare},
      {kLevelIp6, 72, "IPV6_ADDR_PREFERENCES", kInt, kSame, kRare},
      {kLevelIp6, 73, "IPV6_MINHOPCOUNT", kInt, kSame, kRare},
      {kLevelIp6, 74, "IPV6_RECVORIGDSTADDR", kInt, kSame, kRare},
      {kLevelIp6, 54, "IPV6_HOPOPTS", kBytes, kZeroOrOrdinaryPath, kRare},
      {kLevelIp6, 55, "IPV6_RTHDRDSTOPTS", kBytes, kZeroOrOrdinaryPath, kRare},
      {kLevelIp6, 57, "IPV6_RTHDR", kBytes, kZeroOrOrdinaryPath, kRare},
      {kLevelIp6, 59, "IPV6_DSTOPTS", kBytes, kZeroOrOrdinaryPath, kRare},
      {kLevelIp6, 75, "IPV6_TRANSPARENT", kInt, kZeroOrOrdinaryPath, kRare},
      {kLevelIp6, 76, "IPV6_UNICAST_IF", kInt, kZeroOrOrdinaryPath, kRare},

      // Rare, TCP level.
      {kLevelTcp, 2, "TCP_MAXSEG", kInt, kSkipValue, kRare, false, 536},
      {kLevelTcp, 7, "TCP_SYNCNT", kInt, kSame, kRare},
      {kLevelTcp, 8, "TCP_LINGER2", kInt, kSame, kRare},
      {kLevelTcp, 9, "TCP_DEFER_ACCEPT", kInt, kSame, kRare},
      {kLevelTcp, 10, "TCP_WINDOW_CLAMP", kInt, kSkipValue, kRare, false, 0},
      {kLevelTcp, 13, "TCP_CONGESTION", kName, kSame, kRare},
      {kLevelTcp, 16, "TCP_THIN_LINEAR_TIMEOUTS", kInt, kSame, kRare},
      {kLevelTcp, 18, "TCP_USER_TIMEOUT", kInt, kSame, kRare},
      {kLevelTcp, 25, "TCP_NOTSENT_LOWAT", kInt, kSame, kRare},
      {kLevelTcp, 27, "TCP_SAVE_SYN", kInt, kSame, kRare},
      {kLevelTcp, 36, "TCP_INQ", kInt, kSame, kRare},
      {kLevelTcp, 37, "TCP_TX_DELAY", kInt, kSame, kRare},
      {kLevelTcp, 44, "TCP_RTO_MAX_MS", kInt, kSame, kRare},
      {kLevelTcp, 45, "TCP_RTO_MIN_US", kInt, kSame, kRare},
      {kLevelTcp, 46, "TCP_DELACK_MAX_US", kInt, kSame, kRare},
      {kLevelTcp, 19, "TCP_REPAIR", kInt, kZeroOrOrdinaryPath, kRare},
      {kLevelTcp, 23, "TCP_FASTOPEN", kInt, kZeroOrOrdinaryPath, kRare},
      {kLevelTcp, 30, "TCP_FASTOPEN_CONNECT", kInt, kZeroOrOrdinaryPath, kRare},
      {kLevelTcp, 31, "TCP_ULP", kName, kZeroOrOrdinaryPath, kRare},
      {kLevelTcp, 34, "TCP_FASTOPEN_NO_COOKIE", kInt, kZeroOrOrdinaryPath, kRare},

      // Unreadable.
      {kLevelSocket, 50, "SO_ATTACH_BPF", kNone, kOrdinaryPath, kUnreadable},
      {kLevelSocket, 51, "SO_ATTACH_REUSEPORT_CBPF", kNone, kOrdinaryPath, kUnreadable},
      {kLevelSocket, 52, "SO_ATTACH_REUSEPORT_EBPF", kNone, kOrdinaryPath, kUnreadable},
      {kLevelSocket, 70, "SO_BUSY_POLL_BUDGET", kNone, kOrdinaryPath, kUnreadable},
      // Readable, but not what it undid: a buffer that was set and then unlocked.
      {kLevelSocket, 72, "SO_BUF_LOCK", kNone, kOrdinaryPath, kUnreadable},
      {kLevelIp, 16, "IP_IPSEC_POLICY", kNone, kOrdinaryPath, kUnreadable},
      {kLevelIp, 17, "IP_XFRM_POLICY", kNone, kOrdinaryPath, kUnreadable},
      {kLevelIp6, 6, "IPV6_2292PKTOPTIONS", kNone, kOrdinaryPath, kUnreadable},
      {kLevelIp6, 24, "IPV6_MTU", kNone, kOrdinaryPath, kUnreadable},
      {kLevelIp6, 32, "IPV6_FLOWLABEL_MGR", kNone, kOrdinaryPath, kUnreadable},
      {kLevelIp6, 34, "IPV6_IPSEC_POLICY", kNone, kOrdinaryPath, kUnreadable},
      {kLevelIp6, 35, "IPV6_XFRM_POLICY", kNone, kOrdinaryPath, kUnreadable},
      {kLevelIp6, 50, "IPV6_PKTINFO", kNone, kOrdinaryPath, kUnreadable},
      {kLevelTcp, 14, "TCP_MD5SIG", kNone, kOrdinaryPath, kUnreadable},
      {kLevelTcp, 32, "TCP_MD5SIG_EXT", kNone, kOrdinaryPath, kUnreadable},
      {kLevelTcp, 33, "TCP_FASTOPEN_KEY", kNone, kOrdinaryPath, kUnreadable},
      {kLevelTcp, 38, "TCP_AO_ADD_KEY", kNone, kOrdinaryPath, kUnreadable},
      {kLevelTcp, 40, "TCP_AO_INFO", kNone, kOrdinaryPath, kUnreadable},
      {kLevelTcp, 42, "TCP_AO_REPAIR", kNone, kOrdinaryPath, kUnreadable},
  });
}();

// True if setsockopt of this option has to be trapped.
constexpr bool IsTrapped(const SocketOption& option) {
  return option.use != OptionUse::kHot;
}

// The table's row for a pair, or nullptr.
constexpr const SocketOption* FindSocketOption(int level, int name) {
  for (const SocketOption& option : kSocketOptions) {
    if (option.level == level && option.name == name) return &option;
  }
  return nullptr;
}

}  // namespace shunt::net
