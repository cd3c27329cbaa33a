// SPDX-License-Identifier: Apache-2.0
#include "core/listener.h"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>

#include "absl/strings/str_format.h"
#include "core/check.h"
#include "core/patience.h"

// Linux 6.6; newer than Debian 12's headers.
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#endif

namespace shunt {
namespace {

union AnswerBuffer {
  seccomp_notif_resp resp;
  std::byte bytes[128];
};

bool KernelStructsFit() {
  seccomp_notif_sizes sizes{};
  if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) != 0) return false;
  return sizes.seccomp_notif <= NotificationRoom::kBytes && sizes.seccomp_notif_resp <= sizeof(AnswerBuffer);
}

// Without task work deferred to us the ioctls were seen to return EINTR under contention; they have done
// nothing then.
int RetryingIoctl(int fd, unsigned long request, void* argument) {
  int result;
  do {
    result = ioctl(fd, request, argument);
  } while (result < 0 && errno == EINTR);
  return result;
}

// The same for what the target has to do: ends with EINTR when that takes too long.
int PatientIoctl(int fd, unsigned long request, void* argument) {
  const Patience::Wait wait;
  int result;
  do {
    result = ioctl(fd, request, argument);
  } while (result < 0 && errno == EINTR && !wait.Over());
  return result;
}

}  // namespace

absl::StatusOr<Listener> Listener::Adopt(Fd fd) {
  static const bool structs_fit = KernelStructsFit();
  if (!structs_fit) {
    return absl::FailedPreconditionError(
        "the kernel has no seccomp notifier that we know (SECCOMP_GET_NOTIF_SIZES)");
  }
  // No call has the id 0, so a listener says ENOENT and everything else something different.
  uint64_t no_call = 0;
  if (RetryingIoctl(fd.get(), SECCOMP_IOCTL_NOTIF_ID_VALID, &no_call) == 0 || errno != ENOENT) {
    return absl::InvalidArgumentError(absl::StrFormat("descriptor %d is not a seccomp listener", fd.get()));
  }
  fcntl(fd.get(), F_SETFD, FD_CLOEXEC);
  const bool synchronous =
      ioctl(fd.get(), SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP) == 0;
  return Listener(std::move(fd), synchronous);
}

Result<Notification> Listener::Receive(NotificationRoom& room) const {
  if (RetryingIoctl(fd_.get(), SECCOMP_IOCTL_NOTIF_RECV, room.Prepare()) != 0) return FailErrno();
  return room.Read();
}

bool Listener::StillValid(uint64_t id) const {
  return RetryingIoctl(fd_.get(), SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

Result<void> Listener::Install(uint64_t id, int source_fd, int target_fd, bool cloexec) const {
  seccomp_notif_addfd request{
      .id = id,
      .flags = SECCOMP_ADDFD_FLAG_SETFD,
      .srcfd = static_cast<uint32_t>(source_fd),
      .newfd = static_cast<uint32_t>(target_fd),
      .newfd_flags = cloexec ? static_cast<uint32_t>(O_CLOEXEC) : 0,
  };
  if (PatientIoctl(fd_.get(), SECCOMP_IOCTL_NOTIF_ADDFD, &request) < 0) return FailErrno();
  return {};
}

Result<void> Listener::InstallAndAnswer(uint64_t id, int source_fd, bool cloexec) const {
  // In one step, a wait that is interrupted leaves the call answered with 0 and nothing installed. So where
  // waits are interrupted, it takes two.
  const bool two_steps = Patience::MaySignal();
  seccomp_notif_addfd request{
      .id = id,
      .flags = two_steps ? 0 : static_cast<uint32_t>(SECCOMP_ADDFD_FLAG_SEND),
      .srcfd = static_cast<uint32_t>(source_fd),
      .newfd = 0,
      .newfd_flags = cloexec ? static_cast<uint32_t>(O_CLOEXEC) : 0,
  };
  const int number = two_steps ? PatientIoctl(fd_.get(), SECCOMP_IOCTL_NOTIF_ADDFD, &request)
                               : RetryingIoctl(fd_.get(), SECCOMP_IOCTL_NOTIF_ADDFD, &request);
  if (number < 0) return FailErrno();
  return two_steps ? Send(id, Reply::Return(number)) : Result<void>{};
}

Result<void> Listener::Send(uint64_t id, Reply reply) const {
  AnswerBuffer buffer{};
  buffer.resp.id = id;
  switch (reply.kind()) {
    case Reply::Kind::kReturn:
      buffer.resp.val = reply.value();
      break;
    case Reply::Kind::kFail:
      // The raw interface takes a negative errno; a positive one would make the call *return* it.
      buffer.resp.error = -static_cast<int32_t>(reply.value());
      break;
    case Reply::Kind::kContinue:
      buffer.resp.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
      break;
    case Reply::Kind::kSent:
    case Reply::Kind::kGone:
    case Reply::Kind::kLater:
    case Reply::Kind::kAgain:
      SHUNT_CHECK(false);
  }
  if (RetryingIoctl(fd_.get(), SECCOMP_IOCTL_NOTIF_SEND, &buffer) != 0) return FailErrno();
  return {};
}

}  // namespace shunt
