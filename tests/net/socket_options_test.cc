// SPDX-License-Identifier: Apache-2.0

#include "net/socket_options.h"

// Before anything that includes <netinet/in.h>, which then leaves out what these have defined.
#include <asm/socket.h>
#include <gtest/gtest.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/tcp.h>

#include <algorithm>
#include <set>
#include <string>

namespace shunt::net {
namespace {

const SocketOption* Row(const std::string& label) {
  const auto row = std::find_if(kSocketOptions.begin(), kSocketOptions.end(),
                                [&](const SocketOption& option) { return label == option.label; });
  return row == kSocketOptions.end() ? nullptr : &*row;
}

TEST(SocketOptions, HaveTheNumbersOfTheKernelsHeaders) {
  struct Known {
    const char* label;
    int level;
    int name;
  };
#define SHUNT_KNOWN(level, name) \
  { #name, level, name }
  const Known known[] = {SHUNT_KNOWN(1, SO_DEBUG),
                         SHUNT_KNOWN(1, SO_REUSEADDR),
                         SHUNT_KNOWN(1, SO_BROADCAST),
                         SHUNT_KNOWN(1, SO_NO_CHECK),
                         SHUNT_KNOWN(1, SO_RXQ_OVFL),
                         SHUNT_KNOWN(1, SO_WIFI_STATUS),
                         SHUNT_KNOWN(1, SO_NOFCS),
                         SHUNT_KNOWN(0, IP_MULTICAST_LOOP),
                         SHUNT_KNOWN(41, IPV6_MULTICAST_LOOP),
                         SHUNT_KNOWN(1, SO_DONTROUTE),
                         SHUNT_KNOWN(1, SO_SNDBUF),
                         SHUNT_KNOWN(1, SO_RCVBUF),
                         SHUNT_KNOWN(1, SO_KEEPALIVE),
                         SHUNT_KNOWN(1, SO_OOBINLINE),
                         SHUNT_KNOWN(1, SO_PRIORITY),
                         SHUNT_KNOWN(1, SO_LINGER),
                         SHUNT_KNOWN(1, SO_REUSEPORT),
                         SHUNT_KNOWN(1, SO_RCVLOWAT),
                         SHUNT_KNOWN(1, SO_RCVTIMEO),
                         SHUNT_KNOWN(1, SO_SNDTIMEO),
                         SHUNT_KNOWN(1, SO_BINDTODEVICE),
                         SHUNT_KNOWN(1, SO_ATTACH_FILTER),
                         SHUNT_KNOWN(1, SO_TIMESTAMP_OLD),
                         SHUNT_KNOWN(1, SO_TIMESTAMPNS_OLD),
                         SHUNT_KNOWN(1, SO_MARK),
                         SHUNT_KNOWN(1, SO_TIMESTAMPING_OLD),
                         SHUNT_KNOWN(1, SO_PEEK_OFF),
                         SHUNT_KNOWN(1, SO_LOCK_FILTER),
                         SHUNT_KNOWN(1, SO_SELECT_ERR_QUEUE),
                         SHUNT_KNOWN(1, SO_BUSY_POLL),
                         SHUNT_KNOWN(1, SO_MAX_PACING_RATE),
                         SHUNT_KNOWN(1, SO_INCOMING_CPU),
                         SHUNT_KNOWN(1, SO_ATTACH_BPF),
                         SHUNT_KNOWN(1, SO_ATTACH_REUSEPORT_CBPF),
                         SHUNT_KNOWN(1, SO_ATTACH_REUSEPORT_EBPF),
                         SHUNT_KNOWN(1, SO_ZEROCOPY),
                         SHUNT_KNOWN(1, SO_TXTIME),
                         SHUNT_KNOWN(1, SO_BINDTOIFINDEX),
                         SHUNT_KNOWN(1, SO_TIMESTAMP_NEW),
                         SHUNT_KNOWN(1, SO_TIMESTAMPNS_NEW),
                         SHUNT_KNOWN(1, SO_TIMESTAMPING_NEW),
                         SHUNT_KNOWN(1, SO_PREFER_BUSY_POLL),
                         SHUNT_KNOWN(1, SO_BUSY_POLL_BUDGET),
                         SHUNT_KNOWN(1, SO_BUF_LOCK),
                         SHUNT_KNOWN(1, SO_RESERVE_MEM),
                         SHUNT_KNOWN(1, SO_TXREHASH),
                         SHUNT_KNOWN(0, IP_TOS),
                         SHUNT_KNOWN(0, IP_TTL),
                         SHUNT_KNOWN(0, IP_OPTIONS),
                         SHUNT_KNOWN(0, IP_RECVOPTS),
                         SHUNT_KNOWN(0, IP_RETOPTS),
                         SHUNT_KNOWN(0, IP_PKTINFO),
                         SHUNT_KNOWN(0, IP_MTU_DISCOVER),
                         SHUNT_KNOWN(0, IP_RECVERR),
                         SHUNT_KNOWN(0, IP_RECVTTL),
                         SHUNT_KNOWN(0, IP_RECVTOS),
                         SHUNT_KNOWN(0, IP_FREEBIND),
                         SHUNT_KNOWN(0, IP_IPSEC_POLICY),
                         SHUNT_KNOWN(0, IP_XFRM_POLICY),
                         SHUNT_KNOWN(0, IP_TRANSPARENT),
                         SHUNT_KNOWN(0, IP_RECVORIGDSTADDR),
                         SHUNT_KNOWN(0, IP_MINTTL),
                         SHUNT_KNOWN(0, IP_BIND_ADDRESS_NO_PORT),
                         SHUNT_KNOWN(0, IP_UNICAST_IF),
                         SHUNT_KNOWN(41, IPV6_2292PKTINFO),
                         SHUNT_KNOWN(41, IPV6_2292HOPOPTS),
                         SHUNT_KNOWN(41, IPV6_2292DSTOPTS),
                         SHUNT_KNOWN(41, IPV6_2292RTHDR),
                         SHUNT_KNOWN(41, IPV6_2292PKTOPTIONS),
                         SHUNT_KNOWN(41, IPV6_2292HOPLIMIT),
                         SHUNT_KNOWN(41, IPV6_FLOWINFO),
                         SHUNT_KNOWN(41, IPV6_UNICAST_HOPS),
                         SHUNT_KNOWN(41, IPV6_MTU_DISCOVER),
                         SHUNT_KNOWN(41, IPV6_MTU),
                         SHUNT_KNOWN(41, IPV6_RECVERR),
                         SHUNT_KNOWN(41, IPV6_V6ONLY),
                         SHUNT_KNOWN(41, IPV6_FLOWLABEL_MGR),
                         SHUNT_KNOWN(41, IPV6_FLOWINFO_SEND),
                         SHUNT_KNOWN(41, IPV6_IPSEC_POLICY),
                         SHUNT_KNOWN(41, IPV6_XFRM_POLICY),
                         SHUNT_KNOWN(41, IPV6_RECVPKTINFO),
                         SHUNT_KNOWN(41, IPV6_PKTINFO),
                         SHUNT_KNOWN(41, IPV6_RECVHOPLIMIT),
                         SHUNT_KNOWN(41, IPV6_RECVHOPOPTS),
                         SHUNT_KNOWN(41, IPV6_HOPOPTS),
                         SHUNT_KNOWN(41, IPV6_RTHDRDSTOPTS),
                         SHUNT_KNOWN(41, IPV6_RECVRTHDR),
                         SHUNT_KNOWN(41, IPV6_RTHDR),
                         SHUNT_KNOWN(41, IPV6_RECVDSTOPTS),
                         SHUNT_KNOWN(41, IPV6_DSTOPTS),
                         SHUNT_KNOWN(41, IPV6_RECVPATHMTU),
                         SHUNT_KNOWN(41, IPV6_DONTFRAG),
                         SHUNT_KNOWN(41, IPV6_RECVTCLASS),
                         SHUNT_KNOWN(41, IPV6_TCLASS),
                         SHUNT_KNOWN(41, IPV6_AUTOFLOWLABEL),
                         SHUNT_KNOWN(41, IPV6_ADDR_PREFERENCES),
                         SHUNT_KNOWN(41, IPV6_MINHOPCOUNT),
                         SHUNT_KNOWN(41, IPV6_RECVORIGDSTADDR),
                         SHUNT_KNOWN(41, IPV6_TRANSPARENT),
                         SHUNT_KNOWN(41, IPV6_UNICAST_IF),
                         SHUNT_KNOWN(41, IPV6_FREEBIND),
                         SHUNT_KNOWN(6, TCP_NODELAY),
                         SHUNT_KNOWN(6, TCP_MAXSEG),
                         SHUNT_KNOWN(6, TCP_CORK),
                         SHUNT_KNOWN(6, TCP_KEEPIDLE),
                         SHUNT_KNOWN(6, TCP_KEEPINTVL),
                         SHUNT_KNOWN(6, TCP_KEEPCNT),
                         SHUNT_KNOWN(6, TCP_SYNCNT),
                         SHUNT_KNOWN(6, TCP_LINGER2),
                         SHUNT_KNOWN(6, TCP_DEFER_ACCEPT),
                         SHUNT_KNOWN(6, TCP_WINDOW_CLAMP),
                         SHUNT_KNOWN(6, TCP_QUICKACK),
                         SHUNT_KNOWN(6, TCP_CONGESTION),
                         SHUNT_KNOWN(6, TCP_MD5SIG),
                         SHUNT_KNOWN(6, TCP_THIN_LINEAR_TIMEOUTS),
                         SHUNT_KNOWN(6, TCP_USER_TIMEOUT),
                         SHUNT_KNOWN(6, TCP_REPAIR),
                         SHUNT_KNOWN(6, TCP_FASTOPEN),
                         SHUNT_KNOWN(6, TCP_NOTSENT_LOWAT),
                         SHUNT_KNOWN(6, TCP_SAVE_SYN),
                         SHUNT_KNOWN(6, TCP_FASTOPEN_CONNECT),
                         SHUNT_KNOWN(6, TCP_ULP),
                         SHUNT_KNOWN(6, TCP_MD5SIG_EXT),
                         SHUNT_KNOWN(6, TCP_FASTOPEN_KEY),
                         SHUNT_KNOWN(6, TCP_FASTOPEN_NO_COOKIE),
                         SHUNT_KNOWN(6, TCP_INQ),
                         SHUNT_KNOWN(6, TCP_TX_DELAY)};
#undef SHUNT_KNOWN
  for (const Known& one : known) {
    const SocketOption* row = Row(one.label);
    ASSERT_NE(row, nullptr) << one.label;
    EXPECT_EQ(row->level, one.level) << one.label;
    EXPECT_EQ(row->name, one.name) << one.label;
  }
  // Newer than Debian 12's headers: IP_LOCAL_PORT_RANGE, TCP_AO_*, TCP_RTO_*, TCP_DELACK_MAX_US.
  EXPECT_LE(kSocketOptions.size() - std::size(known), 7u) << "a row that no header confirms";
}

TEST(SocketOptions, AreEachSaidOnce) {
  std::set<std::pair<int, int>> pairs;
  for (const SocketOption& option : kSocketOptions) {
    EXPECT_TRUE(pairs.emplace(option.level, option.name).second) << option.label;
  }
}

TEST(SocketOptions, StandInTheOrderOfWriting) {
  EXPECT_LT(Row("IP_TOS"), Row("SO_PRIORITY")) << "setting IP_TOS changes the priority";
  for (const OptionUse use : {OptionUse::kHot, OptionUse::kRare}) {
    bool after_bind_seen = false;
    for (const SocketOption& option : kSocketOptions) {
      if (option.use != use) continue;
      EXPECT_FALSE(option.before_bind && after_bind_seen) << option.label;
      after_bind_seen |= !option.before_bind;
    }
  }
}

TEST(SocketOptions, AreReadUnlessTheyAreUnreadable) {
  for (const SocketOption& option : kSocketOptions) {
    const bool unreadable = option.use == OptionUse::kUnreadable;
    EXPECT_EQ(option.kind == OptionKind::kNone, unreadable) << option.label;
    EXPECT_EQ(option.rule == OptionRule::kOrdinaryPath, unreadable) << option.label;
  }
}

}  // namespace
}  // namespace shunt::net
