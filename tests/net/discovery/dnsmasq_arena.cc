// SPDX-License-Identifier: Apache-2.0
// DnsSource and dnsmasq, as an administrator would have them: on port 53, found by a resolv.conf, killed and
// restarted. In an arena (tests/support/arena), as root. Time is virtual: whatever is due is done at once.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <memory>

#include "net/discovery/dns_source.h"
#include "tests/net/discovery/temporary_folder.h"
#include "tests/net/discovery/told.h"

namespace shunt::net {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing_support::Replace;
using testing_support::TemporaryFolder;

constexpr char kDnsmasq[] = "/usr/sbin/dnsmasq";

class DnsmasqTest : public testing::Test {
 protected:
  void SetUp() override {
    if (access(kDnsmasq, X_OK) != 0) GTEST_SKIP() << kDnsmasq << " is missing: apt install dnsmasq-base";
    Replace(folder_ / "resolv.conf", "nameserver 127.0.0.1\nsearch svc.example\n");
  }
  void TearDown() override { Stop(); }

  // With these lines besides what it takes to stay in here.
  void Start(const std::string& records) {
    Replace(folder_ / "dnsmasq.conf",
            "keep-in-foreground\nno-resolv\nno-hosts\nno-poll\nuser=root\ngroup=root\npid-file=\n"
            "bind-interfaces\nlisten-address=127.0.0.1\nlocal=/example/\nlocal-ttl=20\n" +
                records);
    const std::string option = "--conf-file=" + folder_ / "dnsmasq.conf";
    server_ = fork();
    if (server_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      execl(kDnsmasq, kDnsmasq, option.c_str(), nullptr);
      _exit(127);
    }
    // Until it answers: a round of which only the last question finds a server would tell half of the list.
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    const SockAddr address = *SockAddr::FromText("127.0.0.1:53");
    for (;;) {
      const Fd probe(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      if (connect(probe.get(), address.data(), address.size()) == 0) break;
      ASSERT_LT(std::chrono::steady_clock::now(), end) << "dnsmasq does not start";
      ASSERT_EQ(waitpid(server_, nullptr, WNOHANG), 0) << "dnsmasq has ended";
      sched_yield();
    }
  }
  void Stop() {
    if (server_ <= 0) return;
    kill(server_, SIGKILL);
    waitpid(server_, nullptr, 0);
    server_ = 0;
  }

  void Make(const std::string& dns) {
    source_ = *DnsSource::Create(dns, told_.Taker(), {.resolv_conf = folder_ / "resolv.conf"});
  }
  void Round() {
    now_ = std::max(now_, source_->NextDue());
    source_->Advance(now_);
    while (source_->asks()) {
      pollfd event{.fd = source_->event_fd(), .events = POLLIN, .revents = 0};
      const int64_t wait = (source_->NextDue() - now_) / 1'000'000 + 1;
      poll(&event, 1, static_cast<int>(wait));
      source_->Advance(now_);
    }
  }
  // Rounds until something is told that is no error.
  std::vector<std::string> Await() {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    std::vector<std::string> lists;
    while (lists.empty() && std::chrono::steady_clock::now() < end) {
      Round();
      lists = told_.Take();
      std::erase_if(lists, [](const std::string& told) { return told.starts_with("error: "); });
    }
    return lists;
  }

  TemporaryFolder folder_;
  Told told_;
  std::unique_ptr<DnsSource> source_;
  pid_t server_ = 0;
  int64_t now_ = 1'000'000'000'000;
};

TEST_F(DnsmasqTest, ServesServicesThatChangeWithItsConfiguration) {
  Start(
      "srv-host=_http._tcp.orders.svc.example,a.svc.example,8080,10,3\n"
      "srv-host=_http._tcp.orders.svc.example,b.svc.example,8081,20,5\n"
      "host-record=a.svc.example,192.0.2.1,2001:db8::1\n"
      "host-record=b.svc.example,192.0.2.2,7\n");
  Make("_http._tcp.orders");
  EXPECT_THAT(Await(), ElementsAre("192.0.2.1:8080*3 +192.0.2.2:8081*5 [2001:db8::1]:8080*3"));
  EXPECT_EQ(source_->NextDue() - now_, 7'000'000'000);
  Round();
  EXPECT_THAT(told_.Take(), IsEmpty());

  Stop();
  Round();
  EXPECT_THAT(told_.Take(), ElementsAre(HasSubstr("SRV of _http._tcp.orders.svc.example: ")));
  Round();
  EXPECT_THAT(told_.Take(), IsEmpty()) << "it was told";

  // Started before its zone is there. It refuses names of which it knows nothing, as the first one.
  Start("");
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  std::vector<std::string> told;
  while (told.empty() && std::chrono::steady_clock::now() < end) {
    Round();
    told = told_.Take();
  }
  EXPECT_THAT(
      told, ElementsAre(HasSubstr("no SRV record leads from _http._tcp.orders, or its 1 names by the search "
                                  "list, to a backend (SRV of _http._tcp.orders: each DNS server")));
  Stop();

  Start(
      "srv-host=_http._tcp.orders.svc.example,b.svc.example,8081,0,0\n"
      "host-record=b.svc.example,192.0.2.2\n");
  EXPECT_THAT(Await(), ElementsAre("192.0.2.2:8081"));
  EXPECT_EQ(source_->NextDue() - now_, 20'000'000'000);
}

TEST_F(DnsmasqTest, ServesAddressesAndAliases) {
  Start(
      "cname=orders.svc.example,web.svc.example\n"
      "host-record=web.svc.example,192.0.2.1,2001:db8::1\n");
  Make("orders:80");
  EXPECT_THAT(Await(), ElementsAre("192.0.2.1:80 [2001:db8::1]:80"));
}

TEST_F(DnsmasqTest, ServesMoreThanADatagramHolds) {
  std::string records, expected;
  for (int i = 1; i <= 200; ++i) {
    absl::StrAppend(&records, "srv-host=_many._tcp.svc.example,host-", i, ".svc.example,80,0,", i, "\n",
                    "host-record=host-", i, ".svc.example,192.0.2.", i, "\n");
    absl::StrAppend(&expected, i == 1 ? "" : " ", "192.0.2.", i, ":80", i == 1 ? "" : absl::StrCat("*", i));
  }
  Start(records);
  Make("_many._tcp");
  EXPECT_THAT(Await(), ElementsAre(expected));
}

}  // namespace
}  // namespace shunt::net
