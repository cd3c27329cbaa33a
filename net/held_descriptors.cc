// SPDX-License-Identifier: Apache-2.0
#include "net/held_descriptors.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <string_view>
#include <utility>

#include "core/clock.h"
#include "core/proc_text.h"
#include "net/proc_numbers.h"
#include "net/side_thread.h"

namespace shunt::net {

FdInfo ReadFdInfo(int directory_fd, int number) {
  std::array<char, 16> name;
  std::snprintf(name.data(), name.size(), "%d", number);
  const Fd file(openat(directory_fd, name.data(), O_RDONLY | O_CLOEXEC));
  std::array<char, 512> text;
  const ssize_t length = file.valid() ? read(file.get(), text.data(), text.size()) : 0;
  if (length <= 0) return {};
  const std::string_view lines(text.data(), static_cast<size_t>(length));
  return {NumberBehind(lines, "ino:").value_or(0), NumberBehind(lines, "mnt_id:").value_or(0)};
}

Fd OpenFdInfoDirectory(pid_t tid) {
  std::array<char, 32> path;
  std::snprintf(path.data(), path.size(), "/proc/%d/fdinfo", tid);
  return Fd(open(path.data(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

Result<uint64_t> MountOfSockets() {
  const Fd some_socket(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!some_socket.valid()) return FailErrno();
  std::array<char, 64> path;
  std::snprintf(path.data(), path.size(), "/proc/thread-self/fdinfo");
  const Fd directory(open(path.data(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid()) return FailErrno();
  return ReadFdInfo(directory.get(), some_socket.get()).mount;
}

Result<Namespace> NetworkOf(pid_t pid) {
  std::array<char, 32> path;
  std::snprintf(path.data(), path.size(), "/proc/%d/ns/net", pid);
  struct stat found;
  if (stat(path.data(), &found) != 0) return FailErrno();
  return Namespace{found.st_dev, found.st_ino};
}

Result<Fd> OpenPidFd(pid_t pid) {
  constexpr unsigned kPidFdThread = O_EXCL;  // PIDFD_THREAD, by definition
  Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, kPidFdThread)));
  if (!pidfd.valid() && errno == EINVAL) pidfd.reset(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd.valid()) return FailErrno();
  return pidfd;
}

// The process that it is in. True: to its end, or it has gone.
bool SocketWalk::GoThrough(uint64_t mount, int64_t until, absl::FunctionRef<void(const Fd& copy)> see) {
  const Fd directory = OpenFdInfoDirectory(process_);
  const Result<Fd> pidfd = directory.valid() ? OpenPidFd(process_) : Fail(ESRCH);
  if (!pidfd || lseek(directory.get(), within_, SEEK_SET) < 0) return true;
  bool through = true;
  const auto look = [&](int number) {
    if (ReadFdInfo(directory.get(), number).mount != mount) return;
    Fd copy(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd->get(), number, 0)));
    if (!copy.valid()) return;
    int type = 0;
    socklen_t size = sizeof(type);
    if (getsockopt(copy.get(), SOL_SOCKET, SO_TYPE, &type, &size) == 0) {
      see(copy);
    } else if (errno == ENOTSOCK) {
      CloseElsewhere(std::move(copy));  // to close it may take as long as its server likes
    }
  };
  (void)ForEachNumber(directory.get(), [&](int number) {
    look(number);
    return through = MonotonicNow() < until;
  });
  within_ = lseek(directory.get(), 0, SEEK_CUR);
  return through;
}

Result<bool> SocketWalk::GoOn(int64_t until, absl::FunctionRef<void(const Fd& copy)> see) {
  const Result<uint64_t> mount = MountOfSockets();
  if (!mount) return tl::unexpected(mount.error());
  const pid_t self = getpid();
  if (const Result<Namespace> own = NetworkOf(self); !own || *own == network_) return true;
  const Fd processes(open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!processes.valid() || lseek(processes.get(), at_, SEEK_SET) < 0) return FailErrno();
  const auto is_in_it = [&](pid_t process) {
    const Result<Namespace> other = process == self ? Fail(ESRCH) : NetworkOf(process);
    return other && *other == network_;
  };
  // Its number may be another's by now.
  if (process_ != 0 && is_in_it(process_) && !GoThrough(*mount, until, see)) return false;
  process_ = 0;
  bool whole = true;
  const Result<void> walked = ForEachNumber(processes.get(), [&](pid_t process) {
    if (is_in_it(process)) {
      process_ = process;
      within_ = 0;
      if (!GoThrough(*mount, until, see)) return whole = false;
      process_ = 0;
    }
    return whole = MonotonicNow() < until;
  });
  if (!walked) return tl::unexpected(walked.error());
  at_ = lseek(processes.get(), 0, SEEK_CUR);
  return whole;
}

}  // namespace shunt::net
