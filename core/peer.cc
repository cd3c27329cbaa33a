// SPDX-License-Identifier: Apache-2.0
// PeerRule: see peer.h.

#include "core/peer.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "core/fd.h"

namespace shunt {
namespace {

// What the kernel says for ids that a namespace does not have. In the first user namespace, which has them
// all, the number is an ordinary user's (nobody's); there it is not looked at.
uid_t OverflowUid() {
  constexpr uid_t kDefault = 65534;
  const Fd file(open("/proc/sys/kernel/overflowuid", O_RDONLY | O_CLOEXEC));
  std::array<char, 16> text{};
  if (!file.valid() || read(file.get(), text.data(), text.size() - 1) <= 0) return kDefault;
  return static_cast<uid_t>(std::strtoul(text.data(), nullptr, 10));
}

// True in the first user namespace, and in one that maps every id.
bool KnowsEveryUid() {
  constexpr unsigned long kEveryUid = 4294967295;
  const Fd file(open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC));
  std::array<char, 64> text{};
  if (!file.valid() || read(file.get(), text.data(), text.size() - 1) <= 0) return false;
  char* at = text.data();
  for (const unsigned long expected : {0UL, 0UL, kEveryUid}) {
    if (std::strtoul(at, &at, 10) != expected) return false;
  }
  return true;
}

}  // namespace

Result<Peer> PeerOf(int socket_fd) {
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  if (getsockopt(socket_fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return FailErrno();
  return Peer{credentials.uid, credentials.pid};
}

absl::Status PeerRule::Check(const Peer& peer) const {
  if (peer.uid == 0 || peer.uid == geteuid()) return absl::OkStatus();
  const std::string who = absl::StrCat("process ", peer.pid, " of user ", peer.uid, " may not talk to us");
  if (std::find(uids_.begin(), uids_.end(), peer.uid) == uids_.end()) {
    return absl::PermissionDeniedError(absl::StrCat(
        who, ": if it should, name ", peer.uid, " in allow-uids of the configuration, or in --allow-uid"));
  }
  if (peer.uid == OverflowUid() && !KnowsEveryUid()) {
    return absl::PermissionDeniedError(
        absl::StrCat(who,
                     ": that number stands for all users that our user namespace does not have; run the "
                     "agent outside of it"));
  }
  return absl::OkStatus();
}

std::vector<uid_t> PeerRule::Others() const {
  std::vector<uid_t> others = uids_;
  std::erase_if(others, [](uid_t uid) { return uid == 0 || uid == geteuid(); });
  std::sort(others.begin(), others.end());
  others.erase(std::unique(others.begin(), others.end()), others.end());
  return others;
}

}  // namespace shunt
