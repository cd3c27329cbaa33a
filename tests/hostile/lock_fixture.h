// SPDX-License-Identifier: Apache-2.0
// LockTest: a locked twin, a secret on the host's loopback that it must not reach, and an allowed peer that
// it may.
//
// For tests that run as root in tests/support/arena.

#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "core/check.h"
#include "net/lock.h"
#include "tests/support/tcp_probe.h"

namespace shunt::net {

using testing_support::Accept;
using testing_support::Address;
using testing_support::Connect;
using testing_support::Disconnect;
using testing_support::Drops;
using testing_support::Eventually;
using testing_support::GetInt;
using testing_support::Ip;
using testing_support::Listener;
using testing_support::LocalPort;
using testing_support::Outcome;
using testing_support::TcpSocket;
using testing_support::TcpState;

inline constexpr char kHost[] = "203.0.113.1";     // the host's own address, allowed
inline constexpr char kHost6[] = "fd00:113::1";    // the same
inline constexpr char kSilent[] = "203.0.113.99";  // nobody answers there
inline constexpr char kIgnored[] = "10.99.1.2";    // in an ignored network
inline constexpr char kIgnored6[] = "fd01:99::2";  // the same
inline constexpr uint16_t kPublished = 18080;

inline LockPolicy ContainersPolicy() {
  LockPolicy policy;
  for (const char* const network :
       {"127.0.0.0/8", "0.0.0.0/32", "::1", "::", "10.99.0.0/16", "fd01:99::/32"}) {
    SHUNT_CHECK(policy.deny.Add(*ParseSubnet(network)));
  }
  policy.self = {{Ip("127.0.0.1"), kPublished}, {Ip("::1"), kPublished}};
  policy.listen = {{Ip("0.0.0.0"), kPublished}, {Ip("::"), kPublished}};
  return policy;
}

inline SocketLock Load(const LockPolicy& policy) {
  absl::StatusOr<Fd> program = LoadLockProgram(policy, "/nonexistent");
  SHUNT_CHECK(program.ok());
  return SocketLock::ByProgram(*std::move(program));
}

inline bool SetInt(int fd, int level, int option, int value) {
  return ::setsockopt(fd, level, option, &value, sizeof(value)) == 0;
}

// Also while connections of an earlier test to that port are still going away.
inline bool Bind(int fd, const SockAddr& address) {
  return SetInt(fd, SOL_SOCKET, SO_REUSEADDR, 1) && ::bind(fd, address.data(), address.size()) == 0;
}

inline void WriteFile(const char* path, const std::string& text) {
  const Fd file(::open(path, O_WRONLY | O_CLOEXEC));
  SHUNT_CHECK(file.valid());
  SHUNT_CHECK(::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

class LockTest : public testing::Test {
 protected:
  LockTest() : lock_(Load(ContainersPolicy())) {}

  // A twin; locked or, for comparison, not.
  Fd Twin(bool locked, sa_family_t family = AF_INET) {
    Fd twin = TcpSocket(family);
    if (locked) SHUNT_CHECK(lock_.Attach(twin.get()).has_value());
    return twin;
  }

  const SocketLock lock_;
  const Fd secret_ = Listener("127.0.0.1");
  const uint16_t secret_port_ = LocalPort(secret_.get());
  const Fd secret6_ = Listener("::1");
  const uint16_t secret6_port_ = LocalPort(secret6_.get());
  const Fd allowed_ = Listener(kHost);
  const uint16_t allowed_port_ = LocalPort(allowed_.get());
};

}  // namespace shunt::net
