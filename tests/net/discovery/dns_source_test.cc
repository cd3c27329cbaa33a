// SPDX-License-Identifier: Apache-2.0
// DnsSource: what becomes of what servers answer, and when they are asked again.

#include "tests/net/discovery/dns_source_fixture.h"

namespace shunt::net {
namespace {

using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;
using testing::UnorderedElementsAre;
using namespace testing_support;  // NOLINT: A, Aaaa, Srv and so on, all over

TEST_F(DnsSourceTest, TakesBothFamiliesOfANameWithTheGivenPort) {
  server_.zone["orders.svc"] = {A("192.0.2.2"), A("192.0.2.10"), Aaaa("2001:db8::1")};
  EXPECT_THAT(FirstRound("orders.svc:8080"),
              ElementsAre("192.0.2.2:8080 192.0.2.10:8080 [2001:db8::1]:8080"));
  EXPECT_EQ(source_->Title(), "dns orders.svc:8080");
  EXPECT_THAT(server_.TakeAsked(), UnorderedElementsAre("A orders.svc", "AAAA orders.svc"));
}

TEST_F(DnsSourceTest, OnlyChangesAreTold) {
  server_.zone["orders.svc"] = {A("192.0.2.1"), A("192.0.2.2"), Aaaa("2001:db8::1")};
  FirstRound("orders.svc:8080");
  server_.zone["orders.svc"] = {A("192.0.2.2", 7), Aaaa("2001:db8::1"), A("192.0.2.1")};
  EXPECT_THAT(NextRound(), IsEmpty()) << "another order";
  server_.zone["orders.svc"] = {A("192.0.2.2")};
  EXPECT_THAT(NextRound(), ElementsAre("192.0.2.2:8080"));
}

TEST_F(DnsSourceTest, AsksAgainWhenTheSmallestTimeToLiveIsOver) {
  server_.zone["orders.svc"] = {A("192.0.2.1", 40), A("192.0.2.2", 30), Aaaa("2001:db8::1", 50)};
  FirstRound("orders.svc:8080");
  EXPECT_EQ(NextIn(), 30);
  server_.TakeAsked();
  now_ += 30 * kSecond - 1;
  source_->Advance(now_);
  EXPECT_FALSE(source_->asks());
  server_.zone["orders.svc"] = {Aaaa("2001:db8::1", 50), Cname("elsewhere", 20), A("192.0.2.1", 40)};
  now_ += 1;
  EXPECT_THAT(Round(), ElementsAre("192.0.2.1:8080 [2001:db8::1]:8080"));
  EXPECT_EQ(NextIn(), 20) << "what an alias leads to may change";
}

TEST_F(DnsSourceTest, AsksNotMoreOftenThanEverySecondAndNotLessThanEveryFiveMinutes) {
  server_.zone["orders.svc"] = {A("192.0.2.1", 0)};
  FirstRound("orders.svc:8080");
  EXPECT_EQ(NextIn(), 1);
  server_.zone["orders.svc"] = {A("192.0.2.1", 86400)};
  NextRound();
  EXPECT_EQ(NextIn(), 300);
  server_.zone["orders.svc"] = {A("192.0.2.1", 0x80000000)};
  NextRound();
  EXPECT_EQ(NextIn(), 1) << "RFC 2181: such a time is none";
}

TEST_F(DnsSourceTest, SrvRecordsSayPortsWeightsAndWhoIsABackup) {
  server_.zone["_http._tcp.orders.svc"] = {Srv(10, 3, 8080, "a.orders.svc"), Srv(10, 0, 8081, "b.orders.svc"),
                                           Srv(20, 5, 8080, "c.orders.svc"),
                                           Srv(30, 1, 8080, "d.orders.svc")};
  server_.zone["a.orders.svc"] = {A("192.0.2.4"), Aaaa("2001:db8::a", 50)};
  server_.zone["b.orders.svc"] = {A("192.0.2.3")};
  server_.zone["c.orders.svc"] = {A("192.0.2.2")};
  server_.zone["d.orders.svc"] = {A("192.0.2.1")};
  EXPECT_THAT(
      FirstRound("_http._tcp.orders.svc"),
      ElementsAre("+192.0.2.1:8080 +192.0.2.2:8080*5 192.0.2.3:8081 192.0.2.4:8080*3 [2001:db8::a]:8080*3"));
  EXPECT_EQ(source_->Title(), "dns _http._tcp.orders.svc");
  EXPECT_EQ(NextIn(), 50);
  server_.zone["_http._tcp.orders.svc"] = {Srv(10, 1, 8080, "a.orders.svc", 9)};
  EXPECT_THAT(NextRound(), ElementsAre("192.0.2.4:8080 [2001:db8::a]:8080"));
  EXPECT_EQ(NextIn(), 9) << "the records' own time counts as well";
}

TEST_F(DnsSourceTest, OneBackendThatSeveralRecordsNameIsOne) {
  server_.zone["_http._tcp.orders.svc"] = {Srv(20, 9, 80, "a"), Srv(10, 3, 80, "b"), Srv(10, 7, 80, "c"),
                                           Srv(10, 1, 81, "b"), Srv(10, 2, 80, "b")};
  for (const char* host : {"a", "b", "c"}) server_.zone[host] = {A("192.0.2.1"), A("192.0.2.1")};
  EXPECT_THAT(FirstRound("_http._tcp.orders.svc"), ElementsAre("192.0.2.1:80*7 192.0.2.1:81"));
  EXPECT_THAT(server_.TakeAsked(), SizeIs(1 + 3 * 2)) << "each host is asked for once";
}

TEST_F(DnsSourceTest, TargetsThatAreNoneAndAddressesThatNobodyCanHaveAreLeftOut) {
  server_.zone["_http._tcp.orders.svc"] = {Srv(0, 1, 80, "."), Srv(10, 1, 0, "a"), Srv(10, 1, 80, "b"),
                                           Srv(10, 1, 80, "gone")};
  server_.zone["b"] = {A("0.0.0.0"),   A("224.0.0.1"), A("255.255.255.255"),
                       A("192.0.2.1"), Aaaa("::"),     Aaaa("ff02::1")};
  EXPECT_THAT(FirstRound("_http._tcp.orders.svc"), ElementsAre("+192.0.2.1:80"));
}

TEST_F(DnsSourceTest, AnAnswerWithoutBackendsIsAnErrorAndLeavesWhatThereWas) {
  server_.zone["orders.svc"] = {A("192.0.2.1")};
  FirstRound("orders.svc:8080");
  server_.zone.clear();
  EXPECT_THAT(NextRound(),
              ElementsAre("error: no A or AAAA record leads from orders.svc to a backend: mend the "
                          "zone, or change discover.dns; what was found before stays in force"));
  server_.zone["orders.svc"] = {};
  EXPECT_THAT(NextRound(), IsEmpty()) << "the same error in other words";
  server_.zone["orders.svc"] = {A("0.0.0.0")};
  EXPECT_THAT(NextRound(), IsEmpty());
  server_.zone["orders.svc"] = {Cname("nowhere")};
  EXPECT_THAT(NextRound(), IsEmpty());
  server_.zone["orders.svc"] = {A("192.0.2.1")};
  EXPECT_THAT(NextRound(), ElementsAre("192.0.2.1:8080")) << "it answers again";

  server_.zone["_http._tcp.orders.svc"] = {Srv(0, 0, 80, ".")};
  EXPECT_THAT(FirstRound("_http._tcp.orders.svc"), ElementsAre(HasSubstr("no SRV record leads from")));
}

TEST_F(DnsSourceTest, AfterErrorsTimesGetLongerUpToHalfAMinuteAndStartAnewAfterwards) {
  server_.codes["A orders.svc"] = server_.codes["AAAA orders.svc"] = kServerFailure;
  EXPECT_THAT(FirstRound("orders.svc:8080"),
              ElementsAre(AllOf(StartsWith("error: A of orders.svc: "), HasSubstr("stays in force"))));
  for (const double expected : {1, 2, 4, 8, 16, 30, 30}) {
    EXPECT_EQ(NextIn(), expected);
    EXPECT_THAT(NextRound(), IsEmpty()) << "it was told";
  }
  server_.codes.clear();
  server_.zone["orders.svc"] = {A("192.0.2.1", 60)};
  EXPECT_THAT(NextRound(), ElementsAre("192.0.2.1:8080"));
  EXPECT_EQ(NextIn(), 60);
  server_.zone.clear();
  EXPECT_THAT(NextRound(), SizeIs(1));
  EXPECT_EQ(NextIn(), 1);
}

TEST_F(DnsSourceTest, AFamilyThatCannotBeHadIsKeptAsItWas) {
  server_.zone["orders.svc"] = {A("192.0.2.1"), Aaaa("2001:db8::1")};
  FirstRound("orders.svc:8080");
  server_.zone["orders.svc"] = {A("192.0.2.2")};
  server_.codes["AAAA orders.svc"] = kServerFailure;
  EXPECT_THAT(NextRound(), ElementsAre("192.0.2.2:8080 [2001:db8::1]:8080",
                                       AllOf(StartsWith("error: AAAA of orders.svc"), HasSubstr("stays"))));
  EXPECT_EQ(NextIn(), 1);
  server_.zone["orders.svc"] = {A("192.0.2.3")};
  EXPECT_THAT(NextRound(), ElementsAre("192.0.2.3:8080 [2001:db8::1]:8080", HasSubstr("AAAA")));
  EXPECT_THAT(NextRound(), IsEmpty());
  server_.codes.clear();
  EXPECT_THAT(NextRound(), ElementsAre("192.0.2.3:8080")) << "now it is known that there are none";
}

TEST_F(DnsSourceTest, AFamilyThatWasNeverHadKeepsTheOtherFromNobody) {
  server_.zone["orders.svc"] = {A("192.0.2.1", 5)};
  server_.codes["AAAA orders.svc"] = kServerFailure;
  EXPECT_THAT(FirstRound("orders.svc:8080"), ElementsAre("192.0.2.1:8080", HasSubstr("AAAA of orders.svc")));
  for (const double expected : {1, 2, 4, 5, 5}) {
    EXPECT_EQ(NextIn(), expected) << "an error is no reason to ask less often";
    EXPECT_THAT(NextRound(), IsEmpty());
  }
}

TEST_F(DnsSourceTest, ATargetWhoseAddressesCannotBeHadIsKeptAndOneThatIsGoneIsNot) {
  server_.zone["_http._tcp.orders.svc"] = {Srv(10, 1, 80, "a"), Srv(10, 1, 80, "b")};
  server_.zone["a"] = {A("192.0.2.1")};
  server_.zone["b"] = {A("192.0.2.2")};
  EXPECT_THAT(FirstRound("_http._tcp.orders.svc"), ElementsAre("192.0.2.1:80 192.0.2.2:80"));
  server_.codes["A b"] = kRefused;
  EXPECT_THAT(NextRound(), ElementsAre(StartsWith("error: A of b: ")));
  server_.codes.clear();
  server_.zone.erase("b");
  EXPECT_THAT(NextRound(), ElementsAre("192.0.2.1:80"));
}

TEST_F(DnsSourceTest, NamesAreCompletedByTheSearchListOfOneNameAtATime) {
  SetResolvConf("search team.example corp.example\noptions ndots:2\n");
  server_.zone["orders.svc.corp.example"] = {A("192.0.2.1")};
  server_.zone["orders.svc"] = {A("192.0.2.9"), Aaaa("2001:db8::9")};
  EXPECT_THAT(FirstRound("orders.svc:80"), ElementsAre("192.0.2.1:80"))
      << "AAAA is of the same name, or none";
  EXPECT_THAT(server_.TakeAsked(),
              UnorderedElementsAre("A orders.svc.team.example", "AAAA orders.svc.team.example",
                                   "A orders.svc.corp.example", "AAAA orders.svc.corp.example"));
  server_.zone.erase("orders.svc.corp.example");
  EXPECT_THAT(NextRound(), ElementsAre("192.0.2.9:80 [2001:db8::9]:80"));

  server_.TakeAsked();
  EXPECT_THAT(FirstRound("orders.svc.:80"), ElementsAre("192.0.2.9:80 [2001:db8::9]:80"));
  EXPECT_THAT(server_.TakeAsked(), UnorderedElementsAre("A orders.svc", "AAAA orders.svc"));
  SetResolvConf("search team.example\noptions ndots:1\n");
  EXPECT_THAT(FirstRound("absent.svc:80"),
              ElementsAre(HasSubstr("from absent.svc, or its 1 names by the search list, to a backend")));
  EXPECT_THAT(server_.TakeAsked(),
              ElementsAre(HasSubstr(" absent.svc"), HasSubstr(" absent.svc"),
                          HasSubstr("absent.svc.team.example"), HasSubstr("absent.svc.team.example")));
}

TEST_F(DnsSourceTest, AServerThatFailsLeadsFromTheNameThatAnsweredToNoOther) {
  SetResolvConf("search one.example two.example\noptions ndots:2\n");
  server_.codes["A orders.svc.one.example"] = kServerFailure;
  server_.codes["AAAA orders.svc.one.example"] = kRefused;
  server_.zone["orders.svc"] = {A("192.0.2.9")};
  server_.zone["orders.svc.two.example"] = {A("192.0.2.2")};
  EXPECT_THAT(FirstRound("orders.svc:80"), ElementsAre("192.0.2.2:80"))
      << "nothing was known of the first name";
  server_.codes["A orders.svc.two.example"] = kServerFailure;
  EXPECT_THAT(NextRound(), ElementsAre(StartsWith("error: A of orders.svc.two.example: ")));
  server_.zone["orders.svc.one.example"] = {A("192.0.2.1")};
  server_.codes.clear();
  EXPECT_THAT(NextRound(), ElementsAre("192.0.2.1:80"));
  server_.zone.clear();
  server_.codes["A orders.svc"] = kServerFailure;
  EXPECT_THAT(NextRound(), ElementsAre(HasSubstr("A of orders.svc: each DNS server fails")));
}

TEST_F(DnsSourceTest, AChangeOfResolvConfHoldsFromTheNextRoundOn) {
  SetResolvConf("search one.example\n");
  server_.zone["orders.one.example"] = {A("192.0.2.1")};
  server_.zone["orders.two.example"] = {A("192.0.2.2")};
  EXPECT_THAT(FirstRound("orders:80"), ElementsAre("192.0.2.1:80"));
  SetResolvConf("search two.example\n");
  EXPECT_THAT(NextRound(), ElementsAre("192.0.2.2:80"));
}

TEST_F(DnsSourceTest, MoreBackendsThanItTakesAreAnError) {
  // Each of these hosts has as many addresses as an answer can hold.
  std::vector<DnsRecord> many;
  for (int i = 0; i < 4000; ++i) many.push_back(A(absl::StrCat("10.0.", i / 250, ".", i % 250 + 1)));
  server_.zone["_http._tcp.orders.svc"] = {};
  for (int i = 0; i < 5; ++i) {
    server_.zone["_http._tcp.orders.svc"].push_back(Srv(0, 1, 80 + i, absl::StrCat("h", i)));
    server_.zone[absl::StrCat("h", i)] = many;
  }
  EXPECT_THAT(FirstRound("_http._tcp.orders.svc"), ElementsAre(HasSubstr("more than 16384 backends")));
  server_.zone["_http._tcp.orders.svc"].pop_back();
  EXPECT_THAT(NextRound(),
              ElementsAre(StartsWith("10.0.0.1:80 10.0.0.1:81 10.0.0.1:82 10.0.0.1:83 10.0.0.2:")));
}

TEST_F(DnsSourceTest, HoldsItsEpollOnlyBetweenRoundsAndNothingAtTheEnd) {
  server_.zone["orders.svc"] = {A("192.0.2.1")};
  const auto before = OpenFiles();
  FirstRound("orders.svc:8080");
  EXPECT_EQ(OpenFiles(), before + 1);
  now_ = source_->NextDue();
  source_->Advance(now_);
  EXPECT_GT(OpenFiles(), before + 1) << "in the middle of a round";
  source_.reset();
  EXPECT_EQ(OpenFiles(), before);
  EXPECT_THAT(told_.Take(), IsEmpty());
}

}  // namespace
}  // namespace shunt::net
