// SPDX-License-Identifier: Apache-2.0
// FileSource: see file_source.h.

#include "net/discovery/file_source.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/limits.h"

namespace shunt::net {
namespace {

constexpr char kStays[] = "; what was read before stays in force";

int64_t Nanoseconds(const timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

absl::Status Unreadable(const std::string& path, int error) {
  const char* const remedy = error == ENOENT || error == ENOTDIR ? ": write it, or change discover.file"
                             : error == EACCES || error == EPERM
                                 ? ": let us read it and search its directories"
                                 : "";
  return absl::ErrnoToStatus(error, absl::StrCat("read ", path, remedy, kStays));
}

}  // namespace

FileSource::FileSource(std::string path, Parse parse, Tell tell)
    : path_(std::move(path)), parse_(std::move(parse)), teller_(std::move(tell)) {}

std::string FileSource::Title() const {
  std::string title = absl::StrCat("file ", path_.path());
  if (path_.inotify_error() != 0) {
    absl::StrAppend(&title, " (looked at every ", kBlindPeriod / 1'000'000'000,
                    " s for want of inotify: ", std::strerror(path_.inotify_error()),
                    "; raise fs.inotify.max_user_instances or max_user_watches)");
  }
  return title;
}

void FileSource::Advance(int64_t now) {
  const WatchedPath::Change change = path_.Take();
  if (change == WatchedPath::Change::kNone && now < due_) return;
  replaced_ = replaced_ || change == WatchedPath::Change::kReplaced;
  if (const int64_t rest = paid_until_ - kAhead; now < rest) {
    due_ = rest;
    return;
  }
  Look(now, first_ || std::exchange(replaced_, false));
}

void FileSource::Look(int64_t now, bool whole) {
  const Result<Fd> found = path_.Follow();
  const Sight sight = found ? SightOf(found->get()) : Sight{.error = found.error().code};
  due_ = now + (path_.blind() ? kBlindPeriod : kPeriod);
  if (sight == told_ && !whole) {
    unsettled_.reset();
    return;
  }
  if (!unsettled_ || unsettled_->sight != sight) unsettled_ = {sight, now + kSettle};
  const bool settled = now >= unsettled_->until;
  if (!settled) due_ = unsettled_->until;
  if (!settled && !first_ && !(whole && sight.is_file())) return;

  const absl::StatusOr<std::string> text = Read(found, sight);
  if (const Sight after = found ? SightOf(found->get()) : sight; after != sight) {
    // It was written while we read. Nothing of that counts.
    unsettled_ = {after, now + kSettle};
    due_ = unsettled_->until;
    return;
  }
  first_ = false;
  if (settled && sight.is_file() && !text.ok()) {
    due_ = now + kBlindPeriod;  // want of descriptors passes without a trace
  } else if (settled) {
    told_ = sight;
    unsettled_.reset();
  }
  Take(text, now);
}

FileSource::Sight FileSource::SightOf(int fd) {
  struct stat file;
  if (fstat(fd, &file) != 0) return {.error = errno};
  return {.mode = file.st_mode,
          .device = file.st_dev,
          .inode = file.st_ino,
          .size = file.st_size,
          .modified = Nanoseconds(file.st_mtim),
          .changed = Nanoseconds(file.st_ctim)};
}

absl::StatusOr<std::string> FileSource::Read(const Result<Fd>& found, const Sight& sight) const {
  if (sight.error != 0) return Unreadable(path_.path(), sight.error);
  if (!sight.is_file()) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_.path(), " is not a file: put one there, or a link to one", kStays));
  }
  if (static_cast<uint64_t>(sight.size) > limits::kBackendFileBytes) {
    return absl::FailedPreconditionError(absl::StrCat(path_.path(), " has ", sight.size, " bytes: more than ",
                                                      limits::kBackendFileBytes, " are not read", kStays));
  }
  // The very file that was looked at, which is no FIFO and no device: opening it neither waits nor does
  // anything.
  const Fd file(
      open(absl::StrCat("/proc/self/fd/", found->get()).c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!file.valid()) return Unreadable(path_.path(), errno);
  std::string text(static_cast<size_t>(sight.size), '\0');
  size_t filled = 0;
  while (filled < text.size()) {
    const ssize_t size = read(file.get(), text.data() + filled, text.size() - filled);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return Unreadable(path_.path(), errno);
    if (size == 0) break;
    filled += static_cast<size_t>(size);
  }
  text.resize(filled);  // it has become shorter: then it looks different, too
  return text;
}

void FileSource::Take(const absl::StatusOr<std::string>& text, int64_t now) {
  if (!text.ok()) {
    teller_.Failed(text.status());
    return;
  }
  const size_t hash = std::hash<std::string_view>()(*text);
  if (hash == text_hash_ && !teller_.failing()) return;
  paid_until_ = std::max(paid_until_, now) + kApart;
  absl::StatusOr<std::vector<BackendSpec>> backends = parse_(*text, path_.path());
  if (!backends.ok()) {
    teller_.Failed(backends.status());
    return;
  }
  text_hash_ = hash;
  teller_.Found(*std::move(backends));
}

}  // namespace shunt::net
