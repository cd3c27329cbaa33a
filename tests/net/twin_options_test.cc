// SPDX-License-Identifier: Apache-2.0
// Every row of kSocketOptions: what a program sets on its socket is what getsockopt reads on the twin, or the
// socket stays on the ordinary path.
//
// The values come from this file, never from a run. setsockopt and getsockopt are defined here, in front of
// libc's, so that the calls of CarryOptions can be counted.

#include "net/twin_options.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "core/fd.h"

namespace {
int setsockopt_calls = 0;
int getsockopt_calls = 0;
}  // namespace

extern "C" int setsockopt(int fd, int level, int name, const void* value, socklen_t size) noexcept {
  ++setsockopt_calls;
  return static_cast<int>(syscall(SYS_setsockopt, fd, level, name, value, size));
}

extern "C" int getsockopt(int fd, int level, int name, void* value, socklen_t* size) noexcept {
  ++getsockopt_calls;
  return static_cast<int>(syscall(SYS_getsockopt, fd, level, name, value, size));
}

namespace shunt::net {
namespace {

std::string Bytes(std::initializer_list<int64_t> words, size_t word_size) {
  std::string bytes;
  for (const int64_t word : words) bytes.append(reinterpret_cast<const char*>(&word), word_size);
  return bytes;
}
std::string Int(int value) {
  return Bytes({value}, 4);
}

// A value that no fresh socket has, as a program would pass it to setsockopt. Empty: this test knows none,
// which fails.
std::string ValueToSet(std::string_view label) {
  struct Row {
    std::string_view label;
    std::string value;
  };
  static const std::vector<Row> kValues = {
      {"SO_LINGER", Bytes({1, 7}, 4)},
      {"SO_RCVTIMEO", Bytes({3, 250000}, 8)},
      {"SO_SNDTIMEO", Bytes({4, 500000}, 8)},
      {"SO_SNDBUF", Int(30000)},
      {"SO_RCVBUF", Int(40000)},
      {"TCP_QUICKACK", Int(0)},
      {"TCP_KEEPIDLE", Int(123)},
      {"TCP_KEEPINTVL", Int(45)},
      {"TCP_KEEPCNT", Int(3)},
      {"IP_LOCAL_PORT_RANGE", Int(40000 | (41000 << 16))},
      {"SO_RCVLOWAT", Int(5)},
      {"SO_PEEK_OFF", Int(4)},
      {"SO_BUSY_POLL", Int(20)},
      {"SO_MAX_PACING_RATE", Bytes({1000000}, 8)},
      {"SO_INCOMING_CPU", Int(0)},
      {"SO_TXREHASH", Int(0)},
      {"SO_TIMESTAMPING_OLD", Int(1 << 4 | 1 << 3)},
      {"SO_TIMESTAMPING_NEW", Int(1 << 4 | 1 << 3)},
      {"IP_TOS", Int(0x20)},
      {"SO_PRIORITY", Int(5)},
      {"IP_TTL", Int(33)},
      {"IP_MULTICAST_LOOP", Int(0)},
      {"IPV6_MULTICAST_LOOP", Int(0)},
      {"IP_MTU_DISCOVER", Int(0)},
      {"IP_MINTTL", Int(12)},
      {"IPV6_UNICAST_HOPS", Int(34)},
      {"IPV6_MTU_DISCOVER", Int(0)},
      {"IPV6_TCLASS", Int(0x40)},
      {"IPV6_AUTOFLOWLABEL", Int(0)},
      {"IPV6_ADDR_PREFERENCES", Int(0x0002)},
      {"IPV6_MINHOPCOUNT", Int(13)},
      {"TCP_MAXSEG", Int(1000)},
      {"TCP_SYNCNT", Int(4)},
      {"TCP_LINGER2", Int(17)},
      {"TCP_DEFER_ACCEPT", Int(5)},
      {"TCP_WINDOW_CLAMP", Int(65536)},
      {"TCP_CONGESTION", "reno"},
      {"TCP_USER_TIMEOUT", Int(4321)},
      {"TCP_NOTSENT_LOWAT", Int(16384)},
      {"TCP_TX_DELAY", Int(1000)},
      {"TCP_RTO_MAX_MS", Int(5000)},
      {"TCP_RTO_MIN_US", Int(50000)},
      {"TCP_DELACK_MAX_US", Int(20000)},
      {"SO_BINDTODEVICE", "lo"},
      {"IP_UNICAST_IF", Int(static_cast<int>(htonl(1)))},
      {"IPV6_UNICAST_IF", Int(static_cast<int>(htonl(1)))},
      {"SO_RESERVE_MEM", Int(4096)},
      {"SO_BINDTOIFINDEX", Int(1)},
      {"SO_TXTIME", Bytes({CLOCK_MONOTONIC, 1}, 4)},
      {"IP_OPTIONS", std::string("\x01\x01\x01\x00", 4)},
      {"IPV6_HOPOPTS", std::string("\x00\x00\x01\x04\x00\x00\x00\x00", 8)},
      {"IPV6_DSTOPTS", std::string("\x00\x00\x01\x04\x00\x00\x00\x00", 8)},
      {"IPV6_RTHDRDSTOPTS", std::string("\x00\x00\x01\x04\x00\x00\x00\x00", 8)},
      {"IPV6_RTHDR", std::string("\x00\x02\x02\x01\x00\x00\x00\x00", 8) + std::string(16, '\x01')},
      {"TCP_FASTOPEN", Int(16)},
      {"TCP_ULP", "mptcp"},
  };
  for (const Row& row : kValues) {
    if (row.label == label) return row.value;
  }
  return {};
}

class Socket {
 public:
  explicit Socket(int family) : fd_(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
  int get() const { return fd_.get(); }
  bool Set(const SocketOption& option, const std::string& value) const {
    return setsockopt(get(), option.level, option.name, value.data(), static_cast<socklen_t>(value.size())) ==
           0;
  }
  // What a program sees, "-" if it sees an error.
  std::string Get(const SocketOption& option) const {
    char bytes[64];
    socklen_t size = option.kind == OptionKind::kInt ? 4 : sizeof(bytes);
    if (getsockopt(get(), option.level, option.name, bytes, &size) != 0) return "-";
    return {bytes, size};
  }

 private:
  Fd fd_;
};

// Some are seen under another name first: one field with two options, and TCP_REPAIR sets SO_REUSEADDR to a
// value that setsockopt does not take.
std::string_view NameInResult(std::string_view label) {
  if (label == "SO_BINDTOIFINDEX") return "SO_BINDTODEVICE";
  if (label == "IPV6_TRANSPARENT") return "IP_TRANSPARENT";
  if (label == "TCP_REPAIR") return "SO_REUSEADDR";
  return label;
}

// Refusals that say something about this kernel or this user. IPV6_RTHDR is EINVAL without Mobile IPv6.
bool IsRefusal(int error, std::string_view label) {
  return error == EPERM || error == EACCES || error == EOPNOTSUPP || error == ENOPROTOOPT ||
         error == ENOENT || (error == EINVAL && label == "IPV6_RTHDR");
}

bool Exists(const SocketOption& option, int family) {
  const Socket fresh(family);
  return fresh.Get(option) != "-";
}

struct Case {
  size_t row;
  int family;
};

// Every readable row that a program can set with one setsockopt: filters have a test of their own.
std::vector<Case> ReadableRows(bool plain_only = false) {
  std::vector<Case> cases;
  for (size_t row = 0; row < kSocketOptions.size(); ++row) {
    const SocketOption& option = kSocketOptions[row];
    if (option.use == OptionUse::kUnreadable ||
        (option.level == kLevelSocket && option.name == SO_ATTACH_FILTER))
      continue;
    if (plain_only && option.rule != OptionRule::kSame) continue;
    if (kSocketOptions[row].level != kLevelIp6) cases.push_back({row, AF_INET});
    cases.push_back({row, AF_INET6});
  }
  return cases;
}

class TwinOptionsRow : public testing::TestWithParam<Case> {
 protected:
  const SocketOption& option_ = kSocketOptions[GetParam().row];
  const int family_ = GetParam().family;
};

class TwinOptionsPlainRow : public TwinOptionsRow {};

TEST_P(TwinOptionsRow, WhatIsSetIsOnTheTwinOrTheSocketStaysWhereItIs) {
  if (!Exists(option_, family_)) GTEST_SKIP() << "this kernel does not have " << option_.label;
  const auto defaults = TwinDefaults::Learn(family_);
  ASSERT_TRUE(defaults.has_value());
  const Socket container(family_);
  const Socket twin(family_);
  const std::string fresh = container.Get(option_);
  std::string value = ValueToSet(option_.label);
  if (value.empty()) value = Int(1);
  if (!container.Set(option_, value)) {
    const int error = errno;
    ASSERT_TRUE(IsRefusal(error, option_.label))
        << option_.label << ": this test sets a value that the kernel finds wrong: " << strerror(error);
    GTEST_SKIP() << option_.label << " cannot be set here: " << strerror(error);
  }
  ASSERT_NE(container.Get(option_), fresh) << "this test has to set something else than the fresh value";

  const Carried carried =
      CarryOptions(container.get(), twin.get(), *defaults, OptionSet::kAll, CarryPhase::kWhole);
  if (option_.rule == OptionRule::kZeroOrOrdinaryPath) {
    ASSERT_FALSE(carried.complete());
    EXPECT_EQ(carried.obstacle, NameInResult(option_.label));
    EXPECT_EQ(twin.Get(option_), fresh) << "nothing may be written";
    return;
  }
  EXPECT_TRUE(carried.complete()) << carried.obstacle;
  EXPECT_EQ(twin.Get(option_), container.Get(option_));
  for (const SocketOption& other : kSocketOptions) {
    if (other.use == OptionUse::kUnreadable || (other.level == kLevelIp6 && family_ == AF_INET)) continue;
    EXPECT_EQ(twin.Get(other), container.Get(other)) << other.label << " after " << option_.label;
  }
}

TEST_P(TwinOptionsPlainRow, OnlyHotOnesAreReadUnlessTheRareAreAskedFor) {
  if (!Exists(option_, family_)) GTEST_SKIP() << "this kernel does not have " << option_.label;
  const auto defaults = TwinDefaults::Learn(family_);
  ASSERT_TRUE(defaults.has_value());
  const Socket container(family_);
  const Socket twin(family_);
  const std::string fresh = twin.Get(option_);
  std::string value = ValueToSet(option_.label);
  if (value.empty()) value = Int(1);
  if (!container.Set(option_, value))
    GTEST_SKIP() << option_.label << " cannot be set here: " << strerror(errno);
  ASSERT_TRUE(
      CarryOptions(container.get(), twin.get(), *defaults, OptionSet::kHot, CarryPhase::kWhole).complete());
  EXPECT_EQ(twin.Get(option_), option_.use == OptionUse::kHot ? container.Get(option_) : fresh);
}

TEST_P(TwinOptionsPlainRow, AnOptionOfOnePhaseIsLeftAloneInTheOther) {
  if (!Exists(option_, family_)) GTEST_SKIP() << "this kernel does not have " << option_.label;
  const auto defaults = TwinDefaults::Learn(family_);
  ASSERT_TRUE(defaults.has_value());
  const Socket container(family_);
  const Socket twin(family_);
  const std::string fresh = twin.Get(option_);
  std::string value = ValueToSet(option_.label);
  if (value.empty()) value = Int(1);
  if (!container.Set(option_, value))
    GTEST_SKIP() << option_.label << " cannot be set here: " << strerror(errno);
  ASSERT_TRUE(CarryOptions(container.get(), twin.get(), *defaults, OptionSet::kAll, CarryPhase::kBeforeBind)
                  .complete());
  EXPECT_EQ(twin.Get(option_), option_.before_bind ? container.Get(option_) : fresh);
  ASSERT_TRUE(CarryOptions(container.get(), twin.get(), *defaults, OptionSet::kAll, CarryPhase::kAfterBind)
                  .complete());
  EXPECT_EQ(twin.Get(option_), container.Get(option_));
}

std::string RowName(const testing::TestParamInfo<Case>& test) {
  return std::string(kSocketOptions[test.param.row].label) + (test.param.family == AF_INET ? "_v4" : "_v6");
}
INSTANTIATE_TEST_SUITE_P(, TwinOptionsRow, testing::ValuesIn(ReadableRows()), RowName);
INSTANTIATE_TEST_SUITE_P(, TwinOptionsPlainRow, testing::ValuesIn(ReadableRows(/*plain_only=*/true)),
                         RowName);

class TwinOptions : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    const auto learnt = TwinDefaults::Learn(GetParam());
    ASSERT_TRUE(learnt.has_value());
    defaults_ = *learnt;
  }
  Carried Carry(OptionSet set = OptionSet::kHot) const {
    return CarryOptions(container_.get(), twin_.get(), defaults_, set, CarryPhase::kWhole);
  }
  template <typename T>
  void SetOnContainer(int level, int name, const T& value) const {
    ASSERT_EQ(setsockopt(container_.get(), level, name, &value, sizeof(value)), 0) << strerror(errno);
  }
  int Get(const Socket& from, int level, int name) const {
    int value = 0;
    socklen_t size = sizeof(value);
    EXPECT_EQ(getsockopt(from.get(), level, name, &value, &size), 0);
    return value;
  }

