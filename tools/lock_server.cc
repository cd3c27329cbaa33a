// SPDX-License-Identifier: Apache-2.0
// The lock server: a listening socket from systemd or by path, confinement, then one poll loop.

#include "tools/lock_server.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <poll.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "net/lock.h"
#include "net/lock_policy.h"

namespace shunt {
namespace {

using Clock = std::chrono::steady_clock;

// More clients at once than a machine starts containers; the oldest makes room for the next.
constexpr size_t kMaxConnections = 64;
// A client sends its request right after connecting, so who takes this long never will.
constexpr std::chrono::milliseconds kClientPatience{2000};
// Fewer than there is room for, so that in a flood an honest client's request is still read before it is the
// oldest.
constexpr int kAcceptsPerRound = 16;
// Under socket activation starting again costs a few milliseconds, so there is no reason to stay.
constexpr std::chrono::milliseconds kActivatedIdleLimit{30000};
constexpr int kFirstActivatedFd = 3;  // SD_LISTEN_FDS_START

struct Connection {
  Fd socket;
  Clock::time_point deadline;
};

absl::StatusOr<sockaddr_un> UnixAddress(const std::string& path) {
  sockaddr_un address = {.sun_family = AF_UNIX};
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("\"", path,
                                                   "\" is no path for a socket; it must have 1 to ",
                                                   sizeof(address.sun_path) - 1, " bytes"));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

// Removes a socket that nobody answers on any more.
absl::Status RemoveStaleSocket(const std::string& path, const sockaddr_un& address) {
  struct stat info;
  if (::lstat(path.c_str(), &info) != 0) return absl::OkStatus();
  if (!S_ISSOCK(info.st_mode)) {
    return absl::AlreadyExistsError(absl::StrCat(path, " exists and is no socket; choose another --socket"));
  }
  const Fd probe(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ||
      errno != ECONNREFUSED) {
    return absl::AlreadyExistsError(
        absl::StrCat("another server listens on ", path, "; stop it or choose another --socket"));
  }
  if (::unlink(path.c_str()) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot remove the stale socket ", path));
  return absl::OkStatus();
}

// The socket that systemd has passed, or an invalid Fd if it has passed none.
absl::StatusOr<Fd> ActivatedListener() {
  const char* const pid = std::getenv("LISTEN_PID");
  const char* const count = std::getenv("LISTEN_FDS");
  int our_pid = 0;
  if (pid == nullptr || count == nullptr || !absl::SimpleAtoi(pid, &our_pid) || our_pid != ::getpid())
    return Fd();
  if (absl::string_view(count) != "1") {
    return absl::InvalidArgumentError(
        absl::StrCat("systemd passed ", count, " sockets; shunt-lock.socket must have just one"));
  }
  Fd listener(kFirstActivatedFd);
  int type = 0;
  socklen_t size = sizeof(type);
  if (::getsockopt(listener.get(), SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_SEQPACKET) {
    return absl::InvalidArgumentError(
        "systemd passed a socket of another type; shunt-lock.socket needs ListenSequentialPacket=");
  }
  // systemd passes a blocking one, on which accepting until there is nobody would wait for the next.
  if (::fcntl(listener.get(), F_SETFL, O_NONBLOCK) != 0) {
    return absl::ErrnoToStatus(errno, "cannot make the socket that systemd passed nonblocking");
  }
  return listener;
}

absl::Status KeepOnlyCapBpf() {
  __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets = {};
  constexpr size_t kWord = CAP_TO_INDEX(CAP_BPF);
  sets[kWord].effective = sets[kWord].permitted = CAP_TO_MASK(CAP_BPF);
  // Ambient and inheritable capabilities have to be permitted ones, so they shrink with them.
  if (::syscall(SYS_capset, &header, sets.data()) != 0) {
    return absl::ErrnoToStatus(errno,
                               "the lock server needs CAP_BPF; run it as root or by shunt-lock.socket");
  }
  return absl::OkStatus();
}

absl::Status AllowOnlyTheLoop() {
  struct Release {
    void operator()(scmp_filter_ctx context) const { seccomp_release(context); }
  };
  const std::unique_ptr<void, Release> filter(seccomp_init(SCMP_ACT_ERRNO(EPERM)));
  int error = filter ? 0 : -ENOMEM;
  // What the loop below calls, and what malloc, exit and a restarted poll need.
  for (const int call :
       {SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(accept4), SCMP_SYS(recvfrom), SCMP_SYS(sendmsg),
        SCMP_SYS(close), SCMP_SYS(brk), SCMP_SYS(mmap), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise),
        SCMP_SYS(futex), SCMP_SYS(getrandom), SCMP_SYS(clock_gettime), SCMP_SYS(write),
        SCMP_SYS(restart_syscall), SCMP_SYS(rt_sigreturn), SCMP_SYS(exit_group)}) {
    if (error == 0) error = seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, call, 0);
  }
  if (error == 0) {
    constexpr scmp_arg_cmp kLoadOnly = {.arg = 0, .op = SCMP_CMP_EQ, .datum_a = BPF_PROG_LOAD};
    error = seccomp_rule_add_array(filter.get(), SCMP_ACT_ALLOW, SCMP_SYS(bpf), 1, &kLoadOnly);
  }
  if (error == 0) error = seccomp_load(filter.get());  // sets no_new_privs
  if (error != 0) return absl::ErrnoToStatus(-error, "the lock server cannot confine itself by seccomp");
  return absl::OkStatus();
}

// A descriptor to send, if the request deserves one, else what is wrong with it.
absl::StatusOr<Fd> Grant(std::span<const std::byte> request) {
  absl::StatusOr<net::LockPolicy> policy = net::DecodeLockPolicy(request);
  if (!policy.ok()) return policy.status();
  return net::LoadLockProgramOurselves(*policy);
}

void Answer(int client_fd) {
  std::array<std::byte, net::kMaxLockRequest + 1>
      request;  // one more, so that one that is too long is seen to be
  // Descriptors that a client sends along are dropped by the kernel: there is nowhere to put them.
  const ssize_t size = ::recv(client_fd, request.data(), request.size(), MSG_DONTWAIT);
  if (size <= 0) return;
  const absl::StatusOr<Fd> program = Grant(std::span(request).first(static_cast<size_t>(size)));
  if (!program.ok() && !absl::IsInvalidArgument(program.status())) {
    std::fprintf(stderr, "shunt lock-server: %s\n", std::string(program.status().message()).c_str());
  }

  std::string text(program.ok() ? net::kLockGranted
                                : program.status().message().substr(0, net::kMaxLockAnswer));
  iovec piece = {.iov_base = text.data(), .iov_len = text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
  if (program.ok()) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int fd = program->get();
    std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  }
  ::sendmsg(client_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);  // who does not listen gets nothing
}

void AcceptSome(int listener_fd, std::vector<Connection>& connections) {
  for (int i = 0; i < kAcceptsPerRound; ++i) {
    Fd socket(::accept4(listener_fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket.valid()) return;
    if (connections.size() == kMaxConnections) connections.erase(connections.begin());
    connections.push_back({std::move(socket), Clock::now() + kClientPatience});
  }
}

// Until when poll may sleep. Connections are in the order of their deadlines. Never: -1.
int PollTimeout(const std::vector<Connection>& connections,
                std::optional<std::chrono::milliseconds> idle_limit) {
  if (connections.empty()) return idle_limit ? static_cast<int>(idle_limit->count()) : -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(connections.front().deadline - Clock::now());
  return static_cast<int>(std::max<int64_t>(left.count(), 0));
}

}  // namespace

absl::StatusOr<Fd> ListenForLockRequests(const std::string& path) {
  const absl::StatusOr<sockaddr_un> address = UnixAddress(path);
  if (!address.ok()) return address.status();
  if (absl::Status status = RemoveStaleSocket(path, *address); !status.ok()) return status;
  Fd listener(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  // Connecting takes write permission on the socket: set before anybody could have been refused, that is
  // before listen().
  if (!listener.valid() ||
      ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) != 0 ||
      ::chmod(path.c_str(), 0666) != 0 || ::listen(listener.get(), SOMAXCONN) != 0) {
    const int error = errno;
    return absl::ErrnoToStatus(
        error, absl::StrCat("cannot listen on ", path,
                            error == ENOENT ? "; make its directory first" : "; choose another --socket"));
  }
  return listener;
}

absl::Status ConfineLockServer() {
  if (absl::Status status = KeepOnlyCapBpf(); !status.ok()) return status;
  // CAP_BPF of a user namespace is not enough. Better said now than to every client.
  if (absl::Status status = net::LoadLockProgramOurselves({}).status(); !status.ok()) return status;
  return AllowOnlyTheLoop();
}

absl::Status ServeLockRequests(int listener_fd, std::optional<std::chrono::milliseconds> idle_limit) {
  std::vector<Connection> connections;
  std::vector<pollfd> polled;
  for (;;) {
    polled.assign({{.fd = listener_fd, .events = POLLIN}});
    for (const Connection& connection : connections)
      polled.push_back({.fd = connection.socket.get(), .events = POLLIN});
    const int ready = ::poll(polled.data(), polled.size(), PollTimeout(connections, idle_limit));
    if (ready < 0 && errno != EINTR) return absl::ErrnoToStatus(errno, "the lock server cannot poll");
    if (ready == 0 && connections.empty()) return absl::OkStatus();

    const Clock::time_point now = Clock::now();
    for (size_t i = connections.size(); i-- > 0;) {
      const bool has_request = ready > 0 && polled[i + 1].revents != 0;
      if (has_request) Answer(connections[i].socket.get());
      if (has_request || connections[i].deadline <= now)
        connections.erase(connections.begin() + static_cast<ptrdiff_t>(i));
    }
    if (ready > 0 && polled[0].revents != 0) AcceptSome(listener_fd, connections);
  }
}

absl::Status RunLockServer(const std::string& path) {
  absl::StatusOr<Fd> listener = ActivatedListener();
  if (!listener.ok()) return listener.status();
  std::optional<std::chrono::milliseconds> idle_limit;
  if (listener->valid()) {
    idle_limit = kActivatedIdleLimit;
  } else {
    listener = ListenForLockRequests(path);
    if (!listener.ok()) return listener.status();
  }
  if (absl::Status status = ConfineLockServer(); !status.ok()) return status;
  return ServeLockRequests(listener->get(), idle_limit);
}

void AddLockServerCommand(CLI::App& app, int& exit_status) {
  CLI::App* const command =
      app.add_subcommand("lock-server", "Hand out socket locks to users who may not load eBPF");
  auto path = std::make_shared<std::string>(net::kDefaultLockSocket);
  command->add_option("--socket", *path, "Listen here, unless started by systemd's shunt-lock.socket")
      ->capture_default_str();
  command->footer(
      "Needs CAP_BPF. Usually started by systemd when somebody asks for a lock:\n"
      "  systemctl enable --now shunt-lock.socket\n"
      "By hand, as root:\n"
      "  mkdir -p /run/shunt && shunt lock-server");
  command->callback([path, &exit_status] {
    const absl::Status status = RunLockServer(*path);
    if (!status.ok()) std::fprintf(stderr, "shunt lock-server: %s\n", std::string(status.message()).c_str());
    exit_status = status.ok() ? 0 : 1;
  });
}

}  // namespace shunt
