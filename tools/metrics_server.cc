// SPDX-License-Identifier: Apache-2.0
#include "tools/metrics_server.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <string_view>
#include <utility>

#include "core/result.h"
#include "tools/metrics_text.h"

namespace shunt {
namespace {

constexpr size_t kConnectionBytes = 8192;  // request and headers

MHD_Result Send(const Microhttpd& mhd, MHD_Connection* connection, unsigned status, std::string text,
                std::initializer_list<std::pair<const char*, const char*>> headers) {
  MHD_Response* const response =
      mhd.create_response_from_buffer(text.size(), text.data(), MHD_RESPMEM_MUST_COPY);
  if (response == nullptr) return MHD_NO;
  for (const auto& [name, value] : headers) mhd.add_response_header(response, name, value);
  mhd.add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
  const MHD_Result queued = mhd.queue_response(connection, status, response);
  mhd.destroy_response(response);
  return queued;
}

bool Watch(int epoll, int fd) {
  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
  return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(Fd socket,
                                                                    std::function<std::string()> page) {
  const absl::StatusOr<Microhttpd> mhd = Microhttpd::Load();
  if (!mhd.ok()) return mhd.status();
  std::unique_ptr<MetricsServer> server(new MetricsServer(*mhd, std::move(page)));
  server->events_.reset(epoll_create1(EPOLL_CLOEXEC));
  server->timer_.reset(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!server->events_.valid() || !server->timer_.valid() ||
      !Watch(server->events_.get(), server->timer_.get()))
    return ToStatus({errno}, "make a timer for metrics");
  // No thread of its own: HandleEvents() does it all. Twice the connections, for those that have been told to
  // end.
  server->daemon_ =
      mhd->start_daemon(MHD_USE_EPOLL, 0, nullptr, nullptr, OnRequest, server.get(), MHD_OPTION_LISTEN_SOCKET,
                        socket.get(), MHD_OPTION_CONNECTION_LIMIT, static_cast<unsigned>(2 * kConnections),
                        MHD_OPTION_CONNECTION_MEMORY_LIMIT, kConnectionBytes, MHD_OPTION_NOTIFY_CONNECTION,
                        OnConnection, server.get(), MHD_OPTION_END);
  if (server->daemon_ == nullptr)
    return absl::InternalError("cannot serve metrics: libmicrohttpd does not start");
  (void)socket.release();  // the daemon's
  const MHD_DaemonInfo* const info = mhd->get_daemon_info(server->daemon_, MHD_DAEMON_INFO_EPOLL_FD);
  if (info == nullptr || !Watch(server->events_.get(), info->epoll_fd))
    return absl::InternalError("cannot serve metrics: libmicrohttpd has no epoll");
  return server;
}

MetricsServer::~MetricsServer() {
  if (daemon_ == nullptr) return;
  // Without it the daemon would shut the socket down, for whoever has it as well.
  const Fd socket(mhd_.quiesce_daemon(daemon_));
  mhd_.stop_daemon(daemon_);
}

void MetricsServer::HandleEvents() {
  EndLate();
  mhd_.run(daemon_);
  SetTimer();
}

MHD_Result MetricsServer::OnRequest(void* self, MHD_Connection* connection, const char* url,
                                    const char* method, const char* /*version*/, const char* /*upload*/,
                                    size_t* /*upload_size*/, void** /*state*/) {
  const Microhttpd& mhd = static_cast<MetricsServer*>(self)->mhd_;
  constexpr std::pair<const char*, const char*> kPlain = {MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain"};
  if (std::string_view(url) != "/metrics")
    return Send(mhd, connection, MHD_HTTP_NOT_FOUND, "there is /metrics\n", {kPlain});
  // Of an answer to HEAD the library sends no more than the headers.
  const std::string_view how = method;
  if (how != MHD_HTTP_METHOD_GET && how != MHD_HTTP_METHOD_HEAD) {
    return Send(mhd, connection, MHD_HTTP_METHOD_NOT_ALLOWED, "it can be read, by GET and HEAD\n",
                {kPlain, {MHD_HTTP_HEADER_ALLOW, "GET, HEAD"}});
  }
  return Send(mhd, connection, MHD_HTTP_OK, static_cast<MetricsServer*>(self)->page_(),
              {{MHD_HTTP_HEADER_CONTENT_TYPE, kMetricsType}});
}

void MetricsServer::OnConnection(void* self, MHD_Connection* connection, void** context,
                                 MHD_ConnectionNotificationCode what) {
  auto& server = *static_cast<MetricsServer*>(self);
  if (what == MHD_CONNECTION_NOTIFY_STARTED) {
    const int fd = server.mhd_.get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    server.EndOldest();
    server.connections_.push_back({.fd = fd, .end = Clock::now() + kLongest});
    *context = &server.connections_.back();
    return;
  }
  server.connections_.remove_if([context](const Connection& one) { return &one == *context; });
}

// The daemon finds that the client has left.
void MetricsServer::End(Connection& connection) {
  if (!std::exchange(connection.ended, true)) shutdown(connection.fd, SHUT_RDWR);
}

// If there are too many.
void MetricsServer::EndOldest() {
  const auto is_open = [](const Connection& one) { return !one.ended; };
  if (std::ranges::count_if(connections_, is_open) >= static_cast<ptrdiff_t>(kConnections))
    End(*std::ranges::find_if(connections_, is_open));
}

void MetricsServer::EndLate() {
  const Clock::time_point now = Clock::now();
  for (Connection& connection : connections_) {
    if (connection.end > now) break;
    End(connection);
  }
}

// MHD_get_timeout() also tells of what it could do at once.
void MetricsServer::SetTimer() {
  constexpr int64_t kMillisecond = 1'000'000;
  itimerspec at{};
  MHD_UNSIGNED_LONG_LONG milliseconds = 0;
  if (mhd_.get_timeout(daemon_, &milliseconds) == MHD_YES && milliseconds == 0) {
    at.it_value.tv_nsec = 1;
  } else if (!connections_.empty()) {
    const auto left = connections_.front().end - Clock::now();
    const int64_t nanoseconds =
        std::max<int64_t>(kMillisecond, std::chrono::duration_cast<std::chrono::nanoseconds>(left).count());
    at.it_value = {.tv_sec = nanoseconds / 1'000'000'000, .tv_nsec = nanoseconds % 1'000'000'000};
  }
  timerfd_settime(timer_.get(), 0, &at, nullptr);
}

}  // namespace shunt
