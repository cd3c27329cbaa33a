// SPDX-License-Identifier: Apache-2.0
// ConnectChecks against real sockets of this machine. Time is virtual.

#include "net/balancer/connect_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/check.h"

namespace shunt::net {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr int64_t kSecond = 1'000'000'000;

SockAddr Address(const std::string& text) {
  return *SockAddr::FromText(text);
}

// A listener of one address of this machine.
class Listener {
 public:
  explicit Listener(const std::string& ip, int backlog = 4096)
      : socket_(socket(Address(ip + ":0").family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
    const SockAddr any_port = Address(ip + ":0");
    SHUNT_CHECK(bind(socket_.get(), any_port.data(), any_port.size()) == 0);
    SHUNT_CHECK(listen(socket_.get(), backlog) == 0);
    sockaddr_storage own{};
    socklen_t size = sizeof(own);
    SHUNT_CHECK(getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&own), &size) == 0);
    address_ = *SockAddr::Parse(std::as_bytes(std::span(&own, 1)).first(size));
  }

  const SockAddr& address() const { return address_; }
  uint16_t port() const { return address_.port(); }
  Fd Accept() { return Fd(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC)); }

 private:
  Fd socket_;
  SockAddr address_;
};

// One that takes a connection, and does not answer others: its queue is full.
class SilentListener : public Listener {
 public:
  SilentListener() : Listener("127.0.0.1", 0) {
    first_ = Fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SHUNT_CHECK(connect(first_.get(), address().data(), address().size()) == 0);
  }

 private:
  Fd first_;
};

// A port on which nobody listens.
SockAddr DeafAddress() {
  return Listener("127.0.0.1").address();
}

// The states (as the kernel numbers them) of all IPv4 sockets that have to do with a port.
std::vector<std::string> StatesOf(uint16_t port) {
  std::vector<std::string> states;
  std::ifstream table("/proc/net/tcp");
  std::string line, number, local, remote, state;
  std::getline(table, line);
  while (table >> number >> local >> remote >> state && std::getline(table, line)) {
    const std::string end = absl::StrFormat(":%04X", port);
    if (absl::EndsWith(local, end) || absl::EndsWith(remote, end)) states.push_back(state);
  }
  return states;
}

class ConnectChecksTest : public testing::Test {
 protected:
  void Make(ConnectChecks::MakeSocket make = {}) {
    checks_ = *ConnectChecks::Create(
        [this](uint32_t slot, uint64_t check, bool up, std::string_view error, int64_t now) {
          EXPECT_EQ(now, now_);
          EXPECT_EQ(up, error.empty());
          told_.push_back(absl::StrCat(slot, "/", check, up ? " up" : " down: ", std::string(error)));
        },
        std::move(make));
  }
  void Begin(uint32_t slot, const SockAddr& address, int64_t timeout_ns = kSecond, uint64_t check = 1) {
    checks_->Begin({.slot = slot, .check = check, .address = address, .timeout_ns = timeout_ns}, now_);
  }
  std::vector<std::string> Advance() {
    checks_->Advance(now_);
    return std::exchange(told_, {});
  }
  // Until so many have been told; no time goes by.
  std::vector<std::string> Await(size_t count) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (told_.size() < count && std::chrono::steady_clock::now() < end) {
      pollfd event{.fd = checks_->event_fd(), .events = POLLIN, .revents = 0};
      poll(&event, 1, checks_->NextDue() <= now_ ? 0 : 1000);
      checks_->Advance(now_);
    }
    return std::exchange(told_, {});
  }

  static auto OpenFiles() {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                         std::filesystem::directory_iterator());
  }

  std::unique_ptr<ConnectChecks> checks_;
  std::vector<std::string> told_;
  int64_t now_ = 1'000'000'000'000;
};

TEST_F(ConnectChecksTest, WhoTakesConnectionsIsUp) {
  Make();
  Listener listener("127.0.0.1");
  Begin(7, listener.address(), kSecond, 42);
  EXPECT_THAT(told_, IsEmpty()) << "nothing is told before Advance()";
  EXPECT_EQ(checks_->NextDue(), now_);
  EXPECT_THAT(Await(1), ElementsAre("7/42 up"));
  EXPECT_EQ(checks_->NextDue(), ConnectChecks::kNever);
  EXPECT_EQ(checks_->under_way(), 0u);
}

TEST_F(ConnectChecksTest, IPv6IsCheckedAsWell) {
  if (const Fd probe(socket(AF_INET6, SOCK_STREAM, 0)); !probe.valid()) GTEST_SKIP() << "no IPv6 here";
  Make();
  Listener listener("[::1]");
  Begin(0, listener.address());
  EXPECT_THAT(Await(1), ElementsAre("0/1 up"));
}

