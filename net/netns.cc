// SPDX-License-Identifier: Apache-2.0
#include "net/netns.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_format.h"
#include "core/check.h"
#include "net/rtnetlink.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

namespace shunt::net {
namespace {

constexpr int kSocketsMax = SpareSockets::kCapacity;  // of each family, in one visit
constexpr int kVisitTimeoutMs = 5000;

// What the child tells beside the descriptors, which come in the order: monitor, tcp4..., tcp6...
struct Letter {
  int error;      // 0, or the errno of `step`
  char step[32];  // what failed
  int tcp4;       // how many of each
  int tcp6;
  int first_unprivileged_port;
};

struct Parcel {
  Letter letter{};
  std::array<int, 1 + 2 * kSocketsMax> fds{};
  int count = 0;
};

bool FailLetter(Letter& letter, const char* step) {
  letter.error = errno;
  strncpy(letter.step, step, sizeof(letter.step) - 1);
  return false;
}

// A task's namespaces, opened by name: a pidfd names only whole processes (threads from Linux 6.9 on).
struct Namespaces {
  Fd net, user;
};

Result<Namespaces> OpenNamespaces(pid_t tid) {
  Namespaces opened{
      .net = Fd(open(absl::StrFormat("/proc/%d/ns/net", tid).c_str(), O_RDONLY | O_CLOEXEC)),
      .user = Fd(open(absl::StrFormat("/proc/%d/ns/user", tid).c_str(), O_RDONLY | O_CLOEXEC)),
  };
  if (!opened.net.valid() || !opened.user.valid()) return FailErrno();
  return opened;
}

// Joins the network namespace, through its user namespace where our privilege alone does not reach.
bool Enter(const Namespaces& there, Letter& letter) {
  if (setns(there.net.get(), CLONE_NEWNET) == 0) return true;
  if (setns(there.user.get(), CLONE_NEWUSER) == 0 && setns(there.net.get(), CLONE_NEWNET) == 0) return true;
  return FailLetter(letter, "enter its network namespace");
}

int CollectSockets(int family, int wanted, Parcel& parcel) {
  int made = 0;
  for (; made < wanted; ++made) {
    const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) break;
    parcel.fds[static_cast<size_t>(parcel.count++)] = fd;
  }
  return made;
}

void SendParcel(int channel, Parcel& parcel) {
  iovec data{.iov_base = &parcel.letter, .iov_len = sizeof(parcel.letter)};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(parcel.fds))> control{};
  msghdr message{.msg_iov = &data, .msg_iovlen = 1};
  if (parcel.count > 0) {
    const size_t bytes = static_cast<size_t>(parcel.count) * sizeof(int);
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(bytes);
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(bytes);
    memcpy(CMSG_DATA(header), parcel.fds.data(), bytes);
  }
  sendmsg(channel, &message, MSG_NOSIGNAL);
}

[[noreturn]] void Visitor(const Namespaces& there, int channel, int sockets) {
  Parcel parcel;
  if (Enter(there, parcel.letter)) {
    if (Result<Fd> monitor = OpenRouteMonitor(); monitor) {
      parcel.fds[static_cast<size_t>(parcel.count++)] = monitor->release();
      parcel.letter.tcp4 = CollectSockets(AF_INET, sockets, parcel);
      parcel.letter.tcp6 = CollectSockets(AF_INET6, sockets, parcel);
      parcel.letter.first_unprivileged_port = FirstUnprivilegedPort();
    } else {
      errno = monitor.error().code;
      FailLetter(parcel.letter, "open a route monitor there");
    }
  }
  SendParcel(channel, parcel);
  _exit(0);
}

