// SPDX-License-Identifier: Apache-2.0
// EtcdWatcher: backends that etcd (v3) keeps, each as a key below a prefix. What a key and its value mean, a
// reader says: as a rule, that of a service's backends.
//
//   /services/orders/a    192.168.7.11:8080
//   /services/orders/b    {address: 192.168.7.12:8080, weight: 3, zone: a}
//
// What a value may be is what an item of a list of backends may be (docs/services.md), as YAML or JSON. The
// order is that of the keys. A value that is none leaves in force what the key had before, and is told.
//
// By etcd's JSON gateway: all keys as of a revision, in pages, then what has changed since. All keys are read
// again every kListAgain, by a read that takes a majority: that is how one hears of a member that has lost
// the others, and of anything else that a stream which says nothing hides; and after every failure, from
// another endpoint (tools/etcd_session.h).

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "tools/etcd_session.h"
#include "tools/watcher.h"

namespace shunt {

class EtcdWatcher : public Watcher {
 public:
  static constexpr std::chrono::milliseconds kListAgain{60'000};
  static constexpr size_t kLongestValue = 4096;
  static constexpr size_t kPage = 1000;  // keys

  // Of `key`, which is what stands behind the prefix. The error names `full_key`, which is fit to be shown.
  using ReadKey = std::function<absl::StatusOr<net::BackendSpec>(
      absl::string_view key, const std::string& value, const std::string& full_key)>;

  // With endpoints, which the configuration's reader has checked. `most`: how many keys are taken.
  explicit EtcdWatcher(net::EtcdSpec spec);
  EtcdWatcher(net::EtcdSpec spec, ReadKey read, size_t most);

  std::string Title() const override;
  absl::StatusOr<Ask> Next() override;
  absl::Status OnLine(absl::string_view line) override;
  absl::Status OnAnswer(const HttpAnswer& answer) override;
  absl::Status OnFailure(absl::Status why) override;

 private:
  enum class Step { kLogIn, kList, kWatch };

  absl::Status OnLogIn(const nlohmann::json& answer);
  absl::Status OnPage(const nlohmann::json& answer);
  void OnWholeList();
  absl::Status OnEvents(const nlohmann::json& result);
  void Put(const std::string& key, const std::string& value);
  void Tell();

  EtcdSession session_;
  const ReadKey read_;
  const size_t most_;
  Step step_ = Step::kList;
  // The pages so far: keys and values in order. All are as of the first one's revision, 0: there is none yet.
  struct List {
    int64_t revision = 0;
    std::vector<std::pair<std::string, std::string>> pairs;
  };
  List list_;
  int64_t revision_ = 0;                              // all until then is known
  bool is_old_ = false;                               // etcd has forgotten what has happened since
  std::map<std::string, net::BackendSpec> backends_;  // by key
  std::map<std::string, absl::Status> wrong_;         // values that are no backends, by key
};

}  // namespace shunt
