// SPDX-License-Identifier: Apache-2.0
// Backends of a service in the arena's host network: one that answers, one that refuses, one that is silent.

#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>
#include <vector>

#include "core/fd.h"
#include "net/balancer/service.h"
#include "net/sock_addr.h"

namespace shunt {

using std::chrono::milliseconds;

inline constexpr char kHostIp[] = "203.0.113.1";
inline constexpr char kServiceAddress[] = "10.96.0.10:80";

inline net::SockAddr Address(const std::string& text) {
  return *net::SockAddr::FromText(text);
}

// Of the arena's host, or of whatever network the calling process is in.
class Backend {
 public:
  explicit Backend(const char* ip = kHostIp, int type = SOCK_STREAM, int backlog = 1024)
      : fd_(socket(strchr(ip, ':') != nullptr ? AF_INET6 : AF_INET, type | SOCK_CLOEXEC, 0)) {
    const net::SockAddr any(*net::IpAddress::Parse(ip), 0);
    EXPECT_EQ(bind(fd_.get(), any.data(), any.size()), 0) << strerror(errno);
    if (type == SOCK_STREAM) {
      EXPECT_EQ(listen(fd_.get(), backlog), 0);
    }
    sockaddr_storage name{};
    socklen_t size = sizeof(name);
    getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&name), &size);
    address_ = *net::SockAddr::Parse({reinterpret_cast<const std::byte*>(&name), size});
  }

  const net::SockAddr& address() const { return address_; }
  int fd() const { return fd_.get(); }

  // The ports of those that have arrived.
  std::vector<uint16_t> Arrived() const {
    std::vector<uint16_t> ports;
    pollfd pending{.fd = fd_.get(), .events = POLLIN};
    while (poll(&pending, 1, 0) == 1) {
      sockaddr_in from{};
      socklen_t size = sizeof(from);
      close(accept(fd_.get(), reinterpret_cast<sockaddr*>(&from), &size));
      ports.push_back(ntohs(from.sin_port));
    }
    return ports;
  }

 private:
  Fd fd_;
  net::SockAddr address_;
};

// Nobody listens there: bound, so that nobody will.
class Closed {
 public:
  Closed() : bound_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const net::SockAddr any(*net::IpAddress::Parse(kHostIp), 0);
    EXPECT_EQ(bind(bound_.get(), any.data(), any.size()), 0) << strerror(errno);
    sockaddr_storage name{};
    socklen_t size = sizeof(name);
    getsockname(bound_.get(), reinterpret_cast<sockaddr*>(&name), &size);
    address_ = *net::SockAddr::Parse({reinterpret_cast<const std::byte*>(&name), size});
  }
  const net::SockAddr& address() const { return address_; }

 private:
  Fd bound_;
  net::SockAddr address_;
};

// Listens, but its queue is full: SYNs are dropped.
class Full {
 public:
  Full() : backend_(kHostIp, SOCK_STREAM, 0) {
    for (int i = 0; i < 4; ++i) {
      fillers_.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      connect(fillers_.back().get(), backend_.address().data(), backend_.address().size());
    }
  }
  const net::SockAddr& address() const { return backend_.address(); }

 private:
  Backend backend_;
  std::vector<Fd> fillers_;
};

inline net::ServiceSpec ServiceOf(std::vector<net::SockAddr> backends,
                                  net::PickPolicy policy = net::PickPolicy::kFirst) {
  net::ServiceSpec service;
  service.name = "orders";
  service.addresses = {{.network = *net::ParseSubnet("10.96.0.10"), .first_port = 80, .last_port = 80}};
  service.policy = policy;
  for (const net::SockAddr& backend : backends) service.backends.push_back({.address = backend});
  service.connect.attempt_timeout = milliseconds(300);
  return service;
}

inline int Connect(int fd, const std::string& to = kServiceAddress) {
  const net::SockAddr address = Address(to);
  return connect(fd, address.data(), address.size()) == 0 ? 0 : errno;
}

inline int ConnectOnce(const std::string& to = kServiceAddress, int family = AF_INET) {
  const Fd fd(socket(family, SOCK_STREAM, 0));
  return Connect(fd.get(), to);
}

}  // namespace shunt
