// SPDX-License-Identifier: Apache-2.0
// What each part of an accelerated connect takes: a supervisor that does as many of them as it is told to.
//
//   swap --parts continue|twin|address|socket|options|holders [--cpu N] [--twins N] -- COMMAND...
//
// Each part stands on those before it:
//
//   continue   the call is trapped, and the kernel carries it out
//   twin       instead, a socket that was made before is put under the caller's descriptor and connected, to
//              an address that was read when the first call came
//   address    the address of each call is read from the caller's memory
//   socket     the caller's socket is looked at: its descriptor's flags, a duplicate of it, where it is bound
//              and to what, whether it was shut down
//   options    the options are read that ordinary programs set without a trap (net/socket_options.h), and the
//              one is set that connect_client sets
//   holders    whether somebody else holds the old socket is seen by an epoll of ours
//
// These are the system calls of shunt, in its order, without anything that decides: COMMAND connects one
// blocking IPv4 socket after the other, always with the same number, from one thread. What shunt takes
// beyond the last part is its locks, its journal, its reactor and what else COMMAND has set on its sockets.
// --cpu pins the supervisor to the CPU of that number in the order of those it may use, as a reactor is
// pinned; COMMAND is free to move.
//
// Exit status: COMMAND's; 77 if the kernel lacks something.

#include <fcntl.h>
#include <getopt.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "bench/cpus.h"
#include "bench/notify_filter.h"

#ifndef PIDFD_THREAD  // kernel 6.9; Debian 12's headers do not have it
#define PIDFD_THREAD O_EXCL
#endif

