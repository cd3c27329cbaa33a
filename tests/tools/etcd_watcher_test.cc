// SPDX-License-Identifier: Apache-2.0
// EtcdWatcher: what it asks, and what it makes of answers, those of the wrong kind as well. What etcd really
// says is for tests/services/etcd_source_test.py.

#include "tools/etcd_watcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace shunt {
namespace {

using Json = nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string Encoded(const std::string& text) {
  return absl::Base64Escape(text);
}

Json Pair(const std::string& key, const std::string& value, int revision) {
  return {{"key", Encoded("/services/orders/" + key)},
          {"value", Encoded(value)},
          {"mod_revision", std::to_string(revision)}};
}

std::string Events(const std::vector<Json>& events) {
  return Json{{"result", {{"header", {{"revision", "999"}}}, {"events", events}}}}.dump();
}

constexpr char kCreated[] = R"({"result":{"header":{"revision":"40"},"created":true}})";

HttpAnswer AnswerOf(long code, std::string body) {
  HttpAnswer answer;
  answer.code = code;
  answer.body = std::move(body);
  return answer;
}

HttpAnswer ListAt(int revision, const std::vector<Json>& pairs) {
  return AnswerOf(200, Json{{"header", {{"revision", std::to_string(revision)}}}, {"kvs", pairs}}.dump());
}

class EtcdWatcherTest : public ::testing::Test {
 protected:
  EtcdWatcherTest() {
    watcher_.TellTo([this](std::vector<net::BackendSpec> backends, absl::Status missing) {
      told_.clear();
      for (const net::BackendSpec& backend : backends) told_.push_back(backend.address.ToString());
      missing_ = std::string(missing.message());
      ++times_told_;
    });
  }
  // Until a watch is under way, with two backends as of revision 30.
  void GetOn() {
    ASSERT_EQ(Asked().path, "/v3/kv/range");
    ASSERT_TRUE(
        watcher_.OnAnswer(ListAt(30, {Pair("a", "10.0.0.1:80", 5), Pair("b", "10.0.0.2:80", 6)})).ok());
    ASSERT_EQ(StartRevision(), "31");
    ASSERT_TRUE(watcher_.OnLine(kCreated).ok());
  }
  Watcher::Ask Asked() { return watcher_.Next().value(); }
  std::string StartRevision() {
    const Watcher::Ask ask = Asked();
    EXPECT_EQ(ask.path, "/v3/watch");
    return Json::parse(ask.post.value_or("null"))["create_request"]["start_revision"];
  }
  absl::Status Broken() { return watcher_.OnFailure(absl::UnavailableError("Connection reset by peer")); }

