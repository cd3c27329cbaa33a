// SPDX-License-Identifier: Apache-2.0
// EtcdAnnouncer: what it asks for, and what it makes of answers. What etcd really says is for
// tests/services/multinode_test.py.

#include "tools/etcd_announcer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tools/registrar.h"

namespace shunt {
namespace {

using Json = nlohmann::json;
using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

HttpAnswer Answered(const Json& body, long code = 200) {
  HttpAnswer answer;
  answer.code = code;
  answer.body = body.dump();
  return answer;
}

const Json kGone = {{"error", "etcdserver: requested lease not found"}, {"code", 5}};

// An etcd of two endpoints, and its keys of the prefix "p".
class EtcdAnnouncerTest : public ::testing::Test {
 protected:
  EtcdAnnouncerTest() {
    announcer_.TellTo([this](const std::vector<net::BackendSpec>&, const absl::Status& missing) {
      told_ = std::string(missing.message());
    });
  }

  // Answers one request as etcd would. Returns its path; "": there is nothing to ask.
  std::string Step() {
    if (announcer_.Rest().count() > 0) return "";
    const Watcher::Ask ask = announcer_.Next().value();
    const Json what = Json::parse(ask.post.value());
    absl::Status status;
    if (ask.path == "/v3/lease/grant") {
      EXPECT_EQ(what["TTL"], "15");
      lease_ = ++last_lease_;
      status = announcer_.OnAnswer(Answered({{"ID", std::to_string(lease_)}, {"TTL", "15"}}));
    } else if (ask.path == "/v3/kv/txn") {
      status = announcer_.OnAnswer(lease_ == 0 ? Answered(kGone, 404) : Answered(Transact(what)));
    } else if (ask.path == "/v3/lease/keepalive") {
      Json result = {{"ID", what["ID"]}};
      if (lease_ != 0) result["TTL"] = "15";
      status = announcer_.OnAnswer(Answered({{"result", result}}));
    } else if (ask.path == "/v3/lease/timetolive") {
      Json keys = Json::array();
      for (const auto& [key, value] : keys_) {
        if (leases_[key] == lease_) keys.push_back(EtcdText(key));
      }
      status = announcer_.OnAnswer(Answered({{"ID", what["ID"]}, {"TTL", "12"}, {"keys", keys}}));
    } else if (ask.path == "/v3/lease/revoke") {
      std::erase_if(keys_, [this](const auto& one) { return leases_[one.first] == lease_; });
      status = announcer_.OnAnswer(Answered(Json::object()));
    }
    EXPECT_TRUE(status.ok()) << status;
    return ask.path;
  }
  std::vector<std::string> Steps() {
    std::vector<std::string> paths;
    for (std::string path = Step(); !path.empty(); path = Step()) paths.push_back(path);
    return paths;
  }
  void Pass(milliseconds time) { now_ += time; }

  Json Transact(const Json& request) {
    if (!request.contains("compare")) return Run(request["success"]);
    const Json& compare = request["compare"][0];
    const std::string key = FromEtcdText(compare["key"].get<std::string>());
    const auto found = keys_.find(key);
    const bool right = compare["target"] == "CREATE"
                           ? found == keys_.end()
                           : found != keys_.end() && EtcdText(found->second) == compare["value"];
    Json answer = Run(request[right ? "success" : "failure"]);
    if (right) answer["succeeded"] = true;  // the gateway leaves out what is false
    return answer;
  }
  Json Run(const Json& requests) {
    Json responses = Json::array();
    for (const Json& one : requests) {
      if (one.contains("request_txn")) {
        responses.push_back({{"response_txn", Transact(one["request_txn"])}});
      } else if (one.contains("request_put")) {
        const std::string key = FromEtcdText(one["request_put"]["key"].get<std::string>());
        keys_[key] = FromEtcdText(one["request_put"]["value"].get<std::string>());
        leases_[key] = std::stoll(one["request_put"]["lease"].get<std::string>());
        responses.push_back({{"response_put", Json::object()}});
      } else {
        keys_.erase(FromEtcdText(one["request_delete_range"]["key"].get<std::string>()));
        responses.push_back({{"response_delete_range", Json::object()}});
      }
    }
    return {{"responses", responses}};
  }

