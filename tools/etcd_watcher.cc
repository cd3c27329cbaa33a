// SPDX-License-Identifier: Apache-2.0
#include "tools/etcd_watcher.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "tools/json_reading.h"
#include "tools/service_config.h"

namespace shunt {
namespace {

using Json = nlohmann::json;

const Json* ListOf(const Json& json, const char* name) {
  return JsonMember(json, name, Json::value_t::array);
}

}  // namespace

EtcdWatcher::EtcdWatcher(net::EtcdSpec spec)
    : EtcdWatcher(
          std::move(spec),
          [](absl::string_view, const std::string& value, const std::string& full_key) {
            return ParseBackend(value, full_key);
          },
          kMostBackends) {}

EtcdWatcher::EtcdWatcher(net::EtcdSpec spec, ReadKey read, size_t most)
    : session_(std::move(spec)), read_(std::move(read)), most_(most) {}

std::string EtcdWatcher::Title() const {
  return absl::StrCat("etcd ", session_.prefix());
}

// ---- what is asked

absl::StatusOr<Watcher::Ask> EtcdWatcher::Next() {
  is_old_ = false;
  if (session_.MustLogIn()) step_ = Step::kLogIn;
  const std::string& prefix = session_.prefix();
  Json range = {{"key", EtcdText(prefix)}, {"range_end", EtcdText(EtcdEndOf(prefix))}};
  switch (step_) {
    case Step::kLogIn:
      return session_.AskToLogIn();
    case Step::kList:
      range["limit"] = std::to_string(kPage);
      if (list_.revision > 0) {
        range["key"] = EtcdText(list_.pairs.back().first + '\0');  // the next key that there can be
        range["revision"] = std::to_string(list_.revision);
      }
      return session_.AskFor("/v3/kv/range", range);
    case Step::kWatch: {
      range["start_revision"] = std::to_string(revision_ + 1);
      range["progress_notify"] = true;
      Ask ask = session_.AskFor("/v3/watch", {{"create_request", range}});
      ask.streams = true;
      ask.longest = kListAgain;
      return ask;
    }
  }
  return absl::InternalError("no such step");
}

// ---- what is answered

absl::Status EtcdWatcher::OnAnswer(const HttpAnswer& answer) {
  if (step_ == Step::kWatch && answer.code == 200) {
    step_ = Step::kList;  // it has lasted long enough, or etcd has ended it
    return absl::OkStatus();
  }
  const Json body = JsonFrom(answer.body);
  absl::Status status;
  if (answer.code != 200) {
    status = session_.OnError(answer, body, "read");
  } else if (!body.is_object()) {
    status = session_.Leave(NotFromEtcd());
  } else {
    status = step_ == Step::kLogIn ? OnLogIn(body) : OnPage(body);
  }
  // The next one may be another etcd's, or of a revision that is forgotten.
  if (answer.code != 200 || !status.ok()) list_ = {};
  return status;
}

// What was missed meanwhile, and whether it is the same etcd, a list tells.
absl::Status EtcdWatcher::OnFailure(absl::Status why) {
  step_ = Step::kList;
  list_ = {};
  return std::exchange(is_old_, false) ? absl::OkStatus() : session_.Leave(why);
}

absl::Status EtcdWatcher::OnLogIn(const Json& answer) {
  if (absl::Status status = session_.OnLogIn(answer); !status.ok()) return status;
  step_ = Step::kList;
  return absl::OkStatus();
}

absl::Status EtcdWatcher::OnPage(const Json& answer) {
  const Json* const header = JsonMember(answer, "header", Json::value_t::object);
  const int64_t revision = header == nullptr ? 0 : EtcdNumberIn(*header, "revision");
  if (revision <= 0) return session_.Leave(NotFromEtcd());
  if (list_.revision == 0) list_.revision = revision;
  const Json* const pairs = ListOf(answer, "kvs");
  for (const Json& pair : pairs == nullptr ? Json::array() : *pairs) {
    std::string value = EtcdTextIn(pair, "value");
    // Of one that is too long, enough to tell.
    list_.pairs.emplace_back(EtcdTextIn(pair, "key"), value.substr(0, kLongestValue + 1));
  }
  const int64_t count = std::max(static_cast<int64_t>(list_.pairs.size()), EtcdNumberIn(answer, "count"));
  if (count > static_cast<int64_t>(most_)) {
    return session_.Leave(
        absl::OutOfRangeError(absl::StrCat("there are ", count, " keys; at most ", most_, " are taken")));
  }
  if (answer.value("more", Json()) == true && pairs != nullptr && !pairs->empty()) return absl::OkStatus();
  OnWholeList();
  return absl::OkStatus();
}

void EtcdWatcher::OnWholeList() {
  const List list = std::exchange(list_, {});
  const auto before = std::exchange(backends_, {});
  wrong_.clear();
  for (const auto& [key, value] : list.pairs) {
    if (const auto old = before.find(key); old != before.end()) backends_[key] = old->second;
    Put(key, value);
  }
  revision_ = list.revision;
  step_ = Step::kWatch;
  session_.Works();
  Tell();
}

absl::Status EtcdWatcher::OnLine(absl::string_view line) {
  const Json message = JsonFrom({line.data(), line.size()});
  if (const Json* const result = JsonMember(message, "result", Json::value_t::object))
    return OnEvents(*result);
  const Json* const error = JsonMember(message, "error", Json::value_t::object);
  if (error == nullptr) return absl::InvalidArgumentError("it says something else than etcd (v3)");
  session_.ForgetToken();  // which may be the reason
  return absl::UnavailableError(absl::StrCat("it says: ", EtcdShown(JsonText(*error, "message"))));
}

absl::Status EtcdWatcher::OnEvents(const Json& result) {
  if (result.value("canceled", Json()) == true) {
    is_old_ = EtcdNumberIn(result, "compact_revision") > 0;
    if (!is_old_) session_.ForgetToken();  // which may be the reason
    const std::string why = EtcdShown(JsonText(result, "cancel_reason"));
    return absl::UnavailableError(absl::StrCat("it has ended the watch", why.empty() ? "" : ": ", why));
  }
  const Json* const events = ListOf(result, "events");
  const Json* const header = JsonMember(result, "header", Json::value_t::object);
  const int64_t revision = header == nullptr ? 0 : EtcdNumberIn(*header, "revision");
  if (events == nullptr) {
    // The answer to the request, which comes before what has happened meanwhile; or a sign of life, which
    // says that all until then has been told.
    if (result.value("created", Json()) != true) revision_ = std::max(revision_, revision);
    return absl::OkStatus();
  }
  for (const Json& event : *events) {
    const Json* const pair = JsonMember(event, "kv", Json::value_t::object);
    if (pair == nullptr) return absl::InvalidArgumentError("it tells of an event without a key");
    const std::string key = EtcdTextIn(*pair, "key");
    if (JsonText(event, "type") == "DELETE") {
      backends_.erase(key);
      wrong_.erase(key);
    } else {
      Put(key, EtcdTextIn(*pair, "value"));
    }
    revision_ = std::max(revision_, EtcdNumberIn(*pair, "mod_revision"));
  }
  Tell();
  return absl::OkStatus();
}

void EtcdWatcher::Put(const std::string& key, const std::string& value) {
  absl::string_view name = key;
  absl::ConsumePrefix(&name, session_.prefix());
  absl::StatusOr<net::BackendSpec> backend =
      value.size() <= kLongestValue
          ? read_(name, value, EtcdShown(key))
          : absl::InvalidArgumentError(
                absl::StrCat(EtcdShown(key), ": more than ", kLongestValue, " bytes are no backend"));
  if (backend.ok() && backends_.size() >= most_ && !backends_.contains(key))
    backend = absl::OutOfRangeError(absl::StrCat("there are more than ", most_, " keys: ", EtcdShown(key)));
  if (backend.ok()) {
    backends_[key] = *std::move(backend);
    wrong_.erase(key);
  } else if (backends_.size() + wrong_.size() <= most_) {
    wrong_[key] = backend.status();
  }
}

void EtcdWatcher::Tell() {
  std::vector<net::BackendSpec> backends;
  backends.reserve(backends_.size());
  for (const auto& [key, backend] : backends_) backends.push_back(backend);
  absl::Status missing;
  if (!wrong_.empty()) {
    const absl::Status& first = wrong_.begin()->second;
    missing = absl::Status(
        first.code(),
        absl::StrCat(first.message(),
                     wrong_.size() == 1 ? "" : absl::StrCat("; and ", wrong_.size() - 1, " more such keys")));
  }
  Found(std::move(backends), std::move(missing));
}

}  // namespace shunt