  EtcdWatcher watcher_{
      net::EtcdSpec{.endpoints = {"http://a:1", "http://b:2"}, .prefix = "/services/orders"}};
  std::vector<std::string> told_;
  std::string missing_;
  int times_told_ = 0;
};

TEST_F(EtcdWatcherTest, AsksForTheKeysBelowThePrefixAndForNoOthers) {
  const Watcher::Ask list = Asked();
  EXPECT_EQ(list.origin.url, "http://a:1");
  EXPECT_FALSE(list.streams);
  EXPECT_EQ(Json::parse(list.post.value()), (Json{{"key", Encoded("/services/orders/")},
                                                  {"range_end", Encoded("/services/orders0")},
                                                  {"limit", "1000"}}));
  ASSERT_TRUE(watcher_.OnAnswer(ListAt(30, {})).ok());
  const Watcher::Ask watch = Asked();
  EXPECT_TRUE(watch.streams);
  EXPECT_GT(watch.longest.count(), 0);
  EXPECT_EQ(Json::parse(watch.post.value())["create_request"]["range_end"], Encoded("/services/orders0"));
}

// etcd's answer where there is more behind what was asked for.
HttpAnswer PageAt(int revision, const std::vector<Json>& pairs, int count) {
  Json body = Json::parse(ListAt(revision, pairs).body);
  body["more"] = true;
  body["count"] = std::to_string(count);
  return AnswerOf(200, body.dump());
}

TEST_F(EtcdWatcherTest, ReadsPagesOfOneRevisionAndTellsThemTogether) {
  ASSERT_EQ(Asked().path, "/v3/kv/range");
  ASSERT_TRUE(watcher_.OnAnswer(PageAt(30, {Pair("a", "10.0.0.1:80", 5)}, 2)).ok());
  EXPECT_EQ(times_told_, 0);
  const Json second = Json::parse(Asked().post.value());
  EXPECT_EQ(second["key"], Encoded(std::string("/services/orders/a\0", 19)));
  EXPECT_EQ(second["revision"], "30");
  EXPECT_EQ(second["range_end"], Encoded("/services/orders0"));
  ASSERT_TRUE(watcher_.OnAnswer(ListAt(35, {Pair("b", "10.0.0.2:80", 6)})).ok());
  EXPECT_THAT(told_, ElementsAre("10.0.0.1:80", "10.0.0.2:80"));
  EXPECT_EQ(StartRevision(), "31") << "what has happened since the first page";
}

TEST_F(EtcdWatcherTest, BeginsAnewWhereAPageIsMissing) {
  GetOn();
  ASSERT_TRUE(watcher_.OnAnswer(AnswerOf(200, "")).ok());
  const int before = times_told_;
  const auto begins_anew = [&] { return !Json::parse(Asked().post.value()).contains("revision"); };
  ASSERT_TRUE(watcher_.OnAnswer(PageAt(60, {Pair("c", "10.0.0.3:80", 5)}, 2)).ok());
  EXPECT_FALSE(begins_anew());
  EXPECT_FALSE(Broken().ok());
  EXPECT_TRUE(begins_anew());
  ASSERT_TRUE(watcher_.OnAnswer(PageAt(60, {Pair("c", "10.0.0.3:80", 5)}, 2)).ok());
  const char* forgotten = R"({"error":"etcdserver: mvcc: required revision has been compacted","code":11})";
  EXPECT_FALSE(watcher_.OnAnswer(AnswerOf(400, forgotten)).ok());
  EXPECT_TRUE(begins_anew());
  EXPECT_FALSE(watcher_.OnAnswer(PageAt(60, {Pair("c", "10.0.0.3:80", 5)}, 1'000'000)).ok());
  EXPECT_TRUE(begins_anew());
  EXPECT_EQ(times_told_, before) << "half of a list takes the other half away";
}

TEST_F(EtcdWatcherTest, TellsTheListAndEachChange) {
  GetOn();
  EXPECT_THAT(told_, ElementsAre("10.0.0.1:80", "10.0.0.2:80"));
  ASSERT_TRUE(watcher_
                  .OnLine(Events({{{"kv", Pair("c", "10.0.0.3:80", 31)}},
                                  {{"type", "DELETE"}, {"kv", Pair("a", "", 32)}}}))
                  .ok());
  EXPECT_THAT(told_, ElementsAre("10.0.0.2:80", "10.0.0.3:80"));
}

TEST_F(EtcdWatcherTest, ReadsAllFromTheNextEndpointAfterAFailure) {
  GetOn();
  const absl::Status status = Broken();
  EXPECT_THAT(std::string(status.message()), "http://a:1: Connection reset by peer");
  EXPECT_EQ(Asked().origin.url, "http://b:2");
  EXPECT_EQ(Asked().path, "/v3/kv/range");
  const int before = times_told_;
  ASSERT_TRUE(watcher_.OnAnswer(ListAt(20, {Pair("a", "10.0.0.1:80", 5), Pair("b", "10.0.0.2:80", 6)})).ok());
  EXPECT_EQ(times_told_, before + 1) << "etcd answers again";
  EXPECT_EQ(StartRevision(), "21") << "even if it is another etcd";
  EXPECT_FALSE(Broken().ok());
  EXPECT_EQ(Asked().origin.url, "http://a:1");
}

TEST_F(EtcdWatcherTest, ReadsAllAgainAfterAWhileAndWhereHistoryIsForgotten) {
  GetOn();
  EXPECT_TRUE(watcher_.OnAnswer(AnswerOf(200, "")).ok());
  EXPECT_EQ(Asked().path, "/v3/kv/range");
  ASSERT_TRUE(watcher_.OnAnswer(ListAt(60, {Pair("b", "10.0.0.2:80", 6)})).ok());
  EXPECT_THAT(told_, ElementsAre("10.0.0.2:80"));

  const absl::Status ended =
      watcher_.OnLine(R"({"result":{"header":{},"canceled":true,"compact_revision":"70"}})");
  EXPECT_FALSE(ended.ok());
  EXPECT_TRUE(watcher_.OnFailure(ended).ok()) << "nothing that anybody should hear of";
  EXPECT_EQ(Asked().path, "/v3/kv/range");
}

TEST_F(EtcdWatcherTest, AValueThatIsNoBackendChangesNothingAndIsTold) {
  GetOn();
  ASSERT_TRUE(watcher_
                  .OnLine(Events({{{"kv", Pair("a", "10.0.0.1", 31)}},
                                  {{"kv", Pair("n", "{address: [}", 32)}},
                                  {{"kv", Pair("b", "10.0.0.9:80", 33)}}}))
                  .ok());
  EXPECT_THAT(told_, ElementsAre("10.0.0.1:80", "10.0.0.9:80"));
  EXPECT_THAT(missing_, HasSubstr("/services/orders/a"));
  EXPECT_THAT(missing_, HasSubstr("; and 1 more such keys"));
  ASSERT_TRUE(watcher_.OnAnswer(AnswerOf(200, "")).ok());
  Asked();
  ASSERT_TRUE(watcher_.OnAnswer(ListAt(60, {Pair("a", "x", 31), Pair("b", "10.0.0.9:80", 33)})).ok());
  EXPECT_THAT(told_, ElementsAre("10.0.0.1:80", "10.0.0.9:80")) << "what the key had before";
}

TEST_F(EtcdWatcherTest, KeepsWhatItHasWhateverIsAnswered) {
  GetOn();
  const int before = times_told_;
  for (const char* line : {"", "null", "[]", "{}", "{", R"({"result":[]})", R"({"error":"x"})",
                           R"({"error":{"message":"no leader"}})", R"({"result":{"events":[1]}})",
                           R"({"result":{"events":[{"kv":7}]}})", R"({"result":{"canceled":true}})",
                           "\xff\xfe", R"({"result":{"created":{}, "events":[{}]}})"}) {
    const absl::Status status = watcher_.OnLine(line);
    EXPECT_FALSE(status.ok()) << line;
    EXPECT_FALSE(watcher_.OnFailure(status).ok()) << line;
  }
  for (const char* body : {"", "null", "[]", "{}", "<html>", R"({"header":{"revision":7}})",
                           R"({"header":{"revision":"-7"}})", R"({"header":[]})"}) {
    EXPECT_FALSE(watcher_.OnAnswer(AnswerOf(200, body)).ok()) << body;
  }
  EXPECT_EQ(times_told_, before);
  EXPECT_EQ(Asked().path, "/v3/kv/range");
}

TEST_F(EtcdWatcherTest, AValueThatIsTooLongIsNotShown) {
  GetOn();
  ASSERT_TRUE(watcher_.OnLine(Events({{{"kv", Pair("c", std::string(5000, 'x'), 31)}}})).ok());
  EXPECT_THAT(missing_, HasSubstr("/services/orders/c: more than 4096 bytes are no backend"));
  EXPECT_LT(missing_.size(), 1000u);
}

TEST_F(EtcdWatcherTest, WhatItSaysOfErrorsIsBounded) {
  const std::string text(100'000, '\x01');
  const absl::Status status = watcher_.OnAnswer(AnswerOf(503, Json{{"error", text}, {"code", 14}}.dump()));
  EXPECT_THAT(std::string(status.message()), HasSubstr("http://a:1: it answers 503: \\x01"));
  EXPECT_LT(status.message().size(), 2000u);
}

TEST(EtcdWatcherLogin, ATokenThatWorkedIsRenewedAtOnceAndOneThatNeverDidIsToldOf) {
  const std::string file = ::testing::TempDir() + "etcd_password";
  std::ofstream(file) << "the word\n";
  EtcdWatcher watcher(
      net::EtcdSpec{.endpoints = {"https://a:1"}, .prefix = "/p", .user = "reader", .password_file = file});
  watcher.TellTo([](std::vector<net::BackendSpec>, absl::Status) {});
  const auto asked = [&watcher] { return watcher.Next().value(); };
  const auto logs_in = [&](const char* token) {
    EXPECT_EQ(asked().path, "/v3/auth/authenticate");
    EXPECT_EQ(Json::parse(asked().post.value()), (Json{{"name", "reader"}, {"password", "the word"}}));
    EXPECT_TRUE(watcher.OnAnswer(AnswerOf(200, Json{{"token", token}}.dump())).ok());
  };
  const HttpAnswer refused = AnswerOf(401, R"({"error":"etcdserver: invalid auth token","code":16})");
  logs_in("t.1");
  EXPECT_EQ(asked().path, "/v3/kv/range");
  EXPECT_EQ(asked().authorization, "t.1");
  EXPECT_FALSE(watcher.OnAnswer(refused).ok());
  logs_in("t.2");
  EXPECT_EQ(asked().authorization, "t.2");
  ASSERT_TRUE(watcher.OnAnswer(ListAt(30, {})).ok());
  ASSERT_TRUE(watcher.OnAnswer(AnswerOf(200, "")).ok());
  EXPECT_EQ(asked().path, "/v3/kv/range");
  EXPECT_TRUE(watcher.OnAnswer(refused).ok());
  logs_in("t.3");
  EXPECT_EQ(asked().path, "/v3/kv/range") << "which the login has put off";
  ASSERT_TRUE(watcher.OnAnswer(ListAt(40, {})).ok());
  EXPECT_EQ(asked().path, "/v3/watch");
  const absl::Status old = watcher.OnLine(R"({"result":{"canceled":true,"compact_revision":"70"}})");
  EXPECT_TRUE(watcher.OnFailure(old).ok());
  EXPECT_EQ(asked().path, "/v3/kv/range") << "the token is not to blame";
  unlink(file.c_str());
}

}  // namespace
}  // namespace shunt