  std::shared_ptr<Announcements> announcements_ = std::make_shared<Announcements>();
  EtcdAnnouncer::Clock::time_point now_{std::chrono::hours(1)};
  EtcdAnnouncer announcer_{net::EtcdSpec{.endpoints = {"http://a:1", "http://b:2"}, .prefix = "p"},
                           announcements_, [this] { return now_; }};
  std::string told_ = "nothing";
  std::map<std::string, std::string> keys_;
  std::map<std::string, int64_t> leases_;
  int64_t lease_ = 0, last_lease_ = 0;
};

TEST_F(EtcdAnnouncerTest, AsksForNothingUntilThereIsSomethingToAnnounce) {
  EXPECT_THAT(Steps(), IsEmpty());
  announcements_->Want({{"10.88.0.5:80", "192.168.7.1:8080"}});
  EXPECT_THAT(Steps(), ElementsAre("/v3/lease/grant", "/v3/kv/txn"));
  EXPECT_THAT(keys_, ElementsAre(Pair("p/10.88.0.5:80", "192.168.7.1:8080")));
  EXPECT_EQ(leases_["p/10.88.0.5:80"], lease_);
  EXPECT_EQ(told_, "");
}

TEST_F(EtcdAnnouncerTest, FollowsWhatIsWanted) {
  announcements_->Want({{"10.88.0.5:80", "192.168.7.1:8080"}, {"10.88.0.6:80", "192.168.7.1:8081"}});
  Steps();
  announcements_->Want({{"10.88.0.6:80", "192.168.7.1:9000"}, {"10.88.0.7:80", "192.168.7.1:8082"}});
  Steps();
  EXPECT_THAT(keys_, ElementsAre(Pair("p/10.88.0.6:80", "192.168.7.1:9000"),
                                 Pair("p/10.88.0.7:80", "192.168.7.1:8082")));
}

TEST_F(EtcdAnnouncerTest, WritesManyKeysByAFewRequests) {
  Announcements::Keys many;
  for (int i = 0; i < 100; ++i)
    many[absl::StrCat("10.88.0.5:", 1000 + i)] = absl::StrCat("192.168.7.1:", i + 1);
  announcements_->Want(many);
  EXPECT_EQ(Steps().size(), 1u + 4u);
  EXPECT_EQ(keys_.size(), 100u);
  announcements_->Want({});
  EXPECT_EQ(Steps().size(), 4u);
  EXPECT_THAT(keys_, IsEmpty());
}

TEST_F(EtcdAnnouncerTest, KeepsTheLeaseAliveAThirdOfItApart) {
  announcements_->Want({{"10.88.0.5:80", "192.168.7.1:8080"}});
  Steps();
  Pass(EtcdAnnouncer::kKeepEach - milliseconds(1));
  EXPECT_THAT(Steps(), IsEmpty());
  Pass(milliseconds(1));
  EXPECT_THAT(Steps(), ElementsAre("/v3/lease/keepalive"));
  EXPECT_EQ(announcer_.Rest(), EtcdAnnouncer::kKeepEach);
}

TEST_F(EtcdAnnouncerTest, AnnouncesAllAnewWhenTheLeaseIsLost) {
  announcements_->Want({{"10.88.0.5:80", "192.168.7.1:8080"}});
  Steps();
  keys_.clear();
  lease_ = 0;
  Pass(EtcdAnnouncer::kKeepEach);
  EXPECT_THAT(Steps(), ElementsAre("/v3/lease/keepalive", "/v3/lease/grant", "/v3/kv/txn"));
  EXPECT_EQ(keys_.size(), 1u);

  keys_.clear();
  lease_ = 0;
  announcements_->Want({{"10.88.0.6:80", "192.168.7.1:8080"}});
  Step();  // which finds that out
  Steps();
  EXPECT_THAT(keys_, ElementsAre(Pair("p/10.88.0.6:80", "192.168.7.1:8080")));
}

TEST_F(EtcdAnnouncerTest, TakesOverWhatAnEngineBeforeHasWritten) {
  keys_["p/10.88.0.5:80"] = "192.168.7.1:8080";
  leases_["p/10.88.0.5:80"] = 99;
  announcements_->Want({{"10.88.0.5:80", "192.168.7.1:8080"}});
  Steps();
  EXPECT_EQ(leases_["p/10.88.0.5:80"], lease_);
}

TEST_F(EtcdAnnouncerTest, LeavesAKeyToWhoHasItAndTriesAgain) {
  keys_["p/10.88.0.5:80"] = "192.168.7.2:8080";
  announcements_->Want({{"10.88.0.5:80", "192.168.7.1:8080"}, {"10.88.0.6:80", "192.168.7.1:8081"}});
  Steps();
  EXPECT_EQ(keys_["p/10.88.0.5:80"], "192.168.7.2:8080");
  EXPECT_EQ(keys_["p/10.88.0.6:80"], "192.168.7.1:8081");
  EXPECT_THAT(told_, HasSubstr("10.88.0.5:80: somebody else"));
  Pass(EtcdAnnouncer::kKeepEach);
  Steps();
  EXPECT_THAT(told_, HasSubstr("10.88.0.5:80: somebody else"));
  keys_.erase("p/10.88.0.5:80");
  Pass(EtcdAnnouncer::kKeepEach);
  Steps();
  EXPECT_EQ(keys_["p/10.88.0.5:80"], "192.168.7.1:8080");
  EXPECT_EQ(told_, "");
}

TEST_F(EtcdAnnouncerTest, DeletesNoKeyThatHasBecomeSomebodyElses) {
  announcements_->Want({{"10.88.0.5:80", "192.168.7.1:8080"}});
  Steps();
  keys_["p/10.88.0.5:80"] = "192.168.7.2:8080";
  announcements_->Want({});
  Steps();
  EXPECT_EQ(keys_["p/10.88.0.5:80"], "192.168.7.2:8080");
}

TEST_F(EtcdAnnouncerTest, BringsBackWhatSomebodyHasTakenAway) {
  announcements_->Want({{"10.88.0.5:80", "192.168.7.1:8080"}, {"10.88.0.6:80", "192.168.7.1:8081"}});
  Steps();
  keys_.erase("p/10.88.0.6:80");
  for (milliseconds passed{0}; passed < EtcdAnnouncer::kLookEach; passed += EtcdAnnouncer::kKeepEach) {
    Pass(EtcdAnnouncer::kKeepEach);
    Steps();
  }
  EXPECT_EQ(keys_["p/10.88.0.6:80"], "192.168.7.1:8081");
}

TEST_F(EtcdAnnouncerTest, TakesBackWhatMayHaveBeenWrittenWhenNoAnswerHasCome) {
  announcements_->Want({{"10.88.0.5:80", "192.168.7.1:8080"}});
  ASSERT_EQ(Step(), "/v3/lease/grant");
  ASSERT_EQ(announcer_.Rest().count(), 0);
  Transact(Json::parse(announcer_.Next()->post.value()));
  EXPECT_FALSE(announcer_.OnFailure(absl::UnavailableError("Connection reset by peer")).ok());
  announcements_->Want({});
  Steps();
  EXPECT_THAT(keys_, IsEmpty());
}

TEST_F(EtcdAnnouncerTest, GoesOnAtTheNextEndpoint) {
  announcements_->Want({{"10.88.0.5:80", "192.168.7.1:8080"}});
  ASSERT_EQ(announcer_.Rest().count(), 0);
  EXPECT_EQ(announcer_.Next()->origin.url, "http://a:1");
  EXPECT_THAT(std::string(announcer_.OnFailure(absl::UnavailableError("gone")).message()),
              "http://a:1: gone");
  ASSERT_EQ(announcer_.Rest().count(), 0);
  EXPECT_EQ(announcer_.Next()->origin.url, "http://b:2");
  const absl::Status denied =
      announcer_.OnAnswer(Answered({{"error", "etcdserver: permission denied"}, {"code", 7}}, 403));
  EXPECT_THAT(std::string(denied.message()), HasSubstr("grant the user to read and write p/"));
  EXPECT_FALSE(announcer_.OnAnswer(Answered(Json::array())).ok());
  EXPECT_FALSE(announcer_.OnAnswer(Answered(Json::object())).ok()) << "a lease without a name";
}

TEST_F(EtcdAnnouncerTest, RevokesTheLeaseInTheEnd) {
  announcements_->Want({{"10.88.0.5:80", "192.168.7.1:8080"}});
  Steps();
  EXPECT_FALSE(announcements_->AwaitEnd(milliseconds(0)));
  announcements_->End();
  EXPECT_THAT(Steps(), ElementsAre("/v3/lease/revoke"));
  EXPECT_THAT(keys_, IsEmpty());
  EXPECT_TRUE(announcements_->AwaitEnd(milliseconds(0)));
}

Announcements::Keys KeysOf(std::initializer_list<const char*> ports,
                           std::initializer_list<const char*> addresses) {
  std::vector<net::Publish> published;
  std::vector<net::IpAddress> ips;
  for (const char* port : ports) published.push_back(*net::ParsePublish(port));
  for (const char* address : addresses) ips.push_back(*net::IpAddress::Parse(address));
  Announcements::Keys keys;
  AddAnnouncements(published, ips, *net::IpAddress::Parse("192.168.7.1"), keys);
  return keys;
}

TEST(AnnouncementsTest, AreEachPortAtEachAddress) {
  EXPECT_THAT(
      KeysOf({"8080:80", "8443:443"}, {"10.88.0.5", "fd88::5"}),
      ElementsAre(Pair("10.88.0.5:443", "192.168.7.1:8443"), Pair("10.88.0.5:80", "192.168.7.1:8080"),
                  Pair("[fd88::5]:443", "192.168.7.1:8443"), Pair("[fd88::5]:80", "192.168.7.1:8080")));
}

TEST(AnnouncementsTest, NameThePlaceWhereThePortIs) {
  EXPECT_THAT(
      KeysOf({"192.168.9.1:8080:80", "127.0.0.1:8443:443", "0.0.0.0:8081:81", "[::1]:8082:82"},
             {"10.88.0.5"}),
      ElementsAre(Pair("10.88.0.5:80", "192.168.9.1:8080"), Pair("10.88.0.5:81", "192.168.7.1:8081")));
}

}  // namespace
}  // namespace shunt
