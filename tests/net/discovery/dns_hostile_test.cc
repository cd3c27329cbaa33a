// SPDX-License-Identifier: Apache-2.0
// DnsSource and servers that are broken, silent or hostile.

#include "tests/net/discovery/dns_source_fixture.h"

namespace shunt::net {
namespace {

using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;
using namespace testing_support;  // NOLINT: A, Aaaa, Srv and so on, all over

using Messages = std::vector<std::string>;

class DnsHostileTest : public DnsSourceTest {
 protected:
  // More than a datagram holds.
  void GiveMany() {
    server_.zone["orders.svc"] = {};
    expected_ = "";
    for (int i = 1; i <= 100; ++i) {
      server_.zone["orders.svc"].push_back(A(absl::StrCat("192.0.2.", i)));
      absl::StrAppend(&expected_, i == 1 ? "" : " ", "192.0.2.", i, ":80");
    }
  }
  std::string expected_;
};

TEST_F(DnsHostileTest, TruncatedAnswersAreAskedForOverTcp) {
  GiveMany();
  EXPECT_THAT(FirstRound("orders.svc:80"), ElementsAre(expected_));
  EXPECT_THAT(server_.TakeAsked(), Contains("A orders.svc tcp").Times(1));
  // c-ares closes it with the round.
  server_.Serve();
  EXPECT_EQ(server_.connections(), 0u);
}

TEST_F(DnsHostileTest, SilenceEndsTheRoundAndAsksAgainLater) {
  server_.zone["orders.svc"] = {A("192.0.2.1")};
  FirstRound("orders.svc:80");
  server_.tamper = [](const DnsQuestion&, const std::string&) { return Messages(); };
  now_ = source_->NextDue();
  source_->Advance(now_);
  const int64_t begin = now_;
  for (int i = 0; i < 5; ++i) Turn();
  EXPECT_TRUE(source_->asks());
  now_ = begin + DnsSource::kRound - 1;
  source_->Advance(now_);
  EXPECT_TRUE(source_->asks());
  EXPECT_LE(source_->NextDue(), begin + DnsSource::kRound);
  now_ = begin + DnsSource::kRound;
  source_->Advance(now_);
  EXPECT_FALSE(source_->asks());
  EXPECT_THAT(told_.Take(), ElementsAre(HasSubstr("no DNS server has answered in time")));
  EXPECT_EQ(NextIn(), 1);
  server_.tamper = nullptr;
  EXPECT_THAT(NextRound(), ElementsAre("192.0.2.1:80"));
}

TEST_F(DnsHostileTest, WhatWasAnsweredBeforeTheRoundEndsCounts) {
  server_.zone["_http._tcp.orders.svc"] = {Srv(0, 1, 80, "a"), Srv(0, 1, 80, "b")};
  server_.zone["a"] = {A("192.0.2.1")};
  server_.zone["b"] = {A("192.0.2.2")};
  server_.tamper = [](const DnsQuestion& question, const std::string& answer) {
    return question.name == "b" ? Messages() : Messages{answer};
  };
  Make("_http._tcp.orders.svc");
  source_->Advance(now_);
  std::vector<std::string> asked;
  for (int i = 0; i < 200 && asked.size() < 5; ++i) {
    Turn();
    for (std::string& question : server_.TakeAsked()) asked.push_back(std::move(question));
  }
  ASSERT_THAT(asked, SizeIs(5));
  Turn();
  now_ += DnsSource::kRound;
  source_->Advance(now_);
  EXPECT_THAT(told_.Take(), ElementsAre("192.0.2.1:80", StartsWith("error: A of b: ")));
}

TEST_F(DnsHostileTest, TheSecondServerIsAskedWhenTheFirstOneIsSilentOrFails) {
  options_.servers = server_.address() + "," + second_.address();
  options_.attempt_timeout_ms = 500;  // and the second server has as long for its answer
  second_.zone["orders.svc"] = {A("192.0.2.1")};
  server_.tamper = [](const DnsQuestion&, const std::string&) { return Messages(); };
  EXPECT_THAT(FirstRound("orders.svc:80"), ElementsAre("192.0.2.1:80"));
  server_.tamper = nullptr;
  server_.codes["A orders.svc"] = kServerFailure;
  server_.codes["AAAA orders.svc"] = kRefused;
  EXPECT_THAT(NextRound(), IsEmpty());
  EXPECT_THAT(server_.TakeAsked(), Each(HasSubstr("orders.svc")));
}

TEST_F(DnsHostileTest, AServerThatIsNotThereIsAnError) {
  {
    const DnsResponder gone;
    options_.servers = gone.address();
  }
  EXPECT_THAT(FirstRound("orders.svc:80"),
              ElementsAre(StartsWith("error: A of orders.svc: each DNS server")));
}

TEST_F(DnsHostileTest, MessagesThatAnswerNoQuestionOfOursAreNotTaken) {
  const DnsRecord wrong = A("203.0.113.66");
  server_.zone["orders.svc"] = {A("192.0.2.1")};
  server_.tamper = [&](const DnsQuestion& question, const std::string& answer) {
    DnsQuestion other_id = question;
    ++other_id.id;
    DnsQuestion other_name = question;
    other_name.text = DnsName("evil.svc") + Number16(question.type) + Number16(1);
    DnsQuestion other_type = question;
    other_type.text = DnsName("orders.svc") + Number16(16) + Number16(1);
    return Messages{DnsMessage(other_id, {wrong}), DnsMessage(other_name, {wrong}),
                    DnsMessage(other_type, {wrong}), answer};
  };
  EXPECT_THAT(FirstRound("orders.svc:80"), ElementsAre("192.0.2.1:80"));
}

TEST_F(DnsHostileTest, EmptyMessagesAndHeadersBeforeTheAnswerCostARoundAtMost) {
  server_.zone["orders.svc"] = {A("192.0.2.1")};
  for (const size_t size : {0, 1, 11, 12}) {
    server_.tamper = [&](const DnsQuestion&, const std::string& answer) {
      return Messages{answer.substr(0, size), answer};
    };
    std::vector<std::string> told = FirstRound("orders.svc:80");
    server_.tamper = nullptr;
    if (!told.empty() && told.back().starts_with("error: ")) told = NextRound();
    EXPECT_THAT(told, ElementsAre("192.0.2.1:80")) << size;
  }
}

TEST_F(DnsHostileTest, GarbageInAnAnswerIsAnErrorAndLeavesWhatThereWas) {
  server_.zone["orders.svc"] = {A("192.0.2.1")};
  FirstRound("orders.svc:80");
  // Cut anywhere, and with each byte behind the question another one.
  const DnsQuestion like{
      .id = 0, .name = "", .type = 1, .text = DnsName("orders.svc") + Number16(1) + Number16(1)};
  const size_t whole = DnsMessage(like, {A("192.0.2.1")}).size();
  const size_t question_ends = 12 + like.text.size();
  for (size_t at = question_ends; at < whole; ++at) {
    for (const bool cut : {true, false}) {
      server_.tamper = [&](const DnsQuestion&, std::string answer) {
        if (at < answer.size() && cut) answer.resize(at);
        if (at < answer.size() && !cut) answer[at] = static_cast<char>(~answer[at]);
        return Messages{answer};
      };
      for (const std::string& told : NextRound()) {
        // Some bytes can be anything: those of the address and of the time.
        EXPECT_TRUE(told.starts_with("error: ") || told.ends_with(":80")) << told;
      }
      EXPECT_FALSE(source_->asks());
    }
  }
  server_.tamper = nullptr;
  NextRound();
  server_.zone["orders.svc"] = {A("192.0.2.2")};
  EXPECT_THAT(NextRound(), ElementsAre("192.0.2.2:80"));
}

TEST_F(DnsHostileTest, AConnectionThatSaysNothingEndsWithTheRound) {
  GiveMany();
  FirstRound("orders.svc:80");
  server_.Serve();
  server_.TakeAsked();
  server_.tamper = [](const DnsQuestion& question, const std::string& answer) {
    return question.tcp ? Messages() : Messages{answer};
  };
  const auto files = OpenFiles();
  now_ = source_->NextDue();
  source_->Advance(now_);
  bool asked = false;
  for (int i = 0; i < 200 && !asked; ++i) {
    Turn();
    for (const std::string& question : server_.TakeAsked()) asked = asked || question == "A orders.svc tcp";
  }
  ASSERT_TRUE(asked);
  Turn();
  EXPECT_TRUE(source_->asks());
  now_ += DnsSource::kRound;
  source_->Advance(now_);
  EXPECT_THAT(told_.Take(), ElementsAre(StartsWith("error: A of orders.svc: no DNS server has answered")));
  server_.Serve();
  EXPECT_EQ(server_.connections(), 0u);
  EXPECT_EQ(OpenFiles(), files);
  server_.tamper = nullptr;
  EXPECT_THAT(NextRound(), ElementsAre(expected_));
}

TEST_F(DnsHostileTest, AConnectionThatEndsInTheMiddleIsAnError) {
  GiveMany();
  FirstRound("orders.svc:80");
  for (const size_t bytes : {0, 1, 2, 3, 14, 500}) {
    server_.cut_tcp_after = bytes;
    EXPECT_THAT(NextRound(), ElementsAre(StartsWith("error: A of orders.svc"))) << bytes;
    server_.cut_tcp_after.reset();
    EXPECT_THAT(NextRound(), ElementsAre(expected_)) << bytes;
  }
}

TEST_F(DnsHostileTest, EmptyMessagesOnAConnectionAreNoAnswer) {
  GiveMany();
  server_.tamper = [](const DnsQuestion& question, const std::string& answer) {
    return question.tcp ? Messages{"", "", answer} : Messages{answer};
  };
  std::vector<std::string> told = FirstRound("orders.svc:80");
  server_.tamper = nullptr;
  if (told != Messages{expected_}) told = NextRound();
  EXPECT_THAT(told, ElementsAre(expected_));
}

}  // namespace
}  // namespace shunt::net
