// SPDX-License-Identifier: Apache-2.0
// SocketLock: how the sockets that a container gets in the host's network are confined by the kernel.
//
// Two locks exist, and a container cannot take either off, not even as root of its own user namespace:
//
//   program  An eBPF socket filter (net/lock_program.h), attached and then locked with SO_LOCK_FILTER. It
//            knows networks and ports, covers connects and listeners, and accepted children inherit it.
//            Loading one needs CAP_BPF in the initial user namespace, once for each policy; attaching needs
//            no privilege.
//   device   SO_BINDTOIFINDEX. Needs no privilege to set; to change it takes CAP_NET_RAW over the host's
//            network. It keeps a socket off loopback and off every network that is not behind that device. It
//            does NOT keep the socket from listening there, so listen(2) must never be CONTINUEd for a
//            container whose lock this is: carry it out on our own copy of the socket, and refuse it on a
//            twin.
//
// Both hold against a container without privileges in the user namespace that owns the host's network (any
// rootless one). A container whose root has CAP_NET_RAW or CAP_NET_ADMIN there is not confined by a socket
// option.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/fd.h"
#include "core/result.h"
#include "net/lock_policy.h"

namespace shunt::net {

// What confines the sockets of one policy. Made on the control thread; reactors borrow it and only call const
// functions.
class SocketLock {
 public:
  enum class Kind : uint8_t {
    kNone,     // nothing can be locked: no socket may be moved
    kDevice,   // by BindToDevice(), one device for each destination
    kProgram,  // by Attach(), the same for all sockets
  };

  SocketLock() = default;
  static SocketLock ByDevice();
  static SocketLock ByProgram(Fd program);  // from LoadLockProgram()

  Kind kind() const { return kind_; }

  // Attaches the program to a TCP socket and locks it there. Only for kProgram (checked). Two system calls,
  // no heap. If it fails the socket is not confined and must not be given away. Once done it cannot be undone
  // or done again (EPERM).
  Result<void> Attach(int socket_fd) const;

 private:
  SocketLock(Kind kind, Fd program) : kind_(kind), program_(std::move(program)) {}

  Kind kind_ = Kind::kNone;
  Fd program_;
};

// Ties a socket to a network device of its own network namespace, by index (> 0, checked). One system call,
// no heap. EPERM if it is tied to another one already, unless the caller has CAP_NET_RAW over that network.
// An index without a device is taken, and the socket then reaches nothing.
Result<void> BindToDevice(int socket_fd, int device_index);

// Where the lock server listens unless told otherwise.
inline constexpr char kDefaultLockSocket[] = "/run/shunt/lock.sock";

// The program for `policy`: loaded by ourselves if we may, else handed out by the lock server at
// `lock_socket` (empty: the default path). Proves on a socket of its own that the program can be attached.
// Blocks for at most a few seconds if the server is stuck. PermissionDenied or Unavailable mean that there is
// no such lock to be had here, and say what would help.
absl::StatusOr<Fd> LoadLockProgram(const LockPolicy& policy, absl::string_view lock_socket = {});

// The two halves of LoadLockProgram(). The lock server serves the second with the first.
absl::StatusOr<Fd> LoadLockProgramOurselves(const LockPolicy& policy);
absl::StatusOr<Fd> RequestLockProgram(const LockPolicy& policy, const std::string& lock_socket);

// What the lock server answers beside the program: this if all is well, else a text for people.
inline constexpr absl::string_view kLockGranted = "ok";
inline constexpr size_t kMaxLockAnswer = 256;

}  // namespace shunt::net
