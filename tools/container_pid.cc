// SPDX-License-Identifier: Apache-2.0
// TrustedPid: see container_pid.h.

#include "tools/container_pid.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/fd.h"

namespace shunt {
namespace {

// The text of /proc/PID/status, of which 4 KiB hold everything up to "Seccomp:". Empty if there is none.
std::string StatusOf(pid_t pid) {
  const Fd file(open(absl::StrCat("/proc/", pid, "/status").c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 4096> text;
  const ssize_t length = file.valid() ? read(file.get(), text.data(), text.size()) : -1;
  return length > 0 ? std::string(text.data(), static_cast<size_t>(length)) : std::string();
}

// The first number behind `label`, -1 if there is none.
int64_t NumberIn(const std::string& status, absl::string_view label) {
  for (absl::string_view line : absl::StrSplit(status, '\n')) {
    if (!absl::ConsumePrefix(&line, label)) continue;
    const std::vector<absl::string_view> fields =
        absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    int64_t number = -1;
    return !fields.empty() && absl::SimpleAtoi(fields[0], &number) ? number : -1;
  }
  return -1;
}

bool InUserNamespaceOf(pid_t pid, uid_t uid) {
  const Fd user_namespace(open(absl::StrCat("/proc/", pid, "/ns/user").c_str(), O_RDONLY | O_CLOEXEC));
  uid_t owner = 0;
  return user_namespace.valid() && ioctl(user_namespace.get(), NS_GET_OWNER_UID, &owner) == 0 && owner == uid;
}

}  // namespace

pid_t TrustedPid(pid_t pid, const Peer& peer) {
  constexpr int64_t kSeccompModeFilter = 2;
  if (pid <= 0 || peer.pid == 0) return 0;
  const std::string status = StatusOf(pid);
  if (NumberIn(status, "Seccomp:") != kSeccompModeFilter) return 0;
  if (NumberIn(status, "Uid:") == int64_t{peer.uid} || InUserNamespaceOf(pid, peer.uid)) return pid;
  return 0;
}

}  // namespace shunt