absl::StatusOr<NetnsVisit> ReceiveParcel(int channel, pid_t tid) {
  pollfd readable{.fd = channel, .events = POLLIN};
  if (poll(&readable, 1, kVisitTimeoutMs) != 1) {
    return absl::DeadlineExceededError(
        absl::StrFormat("the visit to the network of task %d took too long", tid));
  }
  Letter letter{};
  iovec data{.iov_base = &letter, .iov_len = sizeof(letter)};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * (1 + 2 * kSocketsMax))> control{};
  msghdr message{
      .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.data(), .msg_controllen = control.size()};
  if (recvmsg(channel, &message, MSG_CMSG_CLOEXEC) != static_cast<ssize_t>(sizeof(letter))) {
    return absl::UnavailableError(absl::StrFormat("the visit to the network of task %d ended early", tid));
  }
  std::vector<Fd> fds;
  if (const cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr && header->cmsg_type == SCM_RIGHTS) {
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      fds.emplace_back(fd);
    }
  }
  if (letter.error != 0) {
    return ToStatus({letter.error}, absl::StrFormat("task %d: cannot %s", tid, letter.step));
  }
  if (fds.size() != size_t{1} + static_cast<size_t>(letter.tcp4) + static_cast<size_t>(letter.tcp6)) {
    return absl::ResourceExhaustedError(
        "too few descriptors left: raise the limit of open files (ulimit -n)");
  }
  NetnsVisit visit;
  visit.first_unprivileged_port = letter.first_unprivileged_port;
  visit.route_monitor = std::move(fds[0]);
  for (size_t i = 1; i < fds.size(); ++i) {
    (i <= static_cast<size_t>(letter.tcp4) ? visit.tcp4 : visit.tcp6).Add(std::move(fds[i]));
  }
  const Result<uint64_t> cookie = NetnsCookie(visit.route_monitor.get());
  if (!cookie) return ToStatus(cookie.error(), "read SO_NETNS_COOKIE");
  visit.cookie = *cookie;
  return visit;
}

uint64_t OwnerOf(int netns_fd) {
  const Fd owner(ioctl(netns_fd, NS_GET_USERNS));
  struct stat status;
  return owner.valid() && fstat(owner.get(), &status) == 0 ? status.st_ino : 0;
}

}  // namespace

Result<uint64_t> NetnsCookie(int socket_fd) {
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  if (getsockopt(socket_fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size) != 0) return FailErrno();
  return cookie;
}

absl::StatusOr<uint64_t> OwnNetnsCookie() {
  const Fd any(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!any.valid()) return ToStatus({errno}, "make a socket");
  const Result<uint64_t> cookie = NetnsCookie(any.get());
  if (!cookie) {
    return absl::FailedPreconditionError("the kernel has no SO_NETNS_COOKIE (Linux 5.14 or later is needed)");
  }
  return *cookie;
}

// What /proc/sys/net shows depends on the network namespace of whoever looks.
int FirstUnprivilegedPort() {
  const Fd file(open("/proc/sys/net/ipv4/ip_unprivileged_port_start", O_RDONLY | O_CLOEXEC));
  std::array<char, 16> text{};
  if (!file.valid() || read(file.get(), text.data(), text.size() - 1) <= 0) return 1024;
  return atoi(text.data());
}

absl::StatusOr<NetnsVisit> VisitNetns(pid_t tid, int sockets_of_each_family) {
  SHUNT_CHECK(sockets_of_each_family <= kSocketsMax);
  const Result<Namespaces> there = OpenNamespaces(tid);
  if (!there) return ToStatus(there.error(), absl::StrFormat("open the namespaces of task %d", tid));
  std::array<int, 2> pair;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()) != 0) {
    return ToStatus({errno}, "make a socket pair");
  }
  const Fd ours(pair[0]);
  Fd theirs(pair[1]);
  const pid_t child = fork();
  if (child < 0) return ToStatus({errno}, "fork");
  if (child == 0) Visitor(*there, theirs.get(), sockets_of_each_family);
  theirs.reset();
  const absl::Cleanup reap = [child] {
    kill(child, SIGKILL);  // does nothing if it has sent its letter and ended
    waitpid(child, nullptr, 0);
  };
  absl::StatusOr<NetnsVisit> visit = ReceiveParcel(ours.get(), tid);
  if (visit.ok()) visit->owner = OwnerOf(there->net.get());
  return visit;
}

}  // namespace shunt::net