TEST_F(ConnectChecksTest, TheConnectionIsResetAndNobodyKeepsIt) {
  Make();
  Listener listener("127.0.0.1");
  Begin(0, listener.address());
  EXPECT_THAT(Await(1), SizeIs(1));
  {
    const Fd accepted = listener.Accept();
    ASSERT_TRUE(accepted.valid());
    char byte;
    EXPECT_EQ(recv(accepted.get(), &byte, 1, 0), -1);
    EXPECT_EQ(errno, ECONNRESET);
  }
  EXPECT_THAT(StatesOf(listener.port()), ElementsAre("0A")) << "the listener, and no TIME-WAIT (06)";
}

TEST_F(ConnectChecksTest, WhoRefusesIsDownAtOnce) {
  Make();
  Begin(3, DeafAddress());
  EXPECT_THAT(Await(1), ElementsAre("3/1 down: Connection refused"));
}

TEST_F(ConnectChecksTest, WhoDoesNotAnswerIsDownWhenTheTimeIsOver) {
  Make();
  const SilentListener silent;
  Begin(3, silent.address(), 1'500'000'000);
  EXPECT_THAT(Advance(), IsEmpty());
  EXPECT_EQ(checks_->NextDue(), now_ + 1'500'000'000);
  now_ += 1'499'999'999;
  EXPECT_THAT(Advance(), IsEmpty());
  now_ += 1;
  EXPECT_THAT(Advance(), ElementsAre("3/1 down: no connection within 1500 ms"));
  EXPECT_EQ(checks_->NextDue(), ConnectChecks::kNever);
  // Nobody goes on trying.
  EXPECT_THAT(StatesOf(silent.port()), Each(testing::Ne("02"))) << "SYN-SENT";
}

TEST_F(ConnectChecksTest, AConnectionThatIsThereCountsEvenIfWeLookTooLate) {
  Make();
  Listener listener("127.0.0.1");
  Begin(0, listener.address(), kSecond);
  EXPECT_THAT(Advance(), IsEmpty());
  pollfd event{.fd = checks_->event_fd(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(poll(&event, 1, 10'000), 1);
  now_ += 5 * kSecond;
  EXPECT_THAT(Advance(), ElementsAre("0/1 up"));
}

TEST_F(ConnectChecksTest, SoManyAtATimeAndTheOthersAreTimedFromTheirStart) {
  Make();
  const SilentListener silent;
  Listener listener("127.0.0.1");
  const uint32_t most = limits::kConnectChecks;
  for (uint32_t slot = 0; slot < most; ++slot) Begin(slot, silent.address());
  for (uint32_t slot = most; slot < most + 50; ++slot) Begin(slot, silent.address());
  Begin(1000, listener.address());
  EXPECT_THAT(Advance(), IsEmpty());
  EXPECT_EQ(checks_->under_way(), most);
  EXPECT_EQ(checks_->waiting(), 51u);
  EXPECT_EQ(checks_->NextDue(), now_ + kSecond);
  now_ += kSecond;
  EXPECT_THAT(Advance(), SizeIs(most));
  EXPECT_EQ(checks_->under_way(), 51u);
  EXPECT_EQ(checks_->NextDue(), now_ + kSecond);
  EXPECT_THAT(Await(1), ElementsAre("1000/1 up"));
  now_ += kSecond - 1;
  EXPECT_THAT(Advance(), IsEmpty());
  now_ += 1;
  EXPECT_THAT(Advance(), SizeIs(50));
}

TEST_F(ConnectChecksTest, ThousandsAreChecked) {
  Make();
  Listener listener("0.0.0.0");
  constexpr uint32_t kBackends = 2000;
  for (uint32_t slot = 0; slot < kBackends; ++slot) {
    Begin(slot, Address(absl::StrCat("127.0.", 1 + slot / 250, ".", 1 + slot % 250, ":", listener.port())));
  }
  std::vector<std::string> told;
  while (told.size() < kBackends) {
    const std::vector<std::string> some = Await(1);
    ASSERT_FALSE(some.empty());
    told.insert(told.end(), some.begin(), some.end());
    while (listener.Accept().valid()) continue;
  }
  EXPECT_THAT(told, Each(HasSubstr(" up")));
}

TEST_F(ConnectChecksTest, AWaitingCheckIsReplacedByTheNextOneOfItsBackend) {
  Make();
  const SilentListener silent;
  Listener listener("127.0.0.1");
  for (uint32_t slot = 0; slot < limits::kConnectChecks; ++slot) Begin(slot, silent.address());
  Begin(1000, silent.address(), kSecond, 1);
  Begin(1000, listener.address(), kSecond, 2);
  EXPECT_EQ(checks_->waiting() + checks_->under_way(), limits::kConnectChecks + 1);
  EXPECT_THAT(Advance(), IsEmpty());
  now_ += kSecond;
  EXPECT_THAT(Advance(), SizeIs(limits::kConnectChecks));
  EXPECT_THAT(Await(1), ElementsAre("1000/2 up"));
}

TEST_F(ConnectChecksTest, ThoseThatFailAtOnceKeepNobodyBusyForLong) {
  Make([](ServiceNetwork, int) { return Fail(ENETDOWN); });
  const uint32_t count = limits::kConnectChecks * 3;
  for (uint32_t slot = 0; slot < count; ++slot) Begin(slot, DeafAddress());
  EXPECT_THAT(Advance(), SizeIs(limits::kConnectChecks));
  EXPECT_EQ(checks_->NextDue(), now_) << "the rest";
  EXPECT_THAT(Await(count - limits::kConnectChecks), Each(HasSubstr("down: Network is down")));
}

TEST_F(ConnectChecksTest, SocketsAreMadeInTheNetworkOfTheService) {
  std::vector<std::pair<ServiceNetwork, int>> asked;
  Make([&](ServiceNetwork network, int family) -> Result<Fd> {
    asked.emplace_back(network, family);
    return Fd(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  });
  Listener listener("127.0.0.1");
  checks_->Begin({.slot = 1,
                  .check = 1,
                  .address = listener.address(),
                  .network = ServiceNetwork::kContainer,
                  .timeout_ns = kSecond},
                 now_);
  EXPECT_THAT(Await(1), ElementsAre("1/1 up"));
  EXPECT_THAT(asked, ElementsAre(std::pair(ServiceNetwork::kContainer, AF_INET)));
}

TEST_F(ConnectChecksTest, WantOfDescriptorsSaysNothingAboutABackend) {
  Make();
  Listener listener("127.0.0.1");
  const SockAddr deaf = DeafAddress();
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  {
    const Fd next(dup(STDIN_FILENO));
    const rlimit none{static_cast<rlim_t>(next.get()), before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
  }
  Begin(0, listener.address());
  Begin(1, deaf);
  EXPECT_THAT(Advance(), IsEmpty());
  EXPECT_EQ(checks_->under_way() + checks_->waiting(), 0u);
  EXPECT_EQ(checks_->NextDue(), ConnectChecks::kNever);
  setrlimit(RLIMIT_NOFILE, &before);
  Begin(0, listener.address(), kSecond, 2);
  Begin(1, deaf, kSecond, 2);
  EXPECT_THAT(Await(2), testing::UnorderedElementsAre("0/2 up", "1/2 down: Connection refused"));
}

TEST_F(ConnectChecksTest, AConnectionToItselfIsNone) {
  const SockAddr address = DeafAddress();
  // Any port that is free can be given to the socket that connects; here it is the very one.
  Make([&](ServiceNetwork, int family) -> Result<Fd> {
    Fd made(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    EXPECT_EQ(bind(made.get(), address.data(), address.size()), 0);
    return made;
  });
  Begin(5, address);
  EXPECT_THAT(Await(1), ElementsAre(HasSubstr("5/1 down: nobody listens there")));
}

TEST_F(ConnectChecksTest, WhatHasBeenToldMayBeginTheNextCheck) {
  Listener listener("127.0.0.1");
  int told = 0;
  checks_ = *ConnectChecks::Create([&](uint32_t slot, uint64_t check, bool, std::string_view, int64_t) {
    told_.push_back(absl::StrCat(check));
    if (++told < 5) Begin(slot, listener.address(), kSecond, check + 1);
  });
  Begin(0, listener.address());
  EXPECT_THAT(Await(5), ElementsAre("1", "2", "3", "4", "5"));
}

TEST_F(ConnectChecksTest, NothingIsLeftWhenItEndsInTheMiddle) {
  const SilentListener silent;
  const auto before = OpenFiles();
  Make();
  for (uint32_t slot = 0; slot < limits::kConnectChecks + 10; ++slot) Begin(slot, silent.address());
  Advance();
  EXPECT_EQ(OpenFiles(), before + 1 + static_cast<long>(limits::kConnectChecks));
  checks_.reset();
  EXPECT_EQ(OpenFiles(), before);
  EXPECT_THAT(told_, IsEmpty());
}

TEST_F(ConnectChecksTest, AProcessThatWasForkedMeanwhileMisleadsNobody) {
  Make();
  Listener listener("127.0.0.1");
  Begin(0, listener.address());
  Advance();
  // It holds the socket of the first check until it is told to end.
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(ends[1]);
    char byte;
    _exit(static_cast<int>(read(ends[0], &byte, 1)));
  }
  EXPECT_THAT(Await(1), ElementsAre("0/1 up"));
  const SilentListener silent;
  Begin(1, silent.address());
  EXPECT_THAT(Advance(), IsEmpty());
  EXPECT_THAT(Advance(), IsEmpty()) << "the event was the old socket's";
  pollfd event{.fd = checks_->event_fd(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&event, 1, 0), 0);
  close(ends[0]);
  close(ends[1]);
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
}

}  // namespace
}  // namespace shunt::net