  const Socket container_{GetParam()};
  const Socket twin_{GetParam()};
  TwinDefaults defaults_;
};

INSTANTIATE_TEST_SUITE_P(, TwinOptions, testing::Values(AF_INET, AF_INET6),
                         [](const auto& test) { return test.param == AF_INET ? "v4" : "v6"; });

TEST_P(TwinOptions, NothingIsWrittenForASocketThatNobodyTouched) {
  setsockopt_calls = 0;
  EXPECT_TRUE(Carry(OptionSet::kAll).complete());
  EXPECT_EQ(setsockopt_calls, 0);
}

TEST_P(TwinOptions, TheCommonCaseCostsTwelveReadsAndOneMoreForIpv6) {
  getsockopt_calls = 0;
  EXPECT_TRUE(Carry().complete());
  EXPECT_EQ(getsockopt_calls, GetParam() == AF_INET ? 12 : 13);
}

TEST_P(TwinOptions, OneDifferenceCostsOneWriteAndOneReadBack) {
  SetOnContainer(IPPROTO_TCP, 1 /*TCP_NODELAY*/, 1);
  setsockopt_calls = getsockopt_calls = 0;
  EXPECT_TRUE(Carry().complete());
  EXPECT_EQ(setsockopt_calls, 1);
  EXPECT_EQ(getsockopt_calls, (GetParam() == AF_INET ? 12 : 13) + 1);
}

TEST_P(TwinOptions, ABufferSetToTheVeryDefaultStopsAutotuningOfTheTwinToo) {
  const int half = Get(twin_, SOL_SOCKET, SO_SNDBUF) / 2;
  SetOnContainer(SOL_SOCKET, SO_SNDBUF, half);
  ASSERT_EQ(Get(twin_, SOL_SOCKET, kSoBufLock), 0);
  EXPECT_TRUE(Carry().complete());
  EXPECT_EQ(Get(twin_, SOL_SOCKET, kSoBufLock), kSndbufLocked);
  EXPECT_EQ(Get(twin_, SOL_SOCKET, SO_SNDBUF), Get(container_, SOL_SOCKET, SO_SNDBUF));
}

TEST_P(TwinOptions, AnUntouchedBufferKeepsAutotuning) {
  SetOnContainer(SOL_SOCKET, SO_RCVBUF, 20000);
  EXPECT_TRUE(Carry().complete());
  EXPECT_EQ(Get(twin_, SOL_SOCKET, kSoBufLock), kRcvbufLocked);
}

TEST_P(TwinOptions, ABufferBeyondTheLimitThatWasForcedIsNotForcedAgain) {
  const int beyond = 64 << 20;
  if (setsockopt(container_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &beyond, sizeof(beyond)) != 0) {
    GTEST_SKIP() << "SO_RCVBUFFORCE takes CAP_NET_ADMIN";
  }
  EXPECT_STREQ(Carry().obstacle, "SO_RCVBUF");
  EXPECT_LT(Get(twin_, SOL_SOCKET, SO_RCVBUF), Get(container_, SOL_SOCKET, SO_RCVBUF));
}

TEST_P(TwinOptions, APriorityThatTakesAPrivilegeIsNotGranted) {
  const int privileged = 7;
  if (setsockopt(container_.get(), SOL_SOCKET, SO_PRIORITY, &privileged, sizeof(privileged)) != 0) {
    GTEST_SKIP() << "priority 7 takes CAP_NET_ADMIN";
  }
  EXPECT_STREQ(Carry(OptionSet::kAll).obstacle, "SO_PRIORITY");
  EXPECT_EQ(Get(twin_, SOL_SOCKET, SO_PRIORITY), 0);
}

TEST_P(TwinOptions, APrioritySetBackAfterTosIsSetBackOnTheTwin) {
  SetOnContainer(IPPROTO_IP, IP_TOS, 0x10);
  SetOnContainer(SOL_SOCKET, SO_PRIORITY, 0);
  EXPECT_TRUE(Carry(OptionSet::kAll).complete());
  EXPECT_EQ(Get(twin_, IPPROTO_IP, IP_TOS), 0x10);
  EXPECT_EQ(Get(twin_, SOL_SOCKET, SO_PRIORITY), 0);
}

TEST_P(TwinOptions, AMarkIsNeverCopied) {
  const int mark = 77;
  if (setsockopt(container_.get(), SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) != 0) {
    GTEST_SKIP() << "SO_MARK takes CAP_NET_ADMIN";
  }
  EXPECT_STREQ(Carry(OptionSet::kAll).obstacle, "SO_MARK");
  EXPECT_EQ(Get(twin_, SOL_SOCKET, SO_MARK), 0);
}

TEST_P(TwinOptions, BothTimestampsOfOneKindSurvive) {
  SetOnContainer(SOL_SOCKET, 64 /*SO_TIMESTAMPNS_NEW*/, 1);
  EXPECT_TRUE(Carry(OptionSet::kAll).complete());
  EXPECT_EQ(Get(twin_, SOL_SOCKET, 64), 1);
  EXPECT_EQ(Get(twin_, SOL_SOCKET, 35 /*SO_TIMESTAMPNS_OLD*/), 0);
}

TEST_P(TwinOptions, AnOwnerForSignalsMeansTheOrdinaryPathAndIsNotReplayed) {
  ASSERT_EQ(fcntl(container_.get(), F_SETOWN, getpid()), 0);
  EXPECT_STREQ(Carry().obstacle, "F_SETOWN");
  EXPECT_EQ(fcntl(twin_.get(), F_GETOWN), 0);
}

TEST_P(TwinOptions, AProcessGroupAsOwnerMeansTheOrdinaryPath) {
  const pid_t member = fork();
  ASSERT_GE(member, 0);
  if (member == 0) {
    for (;;) pause();
  }
  ASSERT_EQ(setpgid(member, member), 0);
  ASSERT_EQ(fcntl(container_.get(), F_SETOWN, -member), 0);
  EXPECT_STREQ(Carry().obstacle, "F_SETOWN");
  kill(member, SIGKILL);
  waitpid(member, nullptr, 0);
}

TEST_P(TwinOptions, ASignalNumberWithoutAnOwnerMeansTheOrdinaryPath) {
  ASSERT_EQ(fcntl(container_.get(), F_SETSIG, SIGRTMIN), 0);
  EXPECT_STREQ(Carry().obstacle, "F_SETSIG");
}

TEST_P(TwinOptions, AFilterMeansTheOrdinaryPath) {
  sock_filter accept_all[] = {BPF_STMT(BPF_RET | BPF_K, 0xffffffff)};
  const sock_fprog program = {1, accept_all};
  if (setsockopt(container_.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) != 0) {
    GTEST_SKIP() << "a filter on a TCP socket takes CAP_NET_ADMIN here";
  }
  EXPECT_STREQ(Carry(OptionSet::kAll).obstacle, "SO_ATTACH_FILTER");
}

TEST_P(TwinOptions, ATwinThatIsConfinedAlreadyTakesOptions) {
  ASSERT_EQ(setsockopt(twin_.get(), SOL_SOCKET, SO_BINDTODEVICE, "lo", 2), 0) << strerror(errno);
  SetOnContainer(IPPROTO_TCP, 1 /*TCP_NODELAY*/, 1);
  SetOnContainer(IPPROTO_IP, IP_TTL, 9);
  EXPECT_TRUE(Carry(OptionSet::kAll).complete());
  EXPECT_EQ(Get(twin_, IPPROTO_IP, IP_TTL), 9);
}

TEST_P(TwinOptions, OnlyAllowedCongestionControlsMayBeChosen) {
  EXPECT_TRUE(defaults_.MayChooseCongestionControl("reno"));
  EXPECT_FALSE(defaults_.MayChooseCongestionControl("ren"));
  EXPECT_FALSE(defaults_.MayChooseCongestionControl("reno "));
  EXPECT_FALSE(defaults_.MayChooseCongestionControl(""));
  EXPECT_FALSE(TwinDefaults().MayChooseCongestionControl("reno"));
}

TEST(TwinDefaults, AFamilyThatIsNotIpIsAnError) {
  const auto learnt = TwinDefaults::Learn(AF_UNIX);
  ASSERT_FALSE(learnt.has_value());
}

}  // namespace
}  // namespace shunt::net
