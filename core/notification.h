// SPDX-License-Identifier: Apache-2.0
// Notification: one trapped system call, as the kernel handed it over.

#pragma once

#include <linux/seccomp.h>
#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace shunt {

// The registers are the target's: pointers in `args` are addresses in *its* memory, not ours.
struct Notification {
  uint64_t id = 0;  // the kernel's name for this call, unique and rising within one listener
  // The calling thread in our pid namespace; 0: not visible from here, so never to be acted upon.
  pid_t tid = 0;
  uint32_t arch = 0;  // AUDIT_ARCH_*: must be looked at before `nr`
  int nr = 0;
  std::array<uint64_t, 6> args{};
};

// Where the kernel writes a notification: its struct, with room for what newer kernels may add.
class NotificationRoom {
 public:
  static constexpr size_t kBytes = 128;

  // The kernel wants every byte to be zero before RECV.
  void* Prepare() {
    std::memset(&bytes_, 0, sizeof bytes_);
    return &notif_;
  }
  Notification Read() const {
    Notification notification{.id = notif_.id,
                              .tid = static_cast<pid_t>(notif_.pid),
                              .arch = notif_.data.arch,
                              .nr = notif_.data.nr};
    for (size_t i = 0; i < notification.args.size(); ++i) notification.args[i] = notif_.data.args[i];
    return notification;
  }
  // 0: there is none in here.
  uint64_t id() const { return __atomic_load_n(&notif_.id, __ATOMIC_ACQUIRE); }
  void Free() { __atomic_store_n(&notif_.id, 0, __ATOMIC_RELEASE); }
  // The id comes last: it makes the copy count.
  void CopyFrom(const NotificationRoom& other) {
    const uint64_t id = other.notif_.id;
    Prepare();
    notif_.pid = other.notif_.pid;
    notif_.flags = other.notif_.flags;
    notif_.data = other.notif_.data;
    __atomic_store_n(&notif_.id, id, __ATOMIC_RELEASE);
  }

 private:
  union {
    seccomp_notif notif_;
    std::byte bytes_[kBytes] = {};
  };
};

}  // namespace shunt
