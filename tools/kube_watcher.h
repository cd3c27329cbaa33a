// SPDX-License-Identifier: Apache-2.0
// KubeWatcher: the backends of a Service of Kubernetes, by its EndpointSlices (discovery.k8s.io/v1).
//
// A list, in pages, and then what has changed since (watch), from the resourceVersion on that was heard last,
// after failures as well. Only when the server has forgotten what was then (410) there is another list, and
// nobody hears of that.
//
// An empty list is an answer like any other: a Service whose pods are all gone has no backends.

#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "tools/endpoint_slice.h"
#include "tools/watcher.h"

namespace shunt {

class KubeWatcher : public Watcher {
 public:
  // The server ends a watch after that, and another one begins.
  static constexpr std::chrono::seconds kWatch{300};
  // Slices have 100 endpoints as a rule, and 1000 at most.
  static constexpr int kPage = 100;

  explicit KubeWatcher(net::KubernetesSpec spec) : spec_(std::move(spec)) {}

  std::string Title() const override;
  absl::StatusOr<Ask> Next() override;
  void OnStream() override;
  absl::Status OnLine(absl::string_view line) override;
  absl::Status OnAnswer(const HttpAnswer& answer) override;
  absl::Status OnFailure(absl::Status why) override;

 private:
  std::string Path() const;
  absl::Status OnPage(const std::string& body);
  absl::Status OnEvent(SliceEvent event);
  absl::Status OnRefusal(const HttpAnswer& answer);
  absl::Status OnExpired(const std::string& message);
  void ListAnew();
  bool IsOurs(const EndpointSlice& slice) const;
  absl::Status Tell();
  // Names the server.
  absl::Status OfServer(const absl::Status& why) const;

  const net::KubernetesSpec spec_;
  std::string url_;  // of the server that was asked last

  EndpointSlices slices_;
  std::string version_;       // changes since that are told; empty: a list is due, or under way
  bool just_listed_ = false;  // nothing has been heard since the list
  bool heard_ = false;        // from the watch under way
  bool refused_ = false;      // what it has said last
  bool expired_ = false;      // the server has forgotten version_
  std::optional<std::vector<net::BackendSpec>> told_;

  // The list under way.
  EndpointSlices listed_;
  std::string listed_version_;  // of its first page
  std::string next_page_;       // empty: the first one is due
  bool in_pages_ = true;        // false: the server forgets too soon what the next page is of
};

}  // namespace shunt