namespace shunt::bench {
namespace {

constexpr int kNotAvailable = 77;
constexpr int kSoBufLock = 72;
constexpr int kSoNetnsCookie = 71;

enum Part { kContinue, kTwin, kAddress, kSocket, kOptions, kHolders, kParts };
constexpr const char* kPartNames[kParts] = {"continue", "twin", "address", "socket", "options", "holders"};

[[noreturn]] void Die(int status, const char* what) {
  std::fprintf(stderr, "swap: %s: %s\n", what, std::strerror(errno));
  std::exit(status);
}

// Starts the command under the filter. Its listener comes through a pipe, as the number that it has there.
pid_t StartCommand(char** command, int& listener_out) {
  int number[2], taken[2];
  if (pipe(number) != 0 || pipe(taken) != 0) Die(1, "pipe");
  const pid_t child = fork();
  if (child < 0) Die(1, "fork");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int listener = NotifyOf({SYS_connect});
    char go;
    if (listener < 0 || write(number[1], &listener, sizeof listener) != sizeof listener ||
        read(taken[0], &go, 1) != 1)
      _exit(kNotAvailable);
    for (const int fd : {number[0], number[1], taken[0], taken[1], listener}) close(fd);
    execvp(command[0], command);
    _exit(127);
  }
  close(number[1]);
  int theirs = -1;
  if (read(number[0], &theirs, sizeof theirs) != sizeof theirs) Die(kNotAvailable, "seccomp(NEW_LISTENER)");
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
  listener_out = static_cast<int>(syscall(SYS_pidfd_getfd, pidfd, theirs, 0));
  if (listener_out < 0 || write(taken[1], "x", 1) != 1) Die(kNotAvailable, "pidfd_getfd");
  for (const int fd : {pidfd, number[0], taken[0], taken[1]}) close(fd);
  return child;
}

// As connect_client has it, so that no port is lost to TIME_WAIT.
void CloseByReset(int fd) {
  const linger reset{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
}

int ReadInt(int fd, int level, int name) {
  int value = 0;
  socklen_t size = sizeof value;
  getsockopt(fd, level, name, &value, &size);
  return value;
}

class Supervisor {
 public:
  Supervisor(int listener, Part parts, size_t twins) : listener_(listener), parts_(parts) {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    while (parts_ != kContinue && twins_.size() < twins) twins_.push_back(MakeTwin());
  }

  // Until the command is over.
  void Run() {
    for (;;) {
      pollfd readable{.fd = listener_, .events = POLLIN, .revents = 0};
      if (poll(&readable, 1, -1) != 1) Die(1, "poll");
      if ((readable.revents & POLLIN) == 0) return;
      seccomp_notif call{};
      if (ioctl(listener_, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0) continue;  // it was killed meanwhile
      seccomp_notif_resp answer{};
      answer.id = call.id;
      const int result = parts_ == kContinue ? EINPROGRESS : Serve(call);
      if (result == EINPROGRESS) {
        answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;  // the kernel waits for the connection, and says so
      } else {
        answer.error = -result;
      }
      ioctl(listener_, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
  }

 private:
  static int MakeTwin() {
    const int twin = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (twin < 0) Die(1, "socket");
    CloseByReset(twin);
    return twin;
  }

  // The result of the connect: an errno.
  int Serve(const seccomp_notif& call) {
    const auto tid = static_cast<pid_t>(call.pid);
    const int number = static_cast<int>(call.data.args[0]);
    if (parts_ >= kAddress || !has_peer_) {
      iovec local{.iov_base = &peer_, .iov_len = sizeof peer_};
      iovec remote{.iov_base = reinterpret_cast<void*>(call.data.args[1]), .iov_len = sizeof peer_};
      if (process_vm_readv(tid, &local, 1, &remote, 1, 0) != sizeof peer_) return EFAULT;
      has_peer_ = true;
    }
    const int twin = twins_.empty() ? MakeTwin() : twins_.back();
    if (!twins_.empty()) twins_.pop_back();
    int old_socket = -1;
    if (parts_ >= kSocket) old_socket = LookAt(tid, number);
    if (parts_ >= kOptions) {
      ReadOptions(old_socket);
      CloseByReset(twin);
    }
    epoll_event watched{.events = EPOLLOUT, .data = {.u64 = call.id}};
    if (parts_ >= kHolders) epoll_ctl(epoll_, EPOLL_CTL_ADD, old_socket, &watched);
    seccomp_notif_addfd install{};
    install.id = call.id;
    install.flags = SECCOMP_ADDFD_FLAG_SETFD;
    install.srcfd = static_cast<uint32_t>(twin);
    install.newfd = static_cast<uint32_t>(number);
    if (ioctl(listener_, SECCOMP_IOCTL_NOTIF_ADDFD, &install) < 0) return errno;
    if (old_socket >= 0) close(old_socket);
    epoll_event event;
    if (parts_ >= kHolders && epoll_wait(epoll_, &event, 1, 0) != 0) return EBUSY;
    const int result =
        connect(twin, reinterpret_cast<const sockaddr*>(&peer_), sizeof peer_) == 0 ? 0 : errno;
    fcntl(twin, F_SETFL, 0);
    close(twin);
    return result;
  }

  // A duplicate of the caller's socket.
  int LookAt(pid_t tid, int number) {
    if (tid != tid_ || number != number_) {
      char path[64];
      std::snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", tid, number);
      pidfd_ = static_cast<int>(syscall(SYS_pidfd_open, tid, PIDFD_THREAD));
      if (pidfd_ < 0) pidfd_ = static_cast<int>(syscall(SYS_pidfd_open, tid, 0));
      info_ = open(path, O_RDONLY | O_CLOEXEC);
      tid_ = tid;
      number_ = number;
    }
    char text[512];
    if (pread(info_, text, sizeof text, 0) <= 0) Die(1, "read fdinfo");
    const int fd = static_cast<int>(syscall(SYS_pidfd_getfd, pidfd_, number, 0));
    if (fd < 0) Die(kNotAvailable, "pidfd_getfd");
    sockaddr_storage local;
    socklen_t size = sizeof local;
    getsockname(fd, reinterpret_cast<sockaddr*>(&local), &size);
    uint64_t cookie;
    size = sizeof cookie;
    getsockopt(fd, SOL_SOCKET, kSoNetnsCookie, &cookie, &size);
    tcp_info info;
    size = 1;  // the state is the first byte
    getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size);
    pollfd closed{.fd = fd, .events = POLLRDHUP, .revents = 0};
    poll(&closed, 1, 0);
    return fd;
  }

  static void ReadOptions(int fd) {
    ReadInt(fd, SOL_SOCKET, kSoBufLock);
    fcntl(fd, F_GETOWN);
    for (const int name : {SO_REUSEADDR, SO_KEEPALIVE}) ReadInt(fd, SOL_SOCKET, name);
    for (const int name : {SO_LINGER, SO_RCVTIMEO, SO_SNDTIMEO}) {
      char value[16];
      socklen_t size = sizeof value;
      getsockopt(fd, SOL_SOCKET, name, value, &size);
    }
    for (const int name : {TCP_NODELAY, TCP_CORK, TCP_QUICKACK, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT})
      ReadInt(fd, IPPROTO_TCP, name);
  }

  const int listener_;
  const Part parts_;
  int epoll_;
  std::vector<int> twins_;
  sockaddr_in peer_{};
  bool has_peer_ = false;
  pid_t tid_ = 0;
  int number_ = -1, pidfd_ = -1, info_ = -1;
};

}  // namespace
}  // namespace shunt::bench

int main(int argc, char** argv) {
  using namespace shunt::bench;
  const option kLong[] = {{"parts", required_argument, nullptr, 'p'},
                          {"cpu", required_argument, nullptr, 'c'},
                          {"twins", required_argument, nullptr, 't'},
                          {nullptr, 0, nullptr, 0}};
  const char* const* part = nullptr;
  int cpu = -1, twins = 0, letter;
  while ((letter = getopt_long(argc, argv, "+", kLong, nullptr)) != -1) {
    if (letter == 'p') {
      part = std::find_if(kPartNames, kPartNames + kParts,
                          [](const char* name) { return std::string(name) == optarg; });
    } else if (letter == 'c') {
      cpu = std::atoi(optarg);
    } else if (letter == 't') {
      twins = std::atoi(optarg);
    } else {
      return 2;
    }
  }
  if (part == nullptr || part == kPartNames + kParts || optind == argc || twins < 0) {
    std::fprintf(stderr, "swap: --parts continue|twin|address|socket|options|holders ... -- COMMAND...\n");
    return 2;
  }
  int listener = -1;
  const pid_t child = StartCommand(argv + optind, listener);
  // Not inherited by the command: it may have many descriptors, and the number of its socket is what it is.
  rlimit most{};
  getrlimit(RLIMIT_NOFILE, &most);
  most.rlim_cur = most.rlim_max;
  setrlimit(RLIMIT_NOFILE, &most);
  WakeSynchronously(listener);  // where it can be
  if (cpu >= 0 && !PinTo(static_cast<size_t>(cpu), 0)) Die(kNotAvailable, "sched_setaffinity");
  Supervisor(listener, static_cast<Part>(part - kPartNames), static_cast<size_t>(twins)).Run();
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
