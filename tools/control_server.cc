// SPDX-License-Identifier: Apache-2.0
#include "tools/control_server.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "core/result.h"
#include "tools/log.h"

namespace shunt {
namespace {

constexpr size_t kConnections = 16;
constexpr size_t kLongestCommand = 256;

bool Watch(int epoll, int fd) {
  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
  return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ControlServer>> ControlServer::Start(Fd socket, Answer answer) {
  std::unique_ptr<ControlServer> server(new ControlServer(std::move(socket), std::move(answer)));
  server->epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
  if (!server->epoll_.valid() || !Watch(server->epoll_.get(), server->socket_.get()))
    return ToStatus({errno}, "watch the control socket");
  return server;
}

void ControlServer::HandleEvents() {
  std::array<epoll_event, kConnections + 1> events{};
  const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
  for (int i = 0; i < count; ++i) {
    const int fd = events[static_cast<size_t>(i)].data.fd;
    if (fd == socket_.get()) {
      Accept();
      continue;
    }
    const auto connection = std::find_if(connections_.begin(), connections_.end(),
                                         [fd](const Connection& one) { return one.socket.get() == fd; });
    if (connection == connections_.end()) continue;
    if (connection->answer.empty()) {
      Read(connection);
    } else {
      Send(connection);
    }
  }
}

void ControlServer::Accept() {
  Fd socket(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket.valid()) return;
  const Result<Peer> peer = PeerOf(socket.get());
  if (!peer) return;
  if (absl::Status status = PeerRule().Check(*peer); !status.ok()) {
    log::Warning("the control socket: {}", log::Text(status));
    return;
  }
  if (connections_.size() >= kConnections) connections_.pop_front();
  if (!Watch(epoll_.get(), socket.get())) return;
  connections_.push_back({.socket = std::move(socket)});
}

void ControlServer::Read(Connections::iterator connection) {
  std::array<char, kLongestCommand> bytes{};
  const ssize_t got = recv(connection->socket.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  std::string& command = connection->command;
  if (got > 0) command.append(bytes.data(), static_cast<size_t>(got));
  // After its command a client has nothing to say but that it leaves.
  if (got <= 0 || connection->waiting || command.size() > kLongestCommand) {
    connections_.erase(connection);
    return;
  }
  const size_t end = command.find('\n');
  if (end == std::string::npos) return;
  connection->waiting = true;
  std::string answer = answer_(command.substr(0, end));
  if (!answer.empty()) Begin(connection, std::move(answer));
}

void ControlServer::Begin(Connections::iterator connection, std::string answer) {
  connection->answer = std::move(answer) + '\n';
  // From now on it matters only whether there is room, or nobody any more.
  epoll_event event{.events = EPOLLOUT, .data = {.fd = connection->socket.get()}};
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, connection->socket.get(), &event);
  Send(connection);
}

void ControlServer::Send(Connections::iterator connection) {
  const std::string& answer = connection->answer;
  while (connection->sent < answer.size()) {
    const ssize_t sent = send(connection->socket.get(), answer.data() + connection->sent,
                              answer.size() - connection->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) return;
    if (sent < 0) break;  // the client has left
    connection->sent += static_cast<size_t>(sent);
  }
  connections_.erase(connection);
}

void ControlServer::AnswerWaiting(const std::string& text) {
  for (auto one = connections_.begin(); one != connections_.end();) {
    const auto next = std::next(one);
    if (one->waiting && one->answer.empty()) Begin(one, text);
    one = next;
  }
}

}  // namespace shunt
