// SPDX-License-Identifier: Apache-2.0
// PodDirectory: the pods of this node that have containers with us, as the API server has them.
//
// Each pod is asked about once, however many of its containers come at the same time, and is remembered as
// long as somebody has its record: labels and annotations are those of the pod's first container's start.
// Whoever asks gets an answer within kLongest, whatever becomes of the server. Control thread.

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/fd.h"
#include "tools/kube_client.h"

namespace shunt {

class PodDirectory {
 public:
  using Record = std::shared_ptr<const PodRecord>;
  // `asker` is whoever has asked.
  using Receiver = std::function<void(uint64_t asker, const absl::StatusOr<Record>& record)>;

  static constexpr std::chrono::milliseconds kAsked{5'000};
  static constexpr std::chrono::milliseconds kOneTry{2'000};
  // A name that is looked up, and is not found, may hold up even that.
  static constexpr std::chrono::milliseconds kLongest = kAsked + std::chrono::milliseconds(1'000);

  // Before the process is confined. `receive` is called from HandleEvents().
  static absl::StatusOr<std::unique_ptr<PodDirectory>> Start(HttpOrigin server, std::string node,
                                                             Receiver receive);

  // nullptr: not known.
  Record Find(const PodQuery& query) const;
  // Of a query that has a uid or both names. The error says why nobody will answer.
  absl::Status Ask(const PodQuery& query, uint64_t asker);
  // The asker is not there any more.
  void Forget(uint64_t asker);

  int event_fd() const { return events_.get(); }
  void HandleEvents();
  const std::string& url() const { return client_->url(); }

 private:
  using Clock = std::chrono::steady_clock;
  struct Question {
    PodQuery query;
    std::vector<uint64_t> askers;
    Clock::time_point end;
  };

  explicit PodDirectory(Receiver receive) : receive_(std::move(receive)) {}
  void Answer(uint64_t number, absl::StatusOr<PodRecord> record);
  void SetTimer();

  const Receiver receive_;
  Fd events_;  // an epoll over the client's and the timer
  Fd timer_;   // for the oldest question
  std::unique_ptr<KubeClient> client_;
  uint64_t last_number_ = 0;
  std::map<uint64_t, Question> questions_;                       // the oldest first
  std::map<std::string, std::weak_ptr<const PodRecord>> known_;  // by the uid that the kubelet has
};

}  // namespace shunt
