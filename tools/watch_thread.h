// SPDX-License-Identifier: Apache-2.0
// WatchThread: the thread that asks servers for backends (etcd, the Kubernetes API server), for all services.
//
//   Watcher (tools/watcher.h): what to ask, and what an answer means      this thread
//   net::Source: what the services' thread (handlers/services.h) has of it, an event and what was told
//
// A thread of its own, because names are looked up, certificates checked and large answers read there, while
// the services' thread has tables to make. It starts before the process is confined (tools/kube_client.h).
//
// Whoever fails is asked again, first after kFirstPause, then after twice as long, up to kLongestPause, each
// time with a share of chance, so that the agents of many nodes do not come all at once; and not before the
// server wishes.

#pragma once

#include <chrono>
#include <cstdint>
#include <latch>
#include <list>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "net/discovery/source.h"
#include "net/discovery/teller.h"
#include "tools/libcurl.h"
#include "tools/watcher.h"

namespace shunt {

class WatchThread {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kFirstPause{200}, kLongestPause{30'000};
  // An answer is complete in that time, and a stream has begun.
  static constexpr std::chrono::milliseconds kAnswerWithin{10'000};
  static constexpr size_t kMostBytes = size_t{32} << 20;  // of an answer, or a line

  static absl::StatusOr<std::unique_ptr<WatchThread>> Start();
  // After all sources. Waits for the look-up of a name, if one is under way.
  ~WatchThread();
  WatchThread(const WatchThread&) = delete;
  WatchThread& operator=(const WatchThread&) = delete;

  // Any thread. The source is that thread's, and may go before or after all others. An error is want of
  // descriptors.
  absl::StatusOr<std::unique_ptr<net::Source>> Watch(std::unique_ptr<Watcher> watcher,
                                                     net::Source::Tell tell);
  // Of services, which these find together; `title` is the source's.
  absl::StatusOr<std::unique_ptr<net::Source>> Watch(std::string title,
                                                     std::vector<std::unique_ptr<Watcher>> watchers,
                                                     net::Source::TellServices tell);
  // Any thread: who rests may have something to ask.
  void Wake() { curl_.multi_wakeup(multi_); }

 private:
  class RemoteSource;
  struct Box;
  struct Letterbox;
  struct ServicesBox;
  struct Ear;
  struct ListEar;
  struct ServicesEar;
  struct Entry;

  explicit WatchThread(const Libcurl& curl);
  void Run();
  bool TakeNew();
  // Begins one that is due, or ends what has lasted too long. Returns when there is something to do again.
  Clock::time_point Turn();
  void Begin(Entry& entry);
  void CheckStream(Entry& entry, Clock::time_point now);
  // What libcurl says has ended.
  void HearCurl();
  void Hear(Entry& entry, const HttpAnswer& answer);
  // A request is over, or cannot be made.
  void Settle(Entry& entry, const absl::Status& status, std::chrono::seconds at_least);
  double Chance() { return std::uniform_real_distribution<>(0, 1)(random_); }

  const Libcurl curl_;
  CURLM* multi_ = nullptr;
  std::list<Entry> entries_;  // the thread's
  std::minstd_rand random_{std::random_device()()};

  std::mutex mutex_;
  bool stop_ = false;
  std::list<Entry> new_;

  std::latch begun_{1};  // the thread has dropped its capabilities
  std::thread thread_;
};

}  // namespace shunt
