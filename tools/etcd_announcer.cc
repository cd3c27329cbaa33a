// SPDX-License-Identifier: Apache-2.0
#include "tools/etcd_announcer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "tools/json_reading.h"

namespace shunt {
namespace {

using Json = nlohmann::json;
using std::chrono::milliseconds;

constexpr int64_t kNotFound = 5;  // of gRPC, as the gateway passes it on

bool LeaseIsGone(const Json& body) {
  const auto code = body.is_object() ? body.find("code") : body.end();
  return code != body.end() && code->is_number_integer() && *code == kNotFound;
}

bool IsTrue(const Json& json, const char* name) {
  const Json* const value = JsonMember(json, name, Json::value_t::boolean);
  return value != nullptr && value->get<bool>();
}

// What the operation at this place of a transaction has come to; null: nothing is said.
Json TransactionAt(const Json& transaction, size_t place) {
  const Json* const responses = JsonMember(transaction, "responses", Json::value_t::array);
  if (responses == nullptr || place >= responses->size()) return {};
  const Json* const one = JsonMember((*responses)[place], "response_txn", Json::value_t::object);
  return one == nullptr ? Json() : *one;
}

}  // namespace

EtcdAnnouncer::EtcdAnnouncer(net::EtcdSpec spec, std::shared_ptr<Announcements> announcements,
                             std::function<Clock::time_point()> now)
    : session_(std::move(spec)),
      announcements_(std::move(announcements)),
      now_(std::move(now)),
      wanted_(std::make_shared<const Announcements::Keys>()) {}

std::string EtcdAnnouncer::Title() const {
  return absl::StrCat("etcd ", session_.prefix());
}

// ---- what is asked

EtcdAnnouncer::Step EtcdAnnouncer::Due() {
  const Announcements::Wish wish = announcements_->Now();
  if (wish.end) {
    if (lease_ != 0) return Step::kRevoke;
    announcements_->Ended();
    return Step::kRest;
  }
  if (wish.keys != wanted_) {
    wanted_ = wish.keys;
    changed_ = true;
  }
  if (lease_ == 0) return wanted_->empty() ? Step::kRest : Step::kGrant;
  if (now_() >= keep_due_) return Step::kKeep;
  if (now_() >= look_due_) return Step::kLook;
  if (changed_) Plan();
  return writes_.empty() ? Step::kRest : Step::kWrite;
}

milliseconds EtcdAnnouncer::Rest() {
  due_ = Due();
  if (due_ != Step::kRest) return milliseconds(0);
  if (lease_ == 0) return std::chrono::hours(1);
  const Clock::time_point due = std::min(keep_due_, look_due_);
  return std::max(milliseconds(1), std::chrono::ceil<milliseconds>(due - now_()));
}

absl::StatusOr<Watcher::Ask> EtcdAnnouncer::Next() {
  step_ = std::exchange(due_, Step::kRest);
  if (session_.MustLogIn()) step_ = Step::kLogIn;
  const std::string lease = std::to_string(lease_);
  switch (step_) {
    case Step::kLogIn:
      return session_.AskToLogIn();
    case Step::kGrant:
      return session_.AskFor("/v3/lease/grant", {{"TTL", std::to_string(kLease.count())}});
    case Step::kKeep:
      return session_.AskFor("/v3/lease/keepalive", {{"ID", lease}});
    case Step::kLook:
      return session_.AskFor("/v3/lease/timetolive", {{"ID", lease}, {"keys", true}});
    case Step::kRevoke:
      return session_.AskFor("/v3/lease/revoke", {{"ID", lease}});
    case Step::kWrite: {
      Json all = Json::array();
      for (const Write& write : writes_) all.push_back({{"request_txn", ForEtcd(write)}});
      return session_.AskFor("/v3/kv/txn", {{"success", all}});
    }
    case Step::kRest:
      break;
  }
  return absl::InternalError("there is nothing to ask");
}

// What is to go comes first: a key whose value changes is deleted, and written by the next plan.
void EtcdAnnouncer::Plan() {
  writes_.clear();
  std::erase_if(refused_, [this](const std::string& key) { return !wanted_->contains(key); });
  for (const auto& [key, value] : held_) {
    if (writes_.size() == kMostTogether) return;
    const auto wanted = wanted_->find(key);
    if (wanted == wanted_->end() || wanted->second != value)
      writes_.push_back({.deletes = true, .key = key, .value = value});
  }
  if (!writes_.empty()) return;
  for (const auto& [key, value] : *wanted_) {
    if (writes_.size() == kMostTogether) return;
    if (!held_.contains(key) && (!refused_.contains(key) || untried_.contains(key)))
      writes_.push_back({.key = key, .value = value});
  }
  changed_ = !writes_.empty();
}

Json EtcdAnnouncer::ForEtcd(const Write& write) const {
  const std::string key = EtcdText(session_.prefix() + write.key);
  const Json is_ours = {
      {{"key", key}, {"target", "VALUE"}, {"result", "EQUAL"}, {"value", EtcdText(write.value)}}};
  if (write.deletes) {
    return {{"compare", is_ours},
            {"success", Json::array({{{"request_delete_range", {{"key", key}}}}})},
            {"failure", Json::array()}};
  }
  const Json put =
      Json::array({{{"request_put",
                     {{"key", key}, {"value", EtcdText(write.value)}, {"lease", std::to_string(lease_)}}}}});
  const Json is_free = {{{"key", key}, {"target", "CREATE"}, {"result", "EQUAL"}, {"create_revision", "0"}}};
  const Json if_ours = {{"compare", is_ours}, {"success", put}, {"failure", Json::array()}};
  return {{"compare", is_free}, {"success", put}, {"failure", Json::array({{{"request_txn", if_ours}}})}};
}

// ---- what is answered

absl::Status EtcdAnnouncer::OnLine(absl::string_view /*line*/) {
  return absl::InternalError("nothing was asked that is answered in lines");
}

absl::Status EtcdAnnouncer::OnAnswer(const HttpAnswer& answer) {
  const Json body = JsonFrom(answer.body);
  if (answer.code != 200) {
    if (step_ != Step::kLogIn && step_ != Step::kGrant && LeaseIsGone(body)) {
      LoseLease();
      return absl::OkStatus();
    }
    return session_.OnError(answer, body, "read and write");
  }
  if (!body.is_object()) return session_.Leave(NotFromEtcd());
  if (step_ != Step::kLogIn) session_.Works();
  switch (step_) {
    case Step::kLogIn:
      return session_.OnLogIn(body);
    case Step::kGrant:
      return OnGrant(body);
    case Step::kKeep:
      return OnKeep(body);
    case Step::kLook:
      return OnLook(body);
    case Step::kWrite:
      return OnWrite(body);
    case Step::kRevoke:
      LoseLease();
      return absl::OkStatus();
    case Step::kRest:
      break;
  }
  return absl::InternalError("nothing was asked");
}

absl::Status EtcdAnnouncer::OnFailure(absl::Status why) {
  // Nobody knows what has become of it: it counts as written until it was looked at.
  if (step_ == Step::kWrite) {
    for (const Write& write : writes_) {
      if (!write.deletes) held_[write.key] = write.value;
    }
    changed_ = true;
    look_due_ = now_();
  }
  return session_.Leave(why);
}

absl::Status EtcdAnnouncer::OnGrant(const Json& answer) {
  lease_ = EtcdNumberIn(answer, "ID");
  if (lease_ == 0) return session_.Leave(NotFromEtcd());
  keep_due_ = now_() + kKeepEach;
  look_due_ = now_() + kLookEach;
  changed_ = true;
  return absl::OkStatus();
}

absl::Status EtcdAnnouncer::OnKeep(const Json& answer) {
  const Json* const result = JsonMember(answer, "result", Json::value_t::object);
  if (result == nullptr) return session_.Leave(NotFromEtcd());
  if (EtcdNumberIn(*result, "TTL") <= 0) {
    LoseLease();
    return absl::OkStatus();
  }
  keep_due_ = now_() + kKeepEach;
  untried_ = refused_;
  changed_ = changed_ || !untried_.empty();
  Tell();
  return absl::OkStatus();
}

absl::Status EtcdAnnouncer::OnLook(const Json& answer) {
  if (EtcdNumberIn(answer, "TTL") <= 0) {
    LoseLease();
    return absl::OkStatus();
  }
  look_due_ = now_() + kLookEach;
  std::set<std::string> there;
  const Json* const keys = JsonMember(answer, "keys", Json::value_t::array);
  for (const Json& one : keys == nullptr ? Json::array() : *keys) {
    if (one.is_string()) there.insert(FromEtcdText(one.get<std::string>()));
  }
  std::erase_if(held_, [&](const auto& key) { return !there.contains(session_.prefix() + key.first); });
  changed_ = true;
  return absl::OkStatus();
}

absl::Status EtcdAnnouncer::OnWrite(const Json& answer) {
  for (size_t i = 0; i < writes_.size(); ++i) {
    const Write& write = writes_[i];
    const Json result = TransactionAt(answer, i);
    untried_.erase(write.key);
    if (write.deletes) {
      held_.erase(write.key);  // or it was somebody else's
    } else if (IsTrue(result, "succeeded") || IsTrue(TransactionAt(result, 0), "succeeded")) {
      held_[write.key] = write.value;
      refused_.erase(write.key);
    } else {
      refused_.insert(write.key);
    }
  }
  writes_.clear();
  changed_ = true;
  Tell();
  return absl::OkStatus();
}

void EtcdAnnouncer::LoseLease() {
  lease_ = 0;
  held_.clear();
  refused_.clear();
  writes_.clear();
  changed_ = true;
}

void EtcdAnnouncer::Tell() {
  absl::Status missing;
  if (!refused_.empty()) {
    missing = absl::AlreadyExistsError(absl::StrCat(
        *refused_.begin(), refused_.size() == 1 ? "" : absl::StrCat(" and ", refused_.size() - 1, " more"),
        ": somebody else has announced the same address; containers of all machines should have their own"));
  }
  Found({}, std::move(missing));
}

}  // namespace shunt
