// SPDX-License-Identifier: Apache-2.0
// The system calls behind SocketLock: attaching, tying to a device, loading a program, asking the lock server
// for one.

#include "net/lock.h"

#include <linux/bpf.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/check.h"
#include "net/lock_program.h"

#ifndef SO_BINDTOIFINDEX
#define SO_BINDTOIFINDEX 62
#endif

namespace shunt::net {
namespace {

// Longer than a loaded machine needs for one request, shorter than a person waits for a start.
constexpr timeval kServerPatience = {.tv_sec = 3, .tv_usec = 0};

Result<void> SetInt(int socket_fd, int option, int value) {
  if (::setsockopt(socket_fd, SOL_SOCKET, option, &value, sizeof(value)) != 0) return FailErrno();
  return {};
}

Result<void> AttachAndLock(int socket_fd, int program_fd) {
  if (Result<void> attached = SetInt(socket_fd, SO_ATTACH_BPF, program_fd); !attached) return attached;
  return SetInt(socket_fd, SO_LOCK_FILTER, 1);
}

// A program may load and still be refused by every socket (net.core.optmem_max), and a descriptor from
// elsewhere may be anything: better seen here than at each connect.
absl::Status TryOnSocket(int program_fd) {
  const Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket.valid())
    return absl::ErrnoToStatus(errno, "cannot make a TCP socket to try the socket lock on");
  if (Result<void> attached = AttachAndLock(socket.get(), program_fd); !attached) {
    return ToStatus(attached.error(),
                    attached.error().code == ENOMEM
                        ? "the socket lock does not fit into net.core.optmem_max; raise that, or "
                          "publish fewer ports and ignore fewer networks"
                        : "the socket lock cannot be attached to a TCP socket");
  }
  return absl::OkStatus();
}

absl::StatusOr<Fd> ConnectToServer(const std::string& path) {
  sockaddr_un address = {.sun_family = AF_UNIX};
  if (path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("lock server socket ", path,
                                                   ": the path is too long; at most ",
                                                   sizeof(address.sun_path) - 1, " bytes"));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return absl::ErrnoToStatus(errno, "cannot make a unix socket");
  // The send timeout also bounds the wait for a place in the server's queue.
  for (const int option : {SO_SNDTIMEO, SO_RCVTIMEO}) {
    ::setsockopt(socket.get(), SOL_SOCKET, option, &kServerPatience, sizeof(kServerPatience));
  }
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    const int error = errno;
    return absl::UnavailableError(absl::StrCat(
        absl::ErrnoToStatus(error, absl::StrCat("lock server at ", path)).message(),
        error == EACCES
            ? "; its administrator decides who may ask, by SocketMode= and SocketGroup= in shunt-lock.socket"
            : "; enable it with `systemctl enable --now shunt-lock.socket`, or run `shunt lock-server` as "
              "root"));
  }
  return socket;
}

// The program's descriptor, or what the server says is wrong.
absl::StatusOr<Fd> ReceiveProgram(int socket_fd, const std::string& path) {
  char text[kMaxLockAnswer];
  iovec piece = {.iov_base = text, .iov_len = sizeof(text)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message = {
      .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
  const ssize_t size = ::recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC);
  if (size <= 0) {
    return absl::UnavailableError(
        absl::StrCat("lock server at ", path, " gave no answer",
                     size < 0 ? absl::StrCat(": ", absl::ErrnoToStatus(errno, "recvmsg").message()) : "",
                     "; see `journalctl -u shunt-lock`"));
  }
  Fd program;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
      header->cmsg_len == CMSG_LEN(sizeof(int))) {
    int fd;
    std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    program.reset(fd);
  }
  const absl::string_view answer(text, static_cast<size_t>(size));
  if (answer != kLockGranted)
    return absl::UnavailableError(absl::StrCat("lock server at ", path, " says: ", answer));
  if (!program.valid())
    return absl::UnavailableError(absl::StrCat("lock server at ", path, " sent no program"));
  return program;
}

}  // namespace

SocketLock SocketLock::ByDevice() {
  return SocketLock(Kind::kDevice, Fd());
}

SocketLock SocketLock::ByProgram(Fd program) {
  SHUNT_CHECK(program.valid());
  return SocketLock(Kind::kProgram, std::move(program));
}

Result<void> SocketLock::Attach(int socket_fd) const {
  SHUNT_CHECK(kind_ == Kind::kProgram);
  return AttachAndLock(socket_fd, program_.get());
}

Result<void> BindToDevice(int socket_fd, int device_index) {
  SHUNT_CHECK(device_index > 0);  // 0 would untie it
  const Result<void> tied = SetInt(socket_fd, SO_BINDTOIFINDEX, device_index);
  if (tied || tied.error() != Errno{EPERM}) return tied;
  int present = 0;
  socklen_t size = sizeof(present);
  if (getsockopt(socket_fd, SOL_SOCKET, SO_BINDTOIFINDEX, &present, &size) != 0 || present != device_index)
    return tied;
  return {};
}

absl::StatusOr<Fd> LoadLockProgramOurselves(const LockPolicy& policy) {
  if (absl::Status status = CheckLockPolicy(policy); !status.ok()) return status;
  const std::vector<bpf_insn> code = LockProgram(policy);
  bpf_attr attr;
  std::memset(&attr, 0,
              sizeof(attr));  // the kernel refuses rubbish in the parts of the union that we do not use
  attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
  attr.insns = reinterpret_cast<uintptr_t>(code.data());
  attr.insn_cnt = static_cast<uint32_t>(code.size());
  attr.license = reinterpret_cast<uintptr_t>("Apache-2.0");
  std::memcpy(attr.prog_name, "shunt_lock", sizeof("shunt_lock"));
  const long fd = ::syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));
  if (fd < 0) return absl::ErrnoToStatus(errno, "loading the socket lock (needs CAP_BPF)");
  return Fd(static_cast<int>(fd));
}

absl::StatusOr<Fd> RequestLockProgram(const LockPolicy& policy, const std::string& lock_socket) {
  if (absl::Status status = CheckLockPolicy(policy); !status.ok()) return status;
  absl::StatusOr<Fd> socket = ConnectToServer(lock_socket);
  if (!socket.ok()) return socket.status();
  const std::string request = EncodeLockPolicy(policy);
  if (::send(socket->get(), request.data(), request.size(), MSG_NOSIGNAL) < 0) {
    return absl::UnavailableError(
        absl::StrCat("lock server at ", lock_socket, ": ", absl::ErrnoToStatus(errno, "send").message()));
  }
  return ReceiveProgram(socket->get(), lock_socket);
}

absl::StatusOr<Fd> LoadLockProgram(const LockPolicy& policy, absl::string_view lock_socket) {
  absl::StatusOr<Fd> program = LoadLockProgramOurselves(policy);
  if (absl::IsPermissionDenied(program.status())) {
    program = RequestLockProgram(policy, lock_socket.empty() ? kDefaultLockSocket : std::string(lock_socket));
  }
  if (!program.ok()) return program;
  if (absl::Status status = TryOnSocket(program->get()); !status.ok()) return status;
  return program;
}

}  // namespace shunt::net
