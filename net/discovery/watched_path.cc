// SPDX-License-Identifier: Apache-2.0
// WatchedPath: see watched_path.h.

#include "net/discovery/watched_path.h"

#include <fcntl.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace shunt::net {
namespace {

constexpr int kMostLinks = 40;  // the kernel's MAXSYMLINKS

// A turn ends after so many reads of the queue: whoever makes files all the time keeps nobody busy for good.
constexpr int kReadsPerTurn = 16;

constexpr uint32_t kReplacing = IN_MOVED_TO | IN_CLOSE_WRITE;
constexpr uint32_t kAsked =
    kReplacing | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF;

Fd OpenStart(std::string_view path) {
  return Fd(open(path.starts_with('/') ? "/" : ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
}

// Nothing: no symlink.
std::optional<std::string> LinkTarget(int directory_fd, const std::string& name) {
  std::array<char, PATH_MAX> target;
  const ssize_t size = readlinkat(directory_fd, name.c_str(), target.data(), target.size());
  if (size < 0) return std::nullopt;
  return std::string(target.data(), static_cast<size_t>(size));
}

// The names of `path` go on top of `names`, the first one uppermost.
void PushNames(std::string_view path, std::vector<std::string>& names) {
  const std::vector<std::string> pushed =
      absl::StrSplit(absl::string_view(path.data(), path.size()), '/', absl::SkipEmpty());
  names.insert(names.end(), pushed.rbegin(), pushed.rend());
}

}  // namespace

WatchedPath::WatchedPath(std::string path)
    : path_(std::move(path)),
      inotify_(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)),
      no_inotify_(inotify_.valid() ? 0 : errno) {}

WatchedPath::Change WatchedPath::Take() {
  Change change = Change::kNone;
  alignas(inotify_event) std::array<char, 16384> buffer;
  for (int i = 0; i < kReadsPerTurn && inotify_.valid(); ++i) {
    const ssize_t size = read(inotify_.get(), buffer.data(), buffer.size());
    if (size <= 0) break;
    for (const char* next = buffer.data(); next < buffer.data() + size;) {
      inotify_event event;
      std::memcpy(&event, next, sizeof(event));
      const std::string_view name(next + sizeof(event), strnlen(next + sizeof(event), event.len));
      next += sizeof(event) + event.len;
      const auto watch = watches_.find(event.wd);
      // A name of no interest, or of a directory that is of none any more. No name: the directory's own fate.
      const bool lost = (event.mask & IN_Q_OVERFLOW) != 0;
      if (!lost && watch == watches_.end()) continue;
      if (!lost && !name.empty() && !watch->second.contains(std::string(name))) continue;
      change = std::max(change, (event.mask & kReplacing) != 0 ? Change::kReplaced : Change::kTouched);
    }
  }
  return change;
}

Result<Fd> WatchedPath::Follow() {
  Watches watches;
  inotify_error_ = no_inotify_;
  blind_ = true;
  Result<Fd> found = Walk(watches);
  if (inotify_error_ != 0) blind_ = true;
  for (const auto& [descriptor, names] : watches_) {
    if (!watches.contains(descriptor)) inotify_rm_watch(inotify_.get(), descriptor);
  }
  watches_ = std::move(watches);
  return found;
}

Result<Fd> WatchedPath::Walk(Watches& watches) {
  Fd directory = OpenStart(path_);
  if (!directory.valid()) return FailErrno();
  std::vector<std::string> names;
  PushNames(path_, names);
  int links = 0;
  while (!names.empty()) {
    const std::string name = std::move(names.back());
    names.pop_back();
    const bool last = names.empty();
    std::optional<std::string> target = LinkTarget(directory.get(), name);
    if (last || target) {
      Watch(directory.get(), name, watches);
      target = LinkTarget(directory.get(), name);  // again, since now no change is missed
    }
    if (target) {
      if (++links > kMostLinks) return Fail(ELOOP);
      if (target->starts_with('/')) directory = OpenStart(*target);
      if (!directory.valid()) return FailErrno();
      PushNames(*target, names);
      continue;
    }
    if (last) blind_ = false;
    Fd next(
        openat(directory.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC | (last ? 0 : O_DIRECTORY)));
    if (!next.valid()) return FailErrno();
    directory = std::move(next);
  }
  return directory;
}

void WatchedPath::Watch(int directory_fd, const std::string& name, Watches& watches) {
  if (!inotify_.valid()) return;
  const int descriptor = inotify_add_watch(
      inotify_.get(), absl::StrCat("/proc/self/fd/", directory_fd).c_str(), kAsked | IN_ONLYDIR);
  if (descriptor < 0) {
    inotify_error_ = errno;
  } else {
    watches[descriptor].insert(name);
  }
}

}  // namespace shunt::net
