// SPDX-License-Identifier: Apache-2.0
// KubeClient: asks the API server about pods, on a thread of its own.
//
// A thread, and not the control thread's epoll: names are looked up and certificates checked there, which
// waits and takes milliseconds, while the control thread has to answer the keeper and all containers. It
// starts before the process is confined and needs no system call that the engine does not have anyway:
// nothing is executed, written, or run on further threads.
//
// A pod whose names are known is one GET of one object, which takes the right to `get` pods and costs the
// server one key. One of which only the uid is known is looked for among the pods of this node; that takes
// `list`, and is answered from the server's memory (resourceVersion=0), not from its store.
//
// All is bounded: questions, requests at once, the bytes of an answer, the time of each try and of all tries
// for one question. What may go away is tried again: no connection, 401 (the token is read anew), 429, 5xx.
// Everything else is final.

#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <latch>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "core/fd.h"
#include "tools/http_origin.h"
#include "tools/http_request.h"
#include "tools/libcurl.h"
#include "tools/pod_record.h"

namespace shunt {

class KubeClient {
 public:
  using Clock = std::chrono::steady_clock;

  struct Options {
    HttpOrigin server;
    std::string node;                     // as FindNodeName() says; empty: pods are found by their names only
    std::chrono::milliseconds longest{};  // for one question, with all tries
    std::chrono::milliseconds one_try{};
  };
  struct Answer {
    uint64_t number = 0;
    // The error says what the server, or the way to it, has done, and what would help.
    absl::StatusOr<PodRecord> record;
  };

  static constexpr size_t kQuestions = 256;
  static constexpr long kConnections = 4;
  static constexpr size_t kPodBytes = size_t{4} << 20;    // etcd takes objects of 1.5 MiB
  static constexpr size_t kListBytes = size_t{16} << 20;  // some hundred pods of a node

  static absl::StatusOr<std::unique_ptr<KubeClient>> Start(Options options);
  // Waits for the look-up of a name, if one is under way; for nothing else.
  ~KubeClient();
  KubeClient(const KubeClient&) = delete;
  KubeClient& operator=(const KubeClient&) = delete;

  // The rest is for the thread that has called Start().

  // An answer with this number comes, after Options::longest at most if no name has to be looked up. The
  // error says why the server cannot be asked.
  absl::Status Ask(uint64_t number, const PodQuery& query);
  // Becomes readable when there are answers.
  int event_fd() const { return event_.get(); }
  std::vector<Answer> TakeAnswers();

  const std::string& url() const { return options_.server.url; }

 private:
  // One question, and its request while one is under way.
  struct Question {
    uint64_t number = 0;
    PodQuery query;
    Clock::time_point deadline;
    Clock::time_point next_try;
    int tries = 0;
    absl::Status last_failure;  // what the latest try came to
    std::unique_ptr<HttpRequest> request;

    bool is_asked() const { return request != nullptr && request->under_way(); }
  };

  KubeClient(Options options, const Libcurl& curl) : options_(std::move(options)), curl_(curl) {}

  void Run();
  bool TakeNew();
  // Begins what is due, gives up what is late. Returns when there is something to do again.
  Clock::time_point StartDue();
  absl::Status Begin(Question& question);
  void Finish(Question& question, CURLcode code);
  void Retry(Question& question, absl::Status failure, std::chrono::milliseconds at_least = {});
  void Reply(uint64_t number, absl::StatusOr<PodRecord> record);
  std::string PathFor(const PodQuery& query) const;  // behind the server's url
  size_t LongestFor(const PodQuery& query) const { return query.has_names() ? kPodBytes : kListBytes; }
  absl::StatusOr<PodRecord> Understand(const Question& question, const HttpAnswer& answer) const;

  const Options options_;
  const Libcurl curl_;
  CURLM* multi_ = nullptr;
  Fd event_;
  std::map<uint64_t, Question> questions_;  // its thread's

  std::mutex mutex_;
  bool stop_ = false;
  std::vector<std::pair<uint64_t, PodQuery>> new_;
  std::vector<Answer> answers_;
  size_t asked_ = 0;  // and not taken; the thread's that asks

  std::latch begun_{
      1};  // the thread has dropped its capabilities, for which the process is looked through soon
  std::thread thread_;
};

}  // namespace shunt
