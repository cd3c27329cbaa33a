// SPDX-License-Identifier: Apache-2.0
#include "tools/etcd_watcher.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tools/json_reading.h"
#include "tools/service_config.h"

namespace shunt {
namespace {

using Json = nlohmann::json;

// Of gRPC, as the gateway passes them on.
constexpr int64_t kUnauthenticated = 16;

std::string WithSlash(std::string prefix) {
  if (!absl::EndsWith(prefix, "/")) prefix += '/';
  return prefix;
}

// The first key behind all that begin with this, which ends with "/".
std::string EndOf(std::string prefix) {
  prefix.back() = '/' + 1;
  return prefix;
}

std::string InBase64(const std::string& text) {
  return absl::Base64Escape(text);
}

std::string FromBase64(const Json& json, const char* name) {
  std::string text;
  return absl::Base64Unescape(JsonText(json, name), &text) ? text : "";
}

// The gateway writes 64 bits as texts, and leaves out zeros.
int64_t NumberOf(const Json& json, const char* name) {
  int64_t number = 0;
  return absl::SimpleAtoi(JsonText(json, name), &number) ? number : 0;
}

const Json* ListOf(const Json& json, const char* name) {
  return JsonMember(json, name, Json::value_t::array);
}

// In bounds: it is for people, and comes from elsewhere.
std::string Shortened(std::string text) {
  constexpr size_t kLongest = 200;
  if (text.size() > kLongest) text.resize(kLongest);
  return absl::CHexEscape(text);
}

}  // namespace

EtcdWatcher::EtcdWatcher(net::EtcdSpec spec) : spec_(std::move(spec)), prefix_(WithSlash(spec_.prefix)) {
  for (const std::string& endpoint : spec_.endpoints) {
    HttpOrigin& origin = origins_.emplace_back();
    SetUrl(endpoint, PlainHttp::kAllowed, origin).IgnoreError();  // which has been checked
    origin.authority.file = spec_.authority;
    origin.certificate.file = spec_.certificate;
    origin.key.file = spec_.key;
  }
}

std::string EtcdWatcher::Title() const {
  return absl::StrCat("etcd ", prefix_);
}

// ---- what is asked

absl::StatusOr<Watcher::Ask> EtcdWatcher::Next() {
  is_old_ = false;
  if (!spec_.user.empty() && token_.empty()) step_ = Step::kLogIn;
  Ask ask{.origin = origins_[origin_], .authorization = token_};
  Json range = {{"key", InBase64(prefix_)}, {"range_end", InBase64(EndOf(prefix_))}};
  switch (step_) {
    case Step::kLogIn:
      return AskToLogIn();
    case Step::kList:
      ask.path = "/v3/kv/range";
      ask.post = range.dump();
      return ask;
    case Step::kWatch:
      range["start_revision"] = std::to_string(revision_ + 1);
      range["progress_notify"] = true;
      ask.path = "/v3/watch";
      ask.post = Json{{"create_request", range}}.dump();
      ask.streams = true;
      ask.longest = kListAgain;
      return ask;
  }
  return absl::InternalError("no such step");
}

absl::StatusOr<Watcher::Ask> EtcdWatcher::AskToLogIn() const {
  absl::StatusOr<std::string> password = ReadSmallFile(spec_.password_file);
  if (!password.ok()) return password.status();
  absl::StripTrailingAsciiWhitespace(&*password);
  const Json who = {{"name", spec_.user}, {"password", *password}};
  return Ask{.origin = origins_[origin_],
             .path = "/v3/auth/authenticate",
             .post = who.dump(-1, ' ', false, Json::error_handler_t::replace)};
}

// ---- what is answered

absl::Status EtcdWatcher::OnAnswer(const HttpAnswer& answer) {
  if (step_ == Step::kWatch && answer.code == 200) {
    step_ = Step::kList;  // it has lasted long enough, or etcd has ended it
    return absl::OkStatus();
  }
  const Json body = Json::parse(answer.body, nullptr, /*allow_exceptions=*/false);
  if (answer.code != 200) return OnError(answer, body);
  if (!body.is_object()) return Leave(absl::InvalidArgumentError("it answers something else than etcd (v3)"));
  return step_ == Step::kLogIn ? OnLogIn(body) : OnList(body);
}

absl::Status EtcdWatcher::OnFailure(absl::Status why) {
  if (is_old_) {
    step_ = Step::kList;
    return absl::OkStatus();
  }
  return Leave(why);
}

absl::Status EtcdWatcher::OnError(const HttpAnswer& answer, const Json& body) {
  const std::string text = Shortened(JsonText(body, "error"));
  const auto code = body.is_object() ? body.find("code") : body.end();
  const bool unknown = code != body.end() && code->is_number_integer() && *code == kUnauthenticated;
  token_.clear();
  // Tokens age, and are forgotten with the member that gave them: another one, and at once.
  if (std::exchange(token_works_, false) && (unknown || answer.code == 401)) return absl::OkStatus();
  return Leave(absl::UnavailableError(absl::StrCat(
      "it answers ", answer.code, text.empty() ? "" : ": ", text,
      absl::StrContains(text, "user name is empty") ? "; give user and password-file" : "",
      absl::StrContains(text, "permission denied")
          ? absl::StrCat("; grant the user to read ", prefix_, " (etcdctl role grant-permission)")
          : "")));
}

absl::Status EtcdWatcher::Leave(const absl::Status& why) {
  const std::string& url = origins_[origin_].url;
  origin_ = (origin_ + 1) % origins_.size();
  return absl::Status(why.code(), absl::StrCat(url, ": ", why.message()));
}

absl::Status EtcdWatcher::OnLogIn(const Json& answer) {
  token_ = JsonText(answer, "token");
  if (token_.empty() || !std::ranges::all_of(token_, absl::ascii_isgraph)) {
    token_.clear();
    return Leave(absl::InvalidArgumentError("it gives no token for the user and the password"));
  }
  step_ = revision_ == 0 ? Step::kList : Step::kWatch;
  return absl::OkStatus();
}

absl::Status EtcdWatcher::OnList(const Json& answer) {
  const Json* const header = JsonMember(answer, "header", Json::value_t::object);
  const int64_t revision = header == nullptr ? 0 : NumberOf(*header, "revision");
  if (revision <= 0) return Leave(absl::InvalidArgumentError("it answers something else than etcd (v3)"));
  const auto before = std::exchange(backends_, {});
  wrong_.clear();
  const Json* const pairs = ListOf(answer, "kvs");
  if (pairs != nullptr && pairs->size() > kMostBackends) {
    backends_ = before;
    return Leave(absl::OutOfRangeError(
        absl::StrCat("there are ", pairs->size(), " keys; at most ", kMostBackends, " are taken")));
  }
  for (const Json& pair : pairs == nullptr ? Json::array() : *pairs) {
    const std::string key = FromBase64(pair, "key");
    if (const auto old = before.find(key); old != before.end()) backends_[key] = old->second;
    Put(key, FromBase64(pair, "value"));
  }
  revision_ = revision;
  step_ = Step::kWatch;
  token_works_ = true;
  Tell();
  return absl::OkStatus();
}

absl::Status EtcdWatcher::OnLine(absl::string_view line) {
  const Json message = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (const Json* const result = JsonMember(message, "result", Json::value_t::object))
    return OnEvents(*result);
  const Json* const error = JsonMember(message, "error", Json::value_t::object);
  if (error == nullptr) return absl::InvalidArgumentError("it says something else than etcd (v3)");
  token_.clear();  // which may be the reason
  return absl::UnavailableError(absl::StrCat("it says: ", Shortened(JsonText(*error, "message"))));
}

absl::Status EtcdWatcher::OnEvents(const Json& result) {
  if (result.value("canceled", Json()) == true) {
    is_old_ = NumberOf(result, "compact_revision") > 0;
    token_.clear();
    const std::string why = Shortened(JsonText(result, "cancel_reason"));
    return absl::UnavailableError(absl::StrCat("it has ended the watch", why.empty() ? "" : ": ", why));
  }
  const Json* const events = ListOf(result, "events");
  const Json* const header = JsonMember(result, "header", Json::value_t::object);
  const int64_t revision = header == nullptr ? 0 : NumberOf(*header, "revision");
  if (events == nullptr) {
    // A sign of life, which says that all until then has been told; or the answer to the request, which comes
    // before what has happened meanwhile. From then on etcd answers again, if it had not.
    if (result.value("created", Json()) == true) {
      Tell();
    } else {
      revision_ = std::max(revision_, revision);
    }
    return absl::OkStatus();
  }
  for (const Json& event : *events) {
    const Json* const pair = JsonMember(event, "kv", Json::value_t::object);
    if (pair == nullptr) return absl::InvalidArgumentError("it tells of an event without a key");
    const std::string key = FromBase64(*pair, "key");
    if (JsonText(event, "type") == "DELETE") {
      backends_.erase(key);
      wrong_.erase(key);
    } else {
      Put(key, FromBase64(*pair, "value"));
    }
    revision_ = std::max(revision_, NumberOf(*pair, "mod_revision"));
  }
  Tell();
  return absl::OkStatus();
}

void EtcdWatcher::Put(const std::string& key, const std::string& value) {
  absl::StatusOr<net::BackendSpec> backend = ParseBackend(value, Shortened(key));
  if (backend.ok()) {
    backends_[key] = *std::move(backend);
    wrong_.erase(key);
  } else if (backends_.size() + wrong_.size() <= kMostBackends) {
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
