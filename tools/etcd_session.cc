// SPDX-License-Identifier: Apache-2.0
#include "tools/etcd_session.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tools/json_reading.h"

namespace shunt {
namespace {

using Json = nlohmann::json;

// Of gRPC, as the gateway passes them on.
constexpr int64_t kUnauthenticated = 16;

std::string WithSlash(std::string prefix) {
  if (!absl::EndsWith(prefix, "/")) prefix += '/';
  return prefix;
}

}  // namespace

EtcdSession::EtcdSession(net::EtcdSpec spec) : spec_(std::move(spec)), prefix_(WithSlash(spec_.prefix)) {
  for (const std::string& endpoint : spec_.endpoints) {
    HttpOrigin& origin = origins_.emplace_back();
    SetUrl(endpoint, PlainHttp::kAllowed, origin).IgnoreError();  // which has been checked
    origin.authority.file = spec_.authority;
    origin.certificate.file = spec_.certificate;
    origin.key.file = spec_.key;
  }
}

absl::StatusOr<Watcher::Ask> EtcdSession::AskToLogIn() const {
  absl::StatusOr<std::string> password = ReadSmallFile(spec_.password_file);
  if (!password.ok()) return password.status();
  absl::StripTrailingAsciiWhitespace(&*password);
  const Json who = {{"name", spec_.user}, {"password", *password}};
  return Watcher::Ask{.origin = origins_[origin_],
                      .path = "/v3/auth/authenticate",
                      .post = who.dump(-1, ' ', false, Json::error_handler_t::replace)};
}

absl::Status EtcdSession::OnLogIn(const Json& answer) {
  token_ = JsonText(answer, "token");
  if (token_.empty() || !std::ranges::all_of(token_, absl::ascii_isgraph)) {
    token_.clear();
    return Leave(absl::InvalidArgumentError("it gives no token for the user and the password"));
  }
  return absl::OkStatus();
}

Watcher::Ask EtcdSession::AskFor(std::string path, const Json& what) const {
  return {.origin = origins_[origin_],
          .path = std::move(path),
          .post = what.dump(-1, ' ', false, Json::error_handler_t::replace),
          .authorization = token_};
}

absl::Status EtcdSession::OnError(const HttpAnswer& answer, const Json& body, absl::string_view right) {
  const std::string text = EtcdShown(JsonText(body, "error"));
  const auto code = body.is_object() ? body.find("code") : body.end();
  const bool unknown = code != body.end() && code->is_number_integer() && *code == kUnauthenticated;
  token_.clear();
  // Another one, and at once.
  if (std::exchange(token_works_, false) && (unknown || answer.code == 401)) return absl::OkStatus();
  return Leave(absl::UnavailableError(absl::StrCat(
      "it answers ", answer.code, text.empty() ? "" : ": ", text,
      absl::StrContains(text, "user name is empty") ? "; give user and password-file" : "",
      absl::StrContains(text, "permission denied")
          ? absl::StrCat("; grant the user to ", right, " ", prefix_, " (etcdctl role grant-permission)")
          : "")));
}

absl::Status EtcdSession::Leave(const absl::Status& why) {
  const std::string& url = origins_[origin_].url;
  origin_ = (origin_ + 1) % origins_.size();
  return absl::Status(why.code(), absl::StrCat(url, ": ", why.message()));
}

std::string EtcdText(const std::string& text) {
  return absl::Base64Escape(text);
}

std::string FromEtcdText(absl::string_view text) {
  std::string bytes;
  return absl::Base64Unescape(text, &bytes) ? bytes : "";
}

std::string EtcdTextIn(const Json& json, const char* name) {
  return FromEtcdText(JsonText(json, name));
}

// It leaves out zeros.
int64_t EtcdNumberIn(const Json& json, const char* name) {
  int64_t number = 0;
  return absl::SimpleAtoi(JsonText(json, name), &number) ? number : 0;
}

std::string EtcdEndOf(std::string prefix) {
  prefix.back() = '/' + 1;
  return prefix;
}

std::string EtcdShown(std::string text) {
  constexpr size_t kLongest = 200;
  if (text.size() > kLongest) text.resize(kLongest);
  return absl::CHexEscape(text);
}

absl::Status NotFromEtcd() {
  return absl::InvalidArgumentError("it answers something else than etcd (v3)");
}

}  // namespace shunt
