// SPDX-License-Identifier: Apache-2.0
// Moves epoll registrations: who watches is asked by kcmp, how is read from fdinfo, and adding happens at the
// same number.

#include "net/epoll_migration.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <optional>
#include <span>
#include <utility>

#include "core/fd.h"
#include "net/epoll_fdinfo.h"
#include "net/proc_numbers.h"

namespace shunt::net {
namespace {

constexpr int kMaxDescriptors = 4096;
// One number can stand for several files in one epoll (the number was closed and reused while a dup kept the
// file alive); nobody has more than a few of them.
constexpr uint32_t kMaxSameNumber = 16;

enum class Watch { kThisFile, kOtherFile, kNoMore, kNoEpoll };

// What stands at place `offset` among the entries for `number` in the target's descriptor `epoll`. `self` is
// the thread of ours in whose descriptor table `old_fd` is: a process id means its leader's.
Result<Watch> AskEpoll(pid_t self, pid_t tid, int number, int old_fd, int epoll, uint32_t offset) {
  kcmp_epoll_slot slot{};
  slot.efd = static_cast<uint32_t>(epoll);
  slot.tfd = static_cast<uint32_t>(number);
  slot.toff = offset;
  const long order = syscall(SYS_kcmp, self, tid, KCMP_EPOLL_TFD, old_fd, &slot);
  if (order == 0) return Watch::kThisFile;
  if (order > 0) return Watch::kOtherFile;
  switch (errno) {
    case ENOENT:
      return Watch::kNoMore;
    case EBADF:   // closed meanwhile
    case EINVAL:  // open, and something else
      return Watch::kNoEpoll;
    default:
      return FailErrno();
  }
}

// The kernel's device number as fdinfo prints it (s_dev: 12 bits of major, 20 of minor).
uint64_t KernelDevice(dev_t device) {
  return (uint64_t{major(device)} << 20) | minor(device);
}

// Calls `see(entry)` for every entry of `epoll_fd`, a descriptor of this thread's table. However long the
// list is, it is one snapshot: the kernel renders it in the first read and hands out pieces.
template <typename See>
Result<void> ForEachEntry(int epoll_fd, See see) {
  std::array<char, 64> path;
  std::snprintf(path.data(), path.size(), "/proc/thread-self/fdinfo/%d", epoll_fd);
  const Fd fdinfo(open(path.data(), O_RDONLY | O_CLOEXEC));
  if (!fdinfo.valid()) return FailErrno();
  EpollFdinfo entries;
  for (;;) {
    const std::span<char> room = entries.room();
    const ssize_t length = read(fdinfo.get(), room.data(), room.size());
    if (length < 0) return FailErrno();
    if (length == 0) return {};
    entries.Take(static_cast<size_t>(length), see);
  }
}

bool IsDisarmed(uint32_t events) {
  return (events & ~uint32_t{EPOLLONESHOT | EPOLLET | EPOLLWAKEUP | EPOLLEXCLUSIVE}) == 0;
}

// `twin` is where it has to be: at the target's number.
Result<void> AddLike(Fd epoll, const struct stat& old_file, int twin) {
  std::optional<EpollEntry> old_entry;
  const Result<void> seen = ForEachEntry(epoll.get(), [&](const EpollEntry& entry) {
    if (entry.number == twin && entry.inode == old_file.st_ino &&
        entry.device == KernelDevice(old_file.st_dev)) {
      old_entry = entry;
    }
  });
  if (!seen) return seen;
  if (!old_entry) {
    // Removed by another thread of the target: nothing to do. Or its descriptor is not an epoll any more;
    // closing our copy could then wait for a FUSE server inside the container.
    if (epoll_ctl(epoll.get(), EPOLL_CTL_DEL, twin, nullptr) != 0 && errno == ENOENT) return {};
    CloseElsewhere(std::move(epoll));
    return Fail(EBADF);
  }
  if (IsDisarmed(old_entry->events)) return Fail(ENOTSUP);
  epoll_event event{};
  event.events = old_entry->events;
  event.data.u64 = old_entry->data;
  // EEXIST: two descriptors of one epoll, and the first has been served. Nobody but us has the twin.
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, twin, &event) != 0 && errno != EEXIST) return FailErrno();
  return {};
}

}  // namespace

Result<EpollSet> FindEpolls(pid_t tid) {
  std::array<char, 32> path;
  std::snprintf(path.data(), path.size(), "/proc/%d/fdinfo", tid);
  const Fd directory(open(path.data(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid()) return FailErrno();
  const pid_t self = gettid();  // the directory's number is the calling thread's, be it the side thread
  EpollSet found;
  int looked_at = 0;
  int error = 0;
  const Result<void> walked = ForEachNumber(directory.get(), [&](int number) {
    // Which file we ask for does not matter: only an epoll gives an answer about it. The directory is a file
    // that we have open.
    const Result<Watch> watch = AskEpoll(self, tid, 0, directory.get(), number, 0);
    if (!watch) {
      error = watch.error().code;
    } else if (++looked_at > kMaxDescriptors) {
      error = E2BIG;
    } else if (*watch != Watch::kNoEpoll) {
      if (found.count == EpollSet::kCapacity) {
        error = E2BIG;
      } else {
        found.fds[found.count++] = number;
      }
    }
    return error == 0;
  });
  if (!walked) return tl::unexpected(walked.error());
  if (error != 0) return Fail(error);
  return found;
}

Result<EpollSet> FindWatchers(pid_t tid, int number, int old_fd, const EpollSet& epolls) {
  const pid_t self = getpid();  // `old_fd` is the engine's, also where the side thread asks
  EpollSet watchers;
  for (const int epoll : epolls) {
    for (uint32_t offset = 0;; ++offset) {
      const Result<Watch> watch = AskEpoll(self, tid, number, old_fd, epoll, offset);
      if (!watch) return tl::unexpected(watch.error());
      if (*watch == Watch::kThisFile) watchers.fds[watchers.count++] = epoll;
      if (*watch == Watch::kNoEpoll) watchers.stale = true;
      if (*watch != Watch::kOtherFile) break;
      if (offset == kMaxSameNumber) return Fail(E2BIG);
    }
  }
  return watchers;
}

Result<void> EpollMigration::Migrate(SideTable& table) const {
  // The twin first: it occupies the number, so that nothing else can come to lie there.
  const Result<Fd> twin = table.FromEngineAt(twin_fd_, number_);
  if (!twin) return tl::unexpected(twin.error());
  const Result<Fd> target = table.FromEngine(target_pidfd_);
  if (!target) return tl::unexpected(target.error());
  struct stat old_file;
  {
    const Result<Fd> old = table.FromEngine(old_fd_);
    if (!old) return tl::unexpected(old.error());
    if (fstat(old->get(), &old_file) != 0) return FailErrno();
  }
  for (const int watcher : watchers_) {
    Fd epoll(static_cast<int>(syscall(SYS_pidfd_getfd, target->get(), watcher, 0)));
    if (!epoll.valid()) return FailErrno();
    if (Result<void> added = AddLike(std::move(epoll), old_file, twin->get()); !added) return added;
  }
  return {};
}

}  // namespace shunt::net
