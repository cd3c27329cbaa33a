// SPDX-License-Identifier: Apache-2.0
// TCP sockets for tests about confinement: what became of a connect, seen in the socket itself and without
// waiting for timeouts.
//
// A packet that a socket filter drops is counted by the socket (SO_MEMINFO), so "it did not get through" is
// an event that a test can wait for, and not the absence of one.

#pragma once

#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <ostream>
#include <string>

#include "core/check.h"
#include "core/fd.h"
#include "net/ip_address.h"
#include "net/sock_addr.h"

namespace shunt::testing_support {

enum class Outcome : uint8_t {
  kConnected,
  kRefused,  // or failed at once
  kDropped,  // a packet reached the socket, and its filter dropped it
  kNothing,  // none of these for some seconds
};

inline std::ostream& operator<<(std::ostream& out, Outcome outcome) {
  constexpr std::array kNames = {"connected", "refused", "dropped", "nothing"};
  return out << kNames[static_cast<size_t>(outcome)];
}

inline net::IpAddress Ip(const std::string& text) {
  return *net::IpAddress::Parse(text);
}

// 127.0.0.1 and port, and so on, as seen by a socket of `family`.
inline net::SockAddr Address(const std::string& ip, uint16_t port, sa_family_t family) {
  return net::SockAddr(Ip(ip), port, family);
}

inline Fd TcpSocket(sa_family_t family = AF_INET) {
  Fd socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  SHUNT_CHECK(socket.valid());
  return socket;
}

inline int GetInt(int fd, int level, int option) {
  int value = -1;
  socklen_t size = sizeof(value);
  return ::getsockopt(fd, level, option, &value, &size) == 0 ? value : -1;
}

inline uint16_t LocalPort(int fd) {
  sockaddr_in6 address = {};
  socklen_t size = sizeof(address);
  SHUNT_CHECK(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  return ntohs(address.sin6_port);  // sin_port lies at the same place
}

// A listener on an address of this machine; port 0: any.
inline Fd Listener(const std::string& ip, uint16_t port = 0) {
  Fd socket = TcpSocket(Ip(ip).IsV4() ? AF_INET : AF_INET6);
  const int on = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const net::SockAddr address(Ip(ip), port);
  if (::bind(socket.get(), address.data(), address.size()) != 0 || ::listen(socket.get(), 64) != 0)
    return Fd();
  return socket;
}

inline Fd Accept(int listener_fd) {
  return Fd(::accept4(listener_fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

inline uint32_t Drops(int fd) {
  std::array<uint32_t, SK_MEMINFO_VARS> info = {};
  socklen_t size = sizeof(info);
  SHUNT_CHECK(::getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info.data(), &size) == 0);
  return info[SK_MEMINFO_DROPS];
}

inline int TcpState(int fd) {
  tcp_info info = {};
  socklen_t size = sizeof(info);
  SHUNT_CHECK(::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0);
  return info.tcpi_state;
}

// Calls `done` until it is true, for at most some seconds. Most things here have happened before the first
// call.
template <typename Condition>
bool Eventually(Condition done) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!done()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    ::sched_yield();
  }
  return true;
}

// `fd` is nonblocking. Looks for drops at `filtered_fd`: the socket itself, or the listener that it connects
// to.
inline Outcome Connect(int fd, const net::SockAddr& to, int filtered_fd) {
  const uint32_t drops_before = Drops(filtered_fd);
  if (::connect(fd, to.data(), to.size()) != 0 && errno != EINPROGRESS) return Outcome::kRefused;
  Outcome outcome = Outcome::kNothing;
  Eventually([&] {
    const int state = TcpState(fd);
    if (state == TCP_ESTABLISHED) {
      outcome = Outcome::kConnected;
    } else if (state == TCP_CLOSE) {
      outcome = Outcome::kRefused;
    } else if (Drops(filtered_fd) != drops_before) {
      outcome = Outcome::kDropped;
    }
    return outcome != Outcome::kNothing;
  });
  return outcome;
}

inline Outcome Connect(int fd, const net::SockAddr& to) {
  return Connect(fd, to, fd);
}

inline bool Disconnect(int fd) {
  const sockaddr nowhere = {.sa_family = AF_UNSPEC};
  return ::connect(fd, &nowhere, sizeof(nowhere)) == 0;
}

}  // namespace shunt::testing_support
