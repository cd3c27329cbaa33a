// SPDX-License-Identifier: Apache-2.0
// EtcdSession: which member of etcd (v3) is asked by its JSON gateway, as whom, and what its errors mean.
//
// Of several endpoints one is asked, and after a failure the next one. Who has a password asks for a token
// with it first; tokens age, and are forgotten with the member that gave them.

#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "net/balancer/discover_spec.h"
#include "tools/watcher.h"

namespace shunt {

class EtcdSession {
 public:
  // With endpoints, which the configuration's reader has checked.
  explicit EtcdSession(net::EtcdSpec spec);

  // With "/" at its end.
  const std::string& prefix() const { return prefix_; }

  bool MustLogIn() const { return !spec_.user.empty() && token_.empty(); }
  absl::StatusOr<Watcher::Ask> AskToLogIn() const;
  absl::Status OnLogIn(const nlohmann::json& answer);
  Watcher::Ask AskFor(std::string path, const nlohmann::json& what) const;

  // It has answered as asked.
  void Works() { token_works_ = true; }
  // It has answered with an error. OK: only that the token is too old. `right`: which one may be missing,
  // "read".
  absl::Status OnError(const HttpAnswer& answer, const nlohmann::json& body, absl::string_view right);
  // The token may be what it did not like.
  void ForgetToken() { token_.clear(); }
  // An answer that is none, or a failure: another endpoint is next.
  absl::Status Leave(const absl::Status& why);

 private:
  const net::EtcdSpec spec_;
  const std::string prefix_;
  std::vector<HttpOrigin> origins_;
  size_t origin_ = 0;  // which one is asked
  std::string token_;  // of whom etcd takes us for; empty: none yet, or nobody asks
  bool token_works_ = false;
};

// How the gateway writes bytes, and 64 bits: as texts. What is not there, or is none, is empty, or 0.
std::string EtcdText(const std::string& text);
std::string FromEtcdText(absl::string_view text);
std::string EtcdTextIn(const nlohmann::json& json, const char* name);
int64_t EtcdNumberIn(const nlohmann::json& json, const char* name);
// The first key behind all that begin with this, which ends with "/".
std::string EtcdEndOf(std::string prefix);
// In bounds: it is for people, and comes from elsewhere.
std::string EtcdShown(std::string text);
absl::Status NotFromEtcd();

}  // namespace shunt
