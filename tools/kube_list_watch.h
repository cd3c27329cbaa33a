// SPDX-License-Identifier: Apache-2.0
// KubeListWatch: objects of an API server of Kubernetes, as they are and as they become.
//
// A list, in pages, and then what has changed since (watch), from the resourceVersion on that was heard last,
// after failures as well. Only when the server has forgotten what was then (410) there is another list, and
// nobody hears of that.
//
// What is found follows from the objects; that is the business of who derives from this.

#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "tools/kube_reading.h"
#include "tools/watcher.h"

namespace shunt {

class KubeListWatch : public Watcher {
 public:
  // The server ends a watch after that, and another one begins.
  static constexpr std::chrono::seconds kWatch{300};

  absl::StatusOr<Ask> Next() override;
  void OnStream() override { OnRight(); }
  absl::Status OnLine(absl::string_view line) override;
  absl::Status OnAnswer(const HttpAnswer& answer) override;
  absl::Status OnFailure(absl::Status why) override;

 protected:
  using Names = absl::flat_hash_set<std::string>;

  struct Objects {
    KubeKind kind;
    std::string space;     // the namespace; empty: all
    std::string selector;  // of labels, as a query has it; empty: all objects
    std::string since;     // help if the server does not know the kind
    int page = 0;          // so many at a time
    size_t most = 0;       // of a server that says it has more, the list is not believed
  };
  // `kubeconfig` as in net::KubernetesSpec; `beside` is the key that it would stand beside.
  KubeListWatch(Objects objects, std::string kubeconfig, std::string beside)
      : objects_(std::move(objects)), kubeconfig_(std::move(kubeconfig)), beside_(std::move(beside)) {}

 private:
  // A list begins, from the beginning: what was said of one that has not ended does not count.
  virtual void OnListBegins() = 0;
  // An object of the list, or of the watch. The error is about all objects: they are listed anew.
  virtual absl::Status OnListed(const nlohmann::json& object) = 0;
  virtual absl::Status OnChanged(const nlohmann::json& object) = 0;
  // The list has ended; `names` are those of all its objects, as KubeNameOf() has them. An error is told; if
  // it is kOutOfRange, there is another list.
  virtual absl::Status OnListEnds(const Names& names) = 0;
  virtual absl::Status OnDeleted(const nlohmann::json& object) = 0;
  // If there was a failure, it has passed.
  virtual void OnRight() = 0;

  std::string Path() const;
  absl::Status OnPage(const std::string& body);
  absl::Status OnEvent(KubeEvent event);
  absl::Status OnRefusal(const HttpAnswer& answer);
  absl::Status OnExpired(const std::string& message);
  void ListAnew();
  std::string HelpFor(long code) const;
  // Names the server.
  absl::Status OfServer(const absl::Status& why) const;

  const Objects objects_;
  const std::string kubeconfig_, beside_;
  std::string url_;  // of the server that was asked last

  std::string version_;       // changes since that are told; empty: a list is due, or under way
  bool just_listed_ = false;  // nothing has been heard since the list
  bool heard_ = false;        // from the watch under way
  bool refused_ = false;      // what it has said last
  bool expired_ = false;      // the server has forgotten version_

  // The list under way.
  Names listed_;
  std::string listed_version_;  // of its first page
  std::string next_page_;       // empty: the first one is due
  bool in_pages_ = true;        // false: the server forgets too soon what the next page is of
  int page_ = 0;                // 0: as objects_ has it; less, where pages were too large
};

}  // namespace shunt
