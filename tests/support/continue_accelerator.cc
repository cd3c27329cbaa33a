// SPDX-License-Identifier: Apache-2.0
// ContinueAccelerator: see continue_accelerator.h.

#include "tests/support/continue_accelerator.h"

#include <linux/seccomp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include <array>
#include <cerrno>
#include <map>
#include <utility>
#include <vector>

#include "core/result.h"

namespace shunt {
namespace {

class ContinueAccelerator : public Accelerator {
 public:
  explicit ContinueAccelerator(Fd epoll) : epoll_(std::move(epoll)) {}

  absl::Status Serve(Fd listener, ContainerSpec, std::function<void()> ended) override {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = listener.get();
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, listener.get(), &event) != 0) {
      return ToStatus(Errno{errno}, "watch a listener");
    }
    const int fd = listener.get();
    served_.emplace(fd, std::pair(std::move(listener), std::move(ended)));
    return absl::OkStatus();
  }

  int event_fd() const override { return epoll_.get(); }

  void HandleEvents() override {
    std::array<epoll_event, 16> events{};
    const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<size_t>(i)];
      if ((event.events & EPOLLIN) != 0) Continue(event.data.fd);
      if ((event.events & EPOLLHUP) != 0) Forget(event.data.fd);
    }
  }

  std::string LocksInForce() const override { return "locks: none, every call is let through"; }
  bool CanPublish() const override { return true; }

 private:
  static void Continue(int listener) {
    seccomp_notif call{};
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0) return;
    seccomp_notif_resp reply{};
    reply.id = call.id;
    reply.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &reply);  // fails if the caller has gone
  }

  void Forget(int listener) {
    const auto ended = std::move(served_.at(listener).second);
    served_.erase(listener);
    ended();
  }

  Fd epoll_;
  std::map<int, std::pair<Fd, std::function<void()>>> served_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Accelerator>> StartContinueAccelerator(const AcceleratorOptions&) {
  Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) return ToStatus(Errno{errno}, "make an event queue");
  return std::make_unique<ContinueAccelerator>(std::move(epoll));
}

}  // namespace shunt
