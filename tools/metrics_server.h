// SPDX-License-Identifier: Apache-2.0
// MetricsServer: answers GET /metrics. One request for each connection.
//
// Everybody who can connect may ask, so all is bounded: how many connections there are, of which the oldest
// goes when there are too many; how long each may take, silent or slow; and its memory. Control thread, and
// nothing blocks.

#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/fd.h"
#include "tools/microhttpd.h"

namespace shunt {

class MetricsServer {
 public:
  // On a socket that listens. `page` makes what is answered.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(Fd socket, std::function<std::string()> page);
  // Others may go on listening on the same socket.
  ~MetricsServer();
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  static constexpr size_t kConnections = 16;
  static constexpr std::chrono::seconds kLongest{10};  // from accept to the end of the answer

  int event_fd() const { return events_.get(); }
  void HandleEvents();

 private:
  using Clock = std::chrono::steady_clock;
  struct Connection {
    int fd = -1;
    Clock::time_point end;
    bool ended = false;  // the daemon does not know yet
  };

  MetricsServer(const Microhttpd& mhd, std::function<std::string()> page)
      : mhd_(mhd), page_(std::move(page)) {}
  static MHD_Result OnRequest(void* self, MHD_Connection* connection, const char* url, const char* method,
                              const char* version, const char* upload, size_t* upload_size, void** state);
  static void OnConnection(void* self, MHD_Connection* connection, void** context,
                           MHD_ConnectionNotificationCode what);
  static void End(Connection& connection);
  void EndOldest();
  void EndLate();
  void SetTimer();

  const Microhttpd mhd_;
  const std::function<std::string()> page_;
  Fd events_;  // an epoll over the daemon's and the timer
  Fd timer_;   // for the end of the oldest connection
  MHD_Daemon* daemon_ = nullptr;
  std::list<Connection> connections_;  // the oldest first
};

}  // namespace shunt
