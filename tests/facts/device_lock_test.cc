// SPDX-License-Identifier: Apache-2.0
// Facts about tying a socket to a device, which is the lock that needs no privilege: what it keeps, and what
// it does not.
//
// Runs as root in tests/support/arena; what an ordinary user does is done as one.

#include <gtest/gtest.h>
#include <net/if.h>
#include <sys/wait.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <thread>

#include "net/lock.h"
#include "tests/support/tcp_probe.h"

namespace shunt::net {
namespace {

using testing_support::Accept;
using testing_support::Address;
using testing_support::Connect;
using testing_support::Disconnect;
using testing_support::GetInt;
using testing_support::Ip;
using testing_support::Listener;
using testing_support::LocalPort;
using testing_support::Outcome;
using testing_support::TcpSocket;

constexpr char kHost[] = "203.0.113.1";

int HostDevice() {
  return static_cast<int>(::if_nametoindex("host0"));
}

// Runs `body` as an ordinary user in a child; with `container`, as root of a user and network namespace of
// its own.
bool AsUser(bool container, const std::function<bool()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setresgid(7331, 7331, 7331) != 0 || ::setresuid(7331, 7331, 7331) != 0) ::_exit(2);
    if (container && ::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) ::_exit(3);
    ::_exit(body() ? 0 : 1);
  }
  int status = 0;
  SHUNT_CHECK(child > 0 && ::waitpid(child, &status, 0) == child);
  return status == 0;
}

TEST(DeviceLockTest, AnOrdinaryUserMayTieASocketByIndexAndReachTheHostsOwnAddress) {
  const Fd listener = Listener(kHost);
  const int device = HostDevice();
  EXPECT_TRUE(AsUser(false, [&] {
    const Fd twin = TcpSocket();
    return BindToDevice(twin.get(), device).has_value() &&
           Connect(twin.get(), Address(kHost, LocalPort(listener.get()), AF_INET)) == Outcome::kConnected;
  }));
}

TEST(DeviceLockTest, NeitherTheUserNorAContainersRootUntiesIt) {
  const int device = HostDevice();
  for (const bool container : {false, true}) {
    const Fd twin = TcpSocket();
    ASSERT_TRUE(AsUser(false, [&] { return BindToDevice(twin.get(), device).has_value(); }));
    EXPECT_TRUE(AsUser(container, [&] {
      const auto refused = [&](int option, const void* value, socklen_t size) {
        return ::setsockopt(twin.get(), SOL_SOCKET, option, value, size) != 0 && errno == EPERM;
      };
      const int none = 0, loopback = 1;
      return refused(SO_BINDTOIFINDEX, &none, sizeof(none)) &&
             refused(SO_BINDTOIFINDEX, &loopback, sizeof(loopback)) && refused(SO_BINDTODEVICE, "", 0) &&
             refused(SO_BINDTODEVICE, "lo", 2);
    })) << container;
    EXPECT_EQ(GetInt(twin.get(), SOL_SOCKET, SO_BINDTOIFINDEX), device);
  }
}

TEST(DeviceLockTest, AnIndexWithoutADeviceIsTakenAndLeadsNowhere) {
  // Unlike a name. So a device that goes away between our look and our use leaves a socket that is confined
  // to nothing.
  const Fd listener = Listener(kHost);
  const Fd twin = TcpSocket();
  ASSERT_TRUE(BindToDevice(twin.get(), 123456));
  EXPECT_EQ(Connect(twin.get(), Address(kHost, LocalPort(listener.get()), AF_INET)), Outcome::kRefused);
}

TEST(DeviceLockTest, LoopbackIsNotReachedInAnySpelling) {
  const Fd v4 = Listener("127.0.0.1"), v6 = Listener("::1");
  for (const auto& [family, ip, fd] : {std::tuple{AF_INET, "127.0.0.1", v4.get()},
                                       {AF_INET, "0.0.0.0", v4.get()},
                                       {AF_INET6, "127.0.0.1", v4.get()},
                                       {AF_INET6, "::1", v6.get()},
                                       {AF_INET6, "::", v6.get()}}) {
    for (const bool locked : {true, false}) {
      const Fd twin = TcpSocket(static_cast<sa_family_t>(family));
      if (locked) SHUNT_CHECK(BindToDevice(twin.get(), HostDevice()).has_value());
      const SockAddr to = Address(ip, LocalPort(fd), static_cast<sa_family_t>(family));
      // Sent out of the device, where loopback addresses lead nowhere: refused, or no answer.
      const bool connected = ::connect(twin.get(), to.data(), to.size()) == 0 || errno == EINPROGRESS;
      const bool accepted = connected && Accept(fd).valid();
      EXPECT_EQ(accepted, !locked) << to.ToString();
    }
  }
}

TEST(DeviceLockTest, RacingConnectsGetNowhere) {
  const Fd secret = Listener("127.0.0.1"), open = Listener(kHost);
  const SockAddr to_secret = Address("127.0.0.1", LocalPort(secret.get()), AF_INET);
  const SockAddr to_open = Address(kHost, LocalPort(open.get()), AF_INET);
  for (const bool locked : {true, false}) {
    const Fd twin = TcpSocket();
    if (locked) SHUNT_CHECK(BindToDevice(twin.get(), HostDevice()).has_value());
    std::atomic<bool> stop = false;
    std::thread confuser([&] {
      while (!stop) {
        Disconnect(twin.get());
        ::connect(twin.get(), to_open.data(), to_open.size());
        Accept(open.get());
      }
    });
    int reached = 0;
    for (int i = 0; i < 20000 && reached == 0; ++i) {
      Disconnect(twin.get());
      ::connect(twin.get(), to_secret.data(), to_secret.size());
      if (Accept(secret.get()).valid()) ++reached;
    }
    stop = true;
    confuser.join();
    EXPECT_EQ(reached, locked ? 0 : 1);
  }
}

TEST(DeviceLockTest, ItDoesNotKeepASocketFromListening) {
  // Why listen(2) is never CONTINUEd for a container that is confined in this way.
  const Fd twin = TcpSocket();
  ASSERT_TRUE(BindToDevice(twin.get(), HostDevice()));
  ASSERT_EQ(::listen(twin.get(), 8), 0);
  const Fd stranger = TcpSocket();
  // The far peer would come in by host0; a socket of the host that is tied to it does as well.
  ASSERT_TRUE(BindToDevice(stranger.get(), HostDevice()));
  EXPECT_EQ(Connect(stranger.get(), Address(kHost, LocalPort(twin.get()), AF_INET)), Outcome::kConnected);
}

}  // namespace
}  // namespace shunt::net

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (std::getenv("ARENA_HOST") == nullptr) {
    std::puts(
        "skipped: run as tests/support/arena -- device_lock_test, since it needs a device and an ordinary "
        "user");
    return 77;
  }
  return RUN_ALL_TESTS();
}
