// SPDX-License-Identifier: Apache-2.0
#include "core/target.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstring>
#include <optional>
#include <string_view>

#include "core/patience.h"
#include "core/proc_text.h"

// Linux 6.9: a pidfd for one thread. Its value is that of O_EXCL, by definition.
#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
#endif

namespace shunt {
namespace {

// Writes "<prefix><number><suffix>" without the heap.
template <size_t kSize>
const char* Path(std::array<char, kSize>& buffer, std::string_view prefix, int number,
                 std::string_view suffix) {
  char* at = buffer.data();
  memcpy(at, prefix.data(), prefix.size());
  at = std::to_chars(at + prefix.size(), buffer.data() + kSize - suffix.size() - 1, number).ptr;
  memcpy(at, suffix.data(), suffix.size());
  at[suffix.size()] = '\0';
  return buffer.data();
}

// The number behind `key` in the thread's status. ESRCH: there is no such thread, or we may not look.
struct StatusText {
  std::array<char, 1024> text;
  size_t size = 0;

  explicit StatusText(pid_t tid) {
    std::array<char, 64> path;
    const Fd status(open(Path(path, "/proc/", tid, "/status"), O_RDONLY | O_CLOEXEC));
    const ssize_t got = status.valid() ? read(status.get(), text.data(), text.size()) : 0;
    size = got > 0 ? static_cast<size_t>(got) : 0;
  }
  std::optional<uint64_t> NumberOf(std::string_view key) const {
    return NumberBehind({text.data(), size}, key);
  }
};

// Before Linux 6.9 a pidfd names a whole process. That is the thread's own descriptor table only if it shares
// its leader's.
Result<Fd> OpenLeader(pid_t tid) {
  const auto tgid = static_cast<pid_t>(StatusText(tid).NumberOf("Tgid:").value_or(0));
  if (tgid <= 0) return Fail(ESRCH);
  if (tgid != tid && syscall(SYS_kcmp, tid, tgid, KCMP_FILES, 0, 0) != 0) return Fail(EPERM);
  Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, tgid, 0)));
  if (!pidfd.valid()) return FailErrno();
  return pidfd;
}

}  // namespace

Result<TaskOwner> Target::Owner() const {
  const StatusText status(tid_);
  const auto process = status.NumberOf("Tgid:");
  const auto user = status.NumberOf("Uid:");
  if (!process || !user) return Fail(ESRCH);
  return TaskOwner{.process = static_cast<pid_t>(*process), .user = static_cast<uid_t>(*user)};
}

Result<size_t> Target::ReadMemory(uint64_t address, std::span<std::byte> into) const {
  iovec local{.iov_base = into.data(), .iov_len = into.size()};
  iovec remote{.iov_base = reinterpret_cast<void*>(address), .iov_len = into.size()};
  const Patience::Access access;
  const ssize_t got = process_vm_readv(tid_, &local, 1, &remote, 1, 0);
  if (got < 0) return FailErrno();
  return static_cast<size_t>(got);
}

Result<size_t> Target::WriteMemory(uint64_t address, std::span<const std::byte> from) const {
  iovec local{.iov_base = const_cast<std::byte*>(from.data()), .iov_len = from.size()};
  iovec remote{.iov_base = reinterpret_cast<void*>(address), .iov_len = from.size()};
  const Patience::Access access;
  const ssize_t put = process_vm_writev(tid_, &local, 1, &remote, 1, 0);
  if (put < 0) return FailErrno();
  return static_cast<size_t>(put);
}

Result<void> Target::OpenPidFd() {
  pidfd_.reset(static_cast<int>(syscall(SYS_pidfd_open, tid_, PIDFD_THREAD)));
  if (pidfd_.valid()) return {};
  if (errno != EINVAL) return FailErrno();
  Result<Fd> leader = OpenLeader(tid_);
  if (!leader) return tl::unexpected(leader.error());
  pidfd_ = std::move(*leader);
  return {};
}

Result<int> Target::PidFd() {
  if (!pidfd_.valid()) {
    if (Result<void> opened = OpenPidFd(); !opened) return tl::unexpected(opened.error());
  }
  return pidfd_.get();
}

Result<Fd> Target::TakeFd(int number) {
  for (int attempt = 0; attempt < 2; ++attempt) {
    const Result<int> pidfd = PidFd();
    if (!pidfd) return tl::unexpected(pidfd.error());
    Fd taken(static_cast<int>(syscall(SYS_pidfd_getfd, *pidfd, number, 0)));
    if (taken.valid()) return taken;
    if (errno != ESRCH) return FailErrno();
    pidfd_.reset();  // an earlier owner of this tid: open the present one's
    note_ = {};
  }
  return Fail(ESRCH);
}

Result<Fd> Target::OpenInfo(int number) {
  std::array<char, 64> path;
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (!info_dir_.valid()) {
      info_dir_.reset(open(Path(path, "/proc/", tid_, "/fdinfo"), O_PATH | O_DIRECTORY | O_CLOEXEC));
      if (!info_dir_.valid()) return FailErrno();
    }
    Fd info(openat(info_dir_.get(), Path(path, "", number, ""), O_RDONLY | O_CLOEXEC));
    if (info.valid()) return info;
    info_dir_.reset();  // no such descriptor, or an earlier owner of this tid
  }
  return FailErrno();
}

// Programs that connect again and again mostly do it with the same number, so the file is kept open. It names
// the thread and the number, not what was open there: the kernel looks anew at each reading (tests/facts),
// and finds nothing if the thread has gone.
Result<DescriptorInfo> Target::Describe(int number) {
  std::array<char, 512> buffer;
  ssize_t size = 0;
  if (info_number_ == number) size = pread(info_file_.get(), buffer.data(), buffer.size(), 0);
  if (size <= 0) {
    info_number_ = -1;
    Result<Fd> info = OpenInfo(number);
    if (!info) return tl::unexpected(info.error());
    info_file_ = std::move(*info);
    info_number_ = number;
    size = pread(info_file_.get(), buffer.data(), buffer.size(), 0);
  }
  if (size <= 0) return Fail(size < 0 ? errno : EIO);
  const std::string_view text(buffer.data(), static_cast<size_t>(size));
  return DescriptorInfo{
      .flags = static_cast<int>(NumberBehind(text, "flags:", 8).value_or(0)),
      .ino = NumberBehind(text, "ino:").value_or(0),
      .mount = static_cast<int>(NumberBehind(text, "mnt_id:").value_or(0)),
  };
}

Target& TargetCache::Find(uint64_t owner, pid_t tid) {
  Target& entry = entries_[static_cast<size_t>(tid) % entries_.size()];
  if (entry.tid_ != tid || entry.owner_ != owner) {
    entry = Target();
    entry.tid_ = tid;
    entry.owner_ = owner;
  }
  return entry;
}

void TargetCache::Forget(uint64_t owner) {
  for (Target& entry : entries_) {
    if (entry.owner_ == owner) entry = Target();
  }
}

}  // namespace shunt
