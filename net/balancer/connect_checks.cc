// SPDX-License-Identifier: Apache-2.0
// ConnectChecks: see connect_checks.h.

#include "net/balancer/connect_checks.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/socket_facts.h"

namespace shunt::net {
namespace {

Result<Fd> SocketOfOurNetwork(ServiceNetwork /*network*/, int family) {
  Fd made(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!made.valid()) return FailErrno();
  return made;
}

// What this machine lacks. EADDRNOTAVAIL: no port is left to connect from.
bool IsShortage(int error) {
  constexpr std::array kShortages = {EMFILE, ENFILE, ENOMEM, ENOBUFS, ENOSPC, EAGAIN, EADDRNOTAVAIL};
  return std::ranges::find(kShortages, error) != kShortages.end();
}

std::string_view Words(int error) {
  const char* const words = strerrordesc_np(error);
  return words == nullptr ? "an error without a name" : words;
}

int PendingError(int socket_fd) {
  int error = 0;
  socklen_t size = sizeof(error);
  return getsockopt(socket_fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

bool IsConnected(int socket_fd) {
  sockaddr_storage peer{};
  socklen_t size = sizeof(peer);
  return getpeername(socket_fd, reinterpret_cast<sockaddr*>(&peer), &size) == 0;
}

// A port of this machine on which nobody listens can be given to a socket that connects to it. Then it is
// connected to itself.
bool IsOwnPeer(int socket_fd, const SockAddr& peer) {
  const Result<SockAddr> own = LocalAddress(socket_fd);
  return own && own->port() == peer.port() && own->ip() == peer.ip();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ConnectChecks>> ConnectChecks::Create(Told told, MakeSocket make,
                                                                     Skipped skipped) {
  Fd events(epoll_create1(EPOLL_CLOEXEC));
  if (!events.valid()) return ToStatus({errno}, "make the epoll for health checks");
  if (!make) make = SocketOfOurNetwork;
  return std::unique_ptr<ConnectChecks>(
      new ConnectChecks(std::move(events), std::move(told), std::move(make), std::move(skipped)));
}

ConnectChecks::ConnectChecks(Fd events, Told told, MakeSocket make, Skipped skipped)
    : events_(std::move(events)),
      told_(std::move(told)),
      make_(std::move(make)),
      skipped_(std::move(skipped)),
      attempts_(limits::kConnectChecks) {
  for (size_t place = attempts_.size(); place > 0; --place) free_.push_back(place - 1);
}

void ConnectChecks::Begin(const DueCheck& check, int64_t now) {
  if (waiting_.insert_or_assign(check.slot, check).second) queue_.push_back(check.slot);
  called_ = now;
}

int64_t ConnectChecks::NextDue() const {
  if (!queue_.empty() && !free_.empty()) return called_;
  int64_t due = kNever;
  for (const Attempt& attempt : attempts_) {
    if (attempt.socket.valid()) due = std::min(due, attempt.deadline);
  }
  return due;
}

void ConnectChecks::Advance(int64_t now) {
  called_ = now;
  // What has come counts before what is too late: it may be us who were.
  std::array<epoll_event, limits::kConnectChecks> events;
  const int count = epoll_wait(events_.get(), events.data(), static_cast<int>(events.size()), 0);
  for (int i = 0; i < count; ++i) Hear(events[static_cast<size_t>(i)].data.u64, now);
  for (size_t place = 0; place < attempts_.size(); ++place) {
    const Attempt& attempt = attempts_[place];
    if (!attempt.socket.valid() || now < attempt.deadline) continue;
    Finish(place, absl::StrCat("no connection within ", attempt.check.timeout_ns / 1'000'000, " ms"), now);
  }
  // So many in one turn, even if each fails at once.
  for (size_t i = 0; i < limits::kConnectChecks && !queue_.empty() && !free_.empty(); ++i) {
    const auto next = waiting_.extract(queue_.front());
    queue_.pop_front();
    Start(next.mapped(), now);
  }
}

void ConnectChecks::Start(const DueCheck& check, int64_t now) {
  Result<Fd> socket = make_(check.network, check.address.family());
  if (!socket) {
    Fail(check, socket.error().code, now);
    return;
  }
  const linger reset{.l_onoff = 1, .l_linger = 0};
  setsockopt(socket->get(), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  if (connect(socket->get(), check.address.data(), check.address.size()) != 0 && errno != EINPROGRESS) {
    Fail(check, errno, now);
    return;
  }
  const size_t place = free_.back();
  epoll_event event{};
  event.events = EPOLLOUT;
  event.data.u64 = place;
  if (epoll_ctl(events_.get(), EPOLL_CTL_ADD, socket->get(), &event) != 0) return Skip(check, now);
  free_.pop_back();
  attempts_[place] = {check, *std::move(socket), now + check.timeout_ns};
}

void ConnectChecks::Hear(size_t place, int64_t now) {
  const Attempt& attempt = attempts_[place];
  if (!attempt.socket.valid()) return;
  const int error = PendingError(attempt.socket.get());
  if (error != 0) {
    Finish(place, Words(error), now);
  } else if (IsConnected(attempt.socket.get())) {
    const bool own = IsOwnPeer(attempt.socket.get(), attempt.check.address);
    Finish(place, own ? "nobody listens there: the connection was to itself" : "", now);
  }
}

void ConnectChecks::Finish(size_t place, std::string_view error, int64_t now) {
  Attempt& attempt = attempts_[place];
  // Closing is not enough where a process that was forked meanwhile has the socket, too.
  epoll_ctl(events_.get(), EPOLL_CTL_DEL, attempt.socket.get(), nullptr);
  attempt.socket.reset();
  free_.push_back(place);
  told_(attempt.check.slot, attempt.check.check, error.empty(), error, now);
}

void ConnectChecks::Fail(const DueCheck& check, int error, int64_t now) {
  if (IsShortage(error)) return Skip(check, now);
  told_(check.slot, check.check, false, Words(error), now);
}

void ConnectChecks::Skip(const DueCheck& check, int64_t now) const {
  if (skipped_) skipped_(check.slot, check.check, now);
}

}  // namespace shunt::net
