// SPDX-License-Identifier: Apache-2.0
// EtcdAnnouncer: writes to etcd (v3) where ports of this machine's containers are, below a prefix.
//
// All keys are under one lease, which is kept alive as long as we are: who dies leaves nothing behind for
// longer than kLease. A key is written where there is none, or where the value is the very same: that of an
// engine before us, whose lease runs out, or of ourselves. So of two who want one key the first has it, and
// the other one tries again with each kKeepEach. It is deleted only with our value. What is under the lease
// is looked at again each kLookEach: keys that somebody has taken away come back.

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "tools/announcements.h"
#include "tools/etcd_session.h"
#include "tools/watcher.h"

namespace shunt {

class EtcdAnnouncer : public Watcher {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::seconds kLease{15};
  static constexpr std::chrono::milliseconds kKeepEach{5'000}, kLookEach{15'000};
  static constexpr size_t kMostTogether = 32;  // keys in one request; etcd takes 128 operations

  EtcdAnnouncer(net::EtcdSpec spec, std::shared_ptr<Announcements> announcements,
                std::function<Clock::time_point()> now = Clock::now);

  std::string Title() const override;
  // Finds an empty list whenever all is as it should be.
  std::chrono::milliseconds Rest() override;
  absl::StatusOr<Ask> Next() override;
  absl::Status OnLine(absl::string_view line) override;
  absl::Status OnAnswer(const HttpAnswer& answer) override;
  absl::Status OnFailure(absl::Status why) override;

 private:
  enum class Step { kRest, kLogIn, kGrant, kKeep, kLook, kWrite, kRevoke };
  struct Write {
    bool deletes = false;
    std::string key, value;
  };

  Step Due();
  void Plan();
  nlohmann::json ForEtcd(const Write& write) const;
  absl::Status OnGrant(const nlohmann::json& answer);
  absl::Status OnKeep(const nlohmann::json& answer);
  absl::Status OnLook(const nlohmann::json& answer);
  absl::Status OnWrite(const nlohmann::json& answer);
  void LoseLease();
  void Tell();

  EtcdSession session_;
  const std::shared_ptr<Announcements> announcements_;
  const std::function<Clock::time_point()> now_;
  Step due_ = Step::kRest;   // as Rest() has found it
  Step step_ = Step::kRest;  // what is asked for
  int64_t lease_ = 0;        // 0: none
  Clock::time_point keep_due_, look_due_;
  std::shared_ptr<const Announcements::Keys> wanted_;
  Announcements::Keys held_;       // under the lease
  std::set<std::string> refused_;  // somebody else has them
  std::set<std::string> untried_;  // those of them that are to be tried again
  bool changed_ = false;           // there may be something to write
  std::vector<Write> writes_;      // the next ones, or those under way
};

}  // namespace shunt
