// SPDX-License-Identifier: Apache-2.0
// Which source finds the backends of a service that wants one (ServiceSpec::discover), or services.

#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"
#include "net/balancer/service.h"
#include "net/discovery/source.h"
#include "tools/watch_thread.h"

namespace shunt {

class ServiceSources {
 public:
  // Any thread; the source is that thread's, and goes before this does. An error has been told, too.
  absl::StatusOr<std::unique_ptr<net::Source>> Make(const net::ServiceSpec& service, net::Source::Tell tell,
                                                    net::Source::TellServices tell_services);
  // The process is about to be confined: it starts no thread any more.
  void StartNoThread();

 private:
  absl::StatusOr<std::unique_ptr<net::Source>> Create(const net::DiscoverSpec& wanted,
                                                      net::Source::Tell tell);
  // The thread that asks, to do so under that title.
  absl::StatusOr<WatchThread*> Watches(const std::string& title);
  absl::StatusOr<std::unique_ptr<net::Source>> Watch(std::unique_ptr<Watcher> watcher,
                                                     net::Source::Tell tell);

  std::mutex mutex_;
  bool may_start_ = true;
  std::unique_ptr<WatchThread> watches_;  // once there is something to watch
};

}  // namespace shunt
