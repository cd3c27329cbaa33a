// SPDX-License-Identifier: Apache-2.0
// What a swap of a socket does to epoll, and what an epoll knows: the kernel behaviour that
// net/epoll_migration and net/shared_file lean on. If one of these fails on a new kernel, those two have to
// be thought over.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/kcmp.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "core/fd.h"
#include "tests/support/seccomp_child.h"

namespace shunt {
namespace {

using testing_support::SeccompChild;

Fd TcpSocket() {
  return Fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

int Add(int epoll, int fd, uint32_t events, uint64_t data) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = data;
  return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

// Events of the one entry that is ready, 0 if none is.
uint32_t ReadyNow(int epoll) {
  epoll_event event{};
  return epoll_wait(epoll, &event, 1, 0) == 1 ? event.events : 0;
}

long AskEpoll(int file, int epoll, int number, uint32_t offset) {
  kcmp_epoll_slot slot{};
  slot.efd = static_cast<uint32_t>(epoll);
  slot.tfd = static_cast<uint32_t>(number);
  slot.toff = offset;
  return syscall(SYS_kcmp, getpid(), getpid(), KCMP_EPOLL_TFD, file, &slot);
}

TEST(SwapFacts, ASwapLosesTheRegistrationOfTheFileThatItReplaces) {
  SeccompChild child({SYS_getppid}, [] {
    const Fd fd = TcpSocket();
    const Fd epoll(epoll_create1(0));
    if (Add(epoll.get(), fd.get(), EPOLLOUT, 1) != 0 || ReadyNow(epoll.get()) == 0) return 1;
    syscall(SYS_getppid, fd.get());
    if (ReadyNow(epoll.get()) != 0) return 2;
    epoll_event event{};
    return epoll_ctl(epoll.get(), EPOLL_CTL_MOD, fd.get(), &event) == -1 && errno == ENOENT ? 0 : 3;
  });
  ASSERT_TRUE(child.ok());
  const auto call = child.Receive();
  ASSERT_TRUE(call.has_value());
  const Fd twin = TcpSocket();
  ASSERT_TRUE(child.Install(*call, twin.get(), static_cast<int>(call->data.args[0])));
  ASSERT_TRUE(child.Answer(*call, 0));
  EXPECT_EQ(child.Wait(), 0);
}

TEST(SwapFacts, AnEpollEntryLivesAsLongAsTheFileAndNotAsTheDescriptor) {
  const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  Fd fd = TcpSocket();
  ASSERT_EQ(Add(epoll.get(), fd.get(), 0, 1), 0);
  Fd copy(dup(fd.get()));
  fd.reset();
  EXPECT_NE(ReadyNow(epoll.get()), 0U);
  copy.reset();
  EXPECT_EQ(ReadyNow(epoll.get()), 0U);
}

TEST(SwapFacts, ASocketThatIsNotConnectedReportsAHangUpThatNobodyAskedFor) {
  for (const int family : {AF_INET, AF_INET6}) {
    const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
    const Fd fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(Add(epoll.get(), fd.get(), EPOLLONESHOT, 1), 0);
    EXPECT_EQ(ReadyNow(epoll.get()), EPOLLHUP);
  }
}

TEST(SwapFacts, AListeningSocketDoesNotSoTheProbeIsNotForThose) {
  const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  const Fd fd = TcpSocket();
  ASSERT_EQ(listen(fd.get(), 1), 0);
  ASSERT_EQ(Add(epoll.get(), fd.get(), 0, 1), 0);
  EXPECT_EQ(ReadyNow(epoll.get()), 0U);
}

TEST(SwapFacts, ADisarmedOneshotEntryCannotBeMadeByAddingOne) {
  const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  const Fd fd = TcpSocket();
  ASSERT_EQ(Add(epoll.get(), fd.get(), EPOLLOUT | EPOLLONESHOT, 1), 0);
  ASSERT_NE(ReadyNow(epoll.get()), 0U);
  ASSERT_EQ(ReadyNow(epoll.get()), 0U) << "disarmed";
  const Fd again = TcpSocket();
  ASSERT_EQ(Add(epoll.get(), again.get(), EPOLLONESHOT, 2), 0);
  EXPECT_EQ(ReadyNow(epoll.get()), EPOLLHUP) << "the kernel adds ERR and HUP, so the new entry is armed";
}

TEST(SwapFacts, OneEpollTakesTheSameNumberForTwoFiles) {
  const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  Fd number = TcpSocket();
  const Fd first(dup(number.get()));
  ASSERT_EQ(Add(epoll.get(), number.get(), EPOLLOUT, 1), 0);
  const Fd second = TcpSocket();
  ASSERT_EQ(dup3(second.get(), number.get(), O_CLOEXEC), number.get());
  ASSERT_EQ(Add(epoll.get(), number.get(), EPOLLOUT, 2), 0);
  // In which order they stand is the kernel's secret; both are there, and no third.
  const bool first_at_0 = AskEpoll(first.get(), epoll.get(), number.get(), 0) == 0;
  EXPECT_EQ(AskEpoll(second.get(), epoll.get(), number.get(), first_at_0 ? 1 : 0), 0);
  EXPECT_EQ(AskEpoll(first.get(), epoll.get(), number.get(), first_at_0 ? 0 : 1), 0);
  EXPECT_EQ(AskEpoll(first.get(), epoll.get(), number.get(), 2), -1);
  EXPECT_EQ(errno, ENOENT);
}

TEST(SwapFacts, KcmpTellsEpollsFromOtherFilesAndFromClosedNumbers) {
  const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  const Fd other(eventfd(0, EFD_CLOEXEC));
  const Fd fd = TcpSocket();
  EXPECT_EQ(AskEpoll(fd.get(), epoll.get(), fd.get(), 0), -1);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_EQ(AskEpoll(fd.get(), other.get(), fd.get(), 0), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(AskEpoll(fd.get(), 60000, fd.get(), 0), -1);
  EXPECT_EQ(errno, EBADF);
}

TEST(SwapFacts, WhatSetsockoptTakesAndGetsockoptGivesAreNotTheSameForBuffers) {
  const Fd fd = TcpSocket();
  const int asked = 30000;
  ASSERT_EQ(setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUF, &asked, sizeof(asked)), 0);
  int read_back = 0;
  socklen_t size = sizeof(read_back);
  ASSERT_EQ(getsockopt(fd.get(), SOL_SOCKET, SO_SNDBUF, &read_back, &size), 0);
  EXPECT_EQ(read_back, 2 * asked);
}

TEST(SwapFacts, IpTosChangesThePriority) {
  const Fd fd = TcpSocket();
  const int tos = 0x10;
  ASSERT_EQ(setsockopt(fd.get(), IPPROTO_IP, IP_TOS, &tos, sizeof(tos)), 0);
  int priority = 0;
  socklen_t size = sizeof(priority);
  ASSERT_EQ(getsockopt(fd.get(), SOL_SOCKET, SO_PRIORITY, &priority, &size), 0);
  EXPECT_NE(priority, 0);
}

TEST(SwapFacts, WritingZeroToOneTimestampClearsTheOther) {
  const Fd fd = TcpSocket();
  const int on = 1, off = 0;
  ASSERT_EQ(setsockopt(fd.get(), SOL_SOCKET, SO_TIMESTAMP, &on, sizeof(on)), 0);
  ASSERT_EQ(setsockopt(fd.get(), SOL_SOCKET, SO_TIMESTAMPNS, &off, sizeof(off)), 0);
  int now = 0;
  socklen_t size = sizeof(now);
  ASSERT_EQ(getsockopt(fd.get(), SOL_SOCKET, SO_TIMESTAMP, &now, &size), 0);
  EXPECT_EQ(now, 0);
}

}  // namespace
}  // namespace shunt
