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

#include "absl/strings/str_cat.h"
#include "core/fd.h"
#include "core/proc_text.h"

namespace shunt {
namespace {

// The text of /proc/PID/status, of which 4 KiB hold everything up to "Seccomp:". Empty if there is none.
std::string StatusOf(pid_t pid) {
  const Fd file(open(absl::StrCat("/proc/", pid, "/status").c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 4096> text;
  const ssize_t length = file.valid() ? read(file.get(), text.data(), text.size()) : -1;
  return length > 0 ? std::string(text.data(), static_cast<size_t>(length)) : std::string();
}

bool InUserNamespaceOf(pid_t pid, uid_t uid) {
  const Fd user_namespace(open(absl::StrCat("/proc/", pid, "/ns/user").c_str(), O_RDONLY | O_CLOEXEC));
  uid_t owner = 0;
  return user_namespace.valid() && ioctl(user_namespace.get(), NS_GET_OWNER_UID, &owner) == 0 && owner == uid;
}

}  // namespace

pid_t TrustedPid(pid_t pid, const Peer& peer) {
  constexpr uint64_t kSeccompModeFilter = 2;
  if (pid <= 0 || peer.pid == 0) return 0;
  const std::string status = StatusOf(pid);
  if (NumberBehind(status, "Seccomp:") != kSeccompModeFilter) return 0;
  if (NumberBehind(status, "Uid:") == uint64_t{peer.uid} || InUserNamespaceOf(pid, peer.uid)) return pid;
  return 0;
}

}  // namespace shunt
