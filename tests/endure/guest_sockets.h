// SPDX-License-Identifier: Apache-2.0
// What the bodies of containers in tests/endure need: addresses of the arena, sockets, and a peer in the
// host's network.

#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <utility>

#include "core/fd.h"

namespace shunt {

inline constexpr char kHost[] = "203.0.113.1", kHost6[] = "fd00:113::1";
inline constexpr char kNobody[] = "203.0.113.77";  // on the link, and nobody answers
inline constexpr uint16_t kPort = 4321, kRefusedPort = 9;

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  int family() const { return storage.ss_family; }
};

inline Address To(const char* ip, uint16_t port) {
  Address address;
  if (auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
      inet_pton(AF_INET, ip, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    address.size = sizeof(sockaddr_in);
  } else {
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
    inet_pton(AF_INET6, ip, &v6->sin6_addr);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    address.size = sizeof(sockaddr_in6);
  }
  return address;
}

// 0 or errno.
inline int Connect(int fd, const Address& to) {
  return connect(fd, to.get(), to.size) == 0 ? 0 : errno;
}

inline Fd Tcp(int family = AF_INET, int type = 0) {
  return Fd(socket(family, SOCK_STREAM | type, 0));
}

inline void SetSendTimeout(int fd, int milliseconds) {
  const timeval timeout{.tv_sec = milliseconds / 1000, .tv_usec = milliseconds % 1000 * 1000};
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
}

// Closes with a reset, so that no port stays in TIME_WAIT.
inline void Reset(Fd fd) {
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
}

// A hundred connects to an AcceptingPeer, the half of them watched by an epoll. 0 if all succeed.
inline int OrdinaryWork() {
  for (int i = 0; i < 50; ++i) {
    Fd fd = Tcp();
    if (Connect(fd.get(), To(kHost, kPort)) != 0) return 1;
    Reset(std::move(fd));
    const Fd epoll(epoll_create1(0));
    fd = Tcp(AF_INET, SOCK_NONBLOCK);
    epoll_event event{.events = EPOLLOUT};
    if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) return 2;
    if (const int error = Connect(fd.get(), To(kHost, kPort)); error != EINPROGRESS) return error;
    Reset(std::move(fd));
  }
  return 0;
}

// For a child: ends with its parent, which may have ended already.
inline void EndWith(pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(0);
}

// A process that accepts at kHost and kPort, and closes a while later, until it is destroyed. Make it before
// there are threads.
class AcceptingPeer {
 public:
  AcceptingPeer() {
    const Fd listener = Tcp();
    const Address address = To(kHost, kPort);
    const int on = 1;
    setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(listener.get(), address.get(), address.size) != 0 || listen(listener.get(), 4096) != 0) return;
    const pid_t parent = getpid();
    pid_ = fork();
    if (pid_ != 0) return;
    EndWith(parent);
    std::array<Fd, 256> latest;
    for (size_t i = 0;; ++i) {
      Fd& place = latest[i % latest.size()];
      Reset(std::exchange(place, Fd(accept(listener.get(), nullptr, nullptr))));
    }
  }
  ~AcceptingPeer() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  AcceptingPeer(const AcceptingPeer&) = delete;
  AcceptingPeer& operator=(const AcceptingPeer&) = delete;

  bool ok() const { return pid_ > 0; }

 private:
  pid_t pid_ = -1;
};

}  // namespace shunt
