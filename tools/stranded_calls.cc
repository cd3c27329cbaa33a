// SPDX-License-Identifier: Apache-2.0
#include "tools/stranded_calls.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "core/listener.h"
#include "core/reply.h"

namespace shunt {
namespace {

constexpr int kEventsPerTurn = 64;

// A Listener owns its descriptor, and the holding keeps its own: so a copy, for one call. Nobody is in a
// hurry here, and a second descriptor for each container would be too many.
std::optional<Listener> Borrow(int listener_fd) {
  absl::StatusOr<Listener> listener = Listener::Adopt(Fd(fcntl(listener_fd, F_DUPFD_CLOEXEC, 0)));
  if (!listener.ok()) return std::nullopt;
  return *std::move(listener);
}

}  // namespace

StrandedCalls::StrandedCalls() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {}

void StrandedCalls::Add(const Holding& container) {
  const int fd = container.fds().front();
  if (!Borrow(fd)) return;
  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0) listeners_.push_back(fd);
}

void StrandedCalls::Remove(const Holding& container) {
  Forget(container.fds().front());
}

void StrandedCalls::Forget(int listener_fd) {
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener_fd, nullptr);
  listeners_.erase(std::remove(listeners_.begin(), listeners_.end(), listener_fd), listeners_.end());
}

void StrandedCalls::HandleEvents() {
  std::array<epoll_event, kEventsPerTurn> events;
  const int count = epoll_wait(epoll_.get(), events.data(), kEventsPerTurn, 0);
  for (int i = 0; i < count; ++i) {
    const int fd = events[static_cast<size_t>(i)].data.fd;
    if ((events[static_cast<size_t>(i)].events & EPOLLIN) == 0) {  // a hang-up: everybody in there has ended
      Forget(fd);
      continue;
    }
    const std::optional<Listener> listener = Borrow(fd);
    if (!listener) continue;
    NotificationRoom room;
    const Result<Notification> notification = listener->Receive(room);
    if (!notification.has_value()) continue;  // it left
    if (listener->Send(notification->id, Reply::Fail(kStrandedVerdict)).has_value()) ++answered_;
  }
}

void StrandedCalls::End() {
  for (const int fd : listeners_) epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  listeners_.clear();
}

void FailCall(int listener_fd, uint64_t notification) {
  if (const std::optional<Listener> listener = Borrow(listener_fd)) {
    (void)listener->Send(notification, Reply::Fail(kStrandedVerdict));
  }
}

}  // namespace shunt
