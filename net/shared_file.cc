// SPDX-License-Identifier: Apache-2.0
// Notices that a swapped-out socket is still held, and finds who holds it.

#include "net/shared_file.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <string_view>
#include <utility>

#include "core/check.h"
#include "core/proc_text.h"
#include "net/held_descriptors.h"
#include "net/proc_numbers.h"

namespace shunt::net {
namespace {

constexpr int kMaxDescriptors = 16384;

struct Relatives {
  pid_t process = 0;  // the thread group that the task belongs to
  pid_t parent = 0;   // 0: not in our pid namespace
};

Result<Relatives> RelativesOf(pid_t tid) {
  std::array<char, 32> path;
  std::snprintf(path.data(), path.size(), "/proc/%d/status", tid);
  const Fd file(open(path.data(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return FailErrno();
  std::array<char, 1024> text;  // what we want stands in its first dozen lines
  const ssize_t length = read(file.get(), text.data(), text.size());
  if (length < 0) return FailErrno();
  const std::string_view lines(text.data(), static_cast<size_t>(length));
  return Relatives{static_cast<pid_t>(NumberBehind(lines, "Tgid:").value_or(0)),
                   static_cast<pid_t>(NumberBehind(lines, "PPid:").value_or(0))};
}

// One search: what is looked for, and how much looking is left.
class Search {
 public:
  Search(const SocketIdentity& socket, uint64_t mount) : socket_(socket), mount_(mount) {}

  // True if the search is over: found, or the budget is gone.
  bool LookInto(pid_t pid) {
    const Fd directory = OpenFdInfoDirectory(pid);
    if (!directory.valid()) return false;  // left, or not ours to look at
    // An error in the middle means that the process left.
    (void)ForEachNumber(directory.get(), [&](int number) {
      if (--budget_ < 0) return false;
      const FdInfo info = ReadFdInfo(directory.get(), number);
      if (info.inode != socket_.inode || info.mount != mount_) return true;
      const Holder candidate{pid, number};
      Fd stranger;
      if (TakeHeld(candidate, socket_, stranger)) {
        found_ = candidate;
        return false;
      }
      if (!stranger.valid()) return true;
      CloseElsewhere(std::move(stranger));
      exchanged_ = true;
      return false;
    });
    return budget_ < 0 || exchanged_ || found_.fd >= 0;
  }

  Result<Holder> result() const {
    if (found_.fd >= 0) return found_;
    if (exchanged_) return Fail(ENOTSOCK);
    return Fail(budget_ < 0 ? E2BIG : ENOENT);
  }

 private:
  const SocketIdentity socket_;
  const uint64_t mount_;
  int budget_ = kMaxDescriptors;
  bool exchanged_ = false;
  Holder found_;
};

}  // namespace

absl::StatusOr<HolderProbe> HolderProbe::Create() {
  Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) return ToStatus(Errno{errno}, "create the epoll that notices shared sockets");
  return HolderProbe(std::move(epoll));
}

Result<void> HolderProbe::Arm(int old_fd) {
  SHUNT_CHECK(!armed_);
  // No events are asked for: the hang-up comes unasked. Once is enough; a file that turns out to be held
  // stays in our epoll until it is closed, and must not report at every later probe.
  epoll_event event{};
  event.events = EPOLLONESHOT;
  event.data.u64 = ++serial_;
  int done = epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, old_fd, &event);
  // The same file, held at an earlier probe and copied to the same number again.
  if (done != 0 && errno == EEXIST) done = epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, old_fd, &event);
  if (done != 0) return FailErrno();
  armed_ = true;
  return {};
}

void HolderProbe::Disarm(int old_fd) {
  SHUNT_CHECK(armed_);
  armed_ = false;
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, old_fd, nullptr);
}

bool HolderProbe::StillHeld() {
  SHUNT_CHECK(armed_);
  armed_ = false;
  // Oneshot entries report once, so this ends; one round is the rule.
  for (;;) {
    std::array<epoll_event, 8> events;
    const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
    if (count <= 0) return false;
    for (int i = 0; i < count; ++i) {
      if (events[static_cast<size_t>(i)].data.u64 == serial_) return true;
    }
  }
}

Result<SocketIdentity> Identify(int socket_fd) {
  SocketIdentity identity;
  socklen_t size = sizeof(identity.cookie);
  // The cookie first: on what is no socket it fails without asking anybody.
  if (getsockopt(socket_fd, SOL_SOCKET, SO_COOKIE, &identity.cookie, &size) != 0) return FailErrno();
  struct stat file;
  if (fstat(socket_fd, &file) != 0) return FailErrno();
  identity.inode = file.st_ino;
  return identity;
}

Result<Fd> TakeHeld(const Holder& holder, const SocketIdentity& socket, Fd& stranger) {
  const Result<Fd> pidfd = OpenPidFd(holder.pid);
  if (!pidfd) return Fail(ENOENT);
  Fd copy(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd->get(), holder.fd, 0)));
  if (!copy.valid()) return errno == EBADF || errno == ESRCH ? Fail(ENOENT) : FailErrno();
  const Result<SocketIdentity> identity = Identify(copy.get());
  if (!identity) {
    stranger = std::move(copy);
    return Fail(ENOTSOCK);
  }
  if (identity->inode != socket.inode) return Fail(ENOENT);
  if (socket.cookie != 0 && identity->cookie != socket.cookie) return Fail(ENOENT);
  return copy;
}

Result<Holder> FindHolder(pid_t tid, const SocketIdentity& socket) {
  const Result<uint64_t> mount = MountOfSockets();
  if (!mount) return tl::unexpected(mount.error());
  const Result<Namespace> network = NetworkOf(tid);
  if (!network) return tl::unexpected(network.error());
  Search search(socket, *mount);
  const Result<Relatives> relatives = RelativesOf(tid);
  if (!relatives) return tl::unexpected(relatives.error());
  // The process first: its table is the task's, unless the task has unshared it.
  const auto [process, parent] = *relatives;
  if (search.LookInto(process) || (tid != process && search.LookInto(tid)) ||
      (parent > 0 && search.LookInto(parent))) {
    return search.result();
  }
  const Fd processes(open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!processes.valid()) return FailErrno();
  const pid_t self = getpid();
  const Result<void> walked = ForEachNumber(processes.get(), [&](pid_t pid) {
    if (pid == self || pid == relatives->process || pid == relatives->parent) return true;
    const Result<Namespace> other = NetworkOf(pid);
    return !other || !(*other == *network) || !search.LookInto(pid);
  });
  if (!walked) return tl::unexpected(walked.error());
  return search.result();
}

}  // namespace shunt::net
