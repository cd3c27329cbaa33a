// SPDX-License-Identifier: Apache-2.0
// HolderProbe and FindHolder under a real swap: a child shares its socket in every way there is, connects,
// and the parent notices, finds the old file and puts it back.

#include "net/shared_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>

#include "tests/support/seccomp_child.h"

namespace shunt::net {
namespace {

using testing_support::SeccompChild;

int NewSocket(int family = AF_INET) {
  return socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

int Connect(int fd) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  return connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
}

bool SameSocket(int fd, int other_fd) {
  const auto one = Identify(fd);
  const auto other = Identify(other_fd);
  return one && other && one->cookie == other->cookie;
}

// A copy of `fd` is put into a message of a socket pair, both ends of which the caller keeps open.
bool SendAway(int fd, int pair[2]) {
  if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) != 0) return false;
  char byte = 'x';
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  return sendmsg(pair[0], &message, 0) == 1;
}

class SharedFile : public testing::Test {
 protected:
  void SetUp() override {
    auto probe = HolderProbe::Create();
    ASSERT_TRUE(probe.ok());
    probe_ = std::make_unique<HolderProbe>(std::move(*probe));
  }

  // Swaps the socket of the child's next connect; then says whether the old one is held.
  bool SwapAndAsk(const SeccompChild& child) {
    const auto call = child.Receive();
    EXPECT_TRUE(call.has_value());
    if (!call) return false;
    call_ = *call;
    number_ = static_cast<int>(call->data.args[0]);
    Fd old(static_cast<int>(syscall(SYS_pidfd_getfd, child.pidfd(), number_, 0)));
    identity_ = Identify(old.get()).value();
    const Fd twin(NewSocket());
    EXPECT_TRUE(probe_->Arm(old.get()));
    EXPECT_TRUE(child.Install(call_, twin.get(), number_)) << std::strerror(errno);
    old.reset();
    return probe_->StillHeld();
  }

  // Puts the old file back; the child's connect returns 0.
  void PutBack(const SeccompChild& child, const Holder& holder) {
    Fd stranger;
    const auto old = TakeHeld(holder, identity_, stranger);
    ASSERT_TRUE(old.has_value());
    ASSERT_TRUE(child.Install(call_, old->get(), number_)) << std::strerror(errno);
    ASSERT_TRUE(child.Answer(call_, 0));
  }

  std::unique_ptr<HolderProbe> probe_;
  seccomp_notif call_{};
  int number_ = -1;
  SocketIdentity identity_;
};

TEST_F(SharedFile, ASocketOfOneDescriptorIsNotHeld) {
  SeccompChild child({SYS_connect}, [] { return Connect(NewSocket()); });
  ASSERT_TRUE(child.ok());
  EXPECT_FALSE(SwapAndAsk(child));
  const auto holder = FindHolder(child.pid(), identity_);
  ASSERT_FALSE(holder.has_value());
  EXPECT_EQ(holder.error().code, ENOENT);
  ASSERT_TRUE(child.Answer(call_, 0));
  EXPECT_EQ(child.Wait(), 0);
}

TEST_F(SharedFile, AnEpollRegistrationHoldsNothing) {
  SeccompChild child({SYS_connect}, [] {
    const int fd = NewSocket();
    epoll_event event{};
    event.events = EPOLLIN;
    return epoll_ctl(epoll_create1(0), EPOLL_CTL_ADD, fd, &event) == 0 ? Connect(fd) : 1;
  });
  ASSERT_TRUE(child.ok());
  EXPECT_FALSE(SwapAndAsk(child));
  ASSERT_TRUE(child.Answer(call_, 0));
  EXPECT_EQ(child.Wait(), 0);
}

TEST_F(SharedFile, ADuplicateIsFoundInTheTargetAndPutBack) {
  SeccompChild child({SYS_connect}, [] {
    const int fd = NewSocket();
    const int copy = dup(fd);
    if (Connect(fd) != 0) return 1;
    return SameSocket(fd, copy) ? 0 : 2;
  });
  ASSERT_TRUE(child.ok());
  EXPECT_TRUE(SwapAndAsk(child));
  const auto holder = FindHolder(child.pid(), identity_);
  ASSERT_TRUE(holder.has_value()) << std::strerror(holder.error().code);
  EXPECT_EQ(holder->pid, child.pid());
  EXPECT_NE(holder->fd, number_);
  PutBack(child, *holder);
  EXPECT_EQ(child.Wait(), 0);
}

TEST_F(SharedFile, ASocketInheritedByAForkedProcessIsFoundThere) {
  SeccompChild child({SYS_connect}, [] {
    const int fd = NewSocket();
    const pid_t heir = fork();
    if (heir == 0) {
      for (;;) pause();
    }
    const int result = Connect(fd);
    kill(heir, SIGKILL);
    waitpid(heir, nullptr, 0);
    return result;
  });
  ASSERT_TRUE(child.ok());
  EXPECT_TRUE(SwapAndAsk(child));
  const auto holder = FindHolder(child.pid(), identity_);
  ASSERT_TRUE(holder.has_value()) << std::strerror(holder.error().code);
  EXPECT_NE(holder->pid, child.pid());
  EXPECT_EQ(holder->fd, number_);
  PutBack(child, *holder);
  EXPECT_EQ(child.Wait(), 0);
}

TEST_F(SharedFile, ASocketThatTheParentStillHasIsFoundAtTheParent) {
  SeccompChild child({SYS_connect}, [] {
    const int fd = NewSocket();
    const pid_t connecting = fork();
    if (connecting == 0) _exit(Connect(fd));
    int status = -1;
    waitpid(connecting, &status, 0);
    return WEXITSTATUS(status);
  });
  ASSERT_TRUE(child.ok());
  const auto call = child.Receive();
  ASSERT_TRUE(call.has_value());
  const auto target = static_cast<pid_t>(call->pid);
  ASSERT_NE(target, child.pid());
  const int number = static_cast<int>(call->data.args[0]);
  const auto old = Fd(static_cast<int>(syscall(SYS_pidfd_getfd, child.pidfd(), number, 0)));
  const SocketIdentity identity = Identify(old.get()).value();
  const Fd twin(NewSocket());
  ASSERT_TRUE(child.Install(*call, twin.get(), number));
  const auto holder = FindHolder(target, identity);
  ASSERT_TRUE(holder.has_value()) << std::strerror(holder.error().code);
  EXPECT_EQ(holder->pid, child.pid());
  ASSERT_TRUE(child.Answer(*call, 0));
  EXPECT_EQ(child.Wait(), 0);
}

TEST_F(SharedFile, ASocketInFlightIsNoticedButNotFound) {
  SeccompChild child({SYS_connect}, [] {
    const int fd = NewSocket();
    int pair[2];
    return SendAway(fd, pair) ? Connect(fd) : 1;
  });
  ASSERT_TRUE(child.ok());
  EXPECT_TRUE(SwapAndAsk(child));
  const auto holder = FindHolder(child.pid(), identity_);
  ASSERT_FALSE(holder.has_value());
  EXPECT_EQ(holder.error().code, ENOENT);
  ASSERT_TRUE(child.Answer(call_, 0));
  EXPECT_EQ(child.Wait(), 0);
}

TEST_F(SharedFile, AThreadWithATableOfItsOwnIsSearchedItself) {
  SeccompChild child({SYS_connect}, [] {
    int result = 1;
    std::thread([&result] {
      if (unshare(CLONE_FILES) != 0) return;
      const int fd = NewSocket();
      const int copy = dup(fd);
      result = Connect(fd) == 0 && SameSocket(fd, copy) ? 0 : 2;
    }).join();
    return result;
  });
  ASSERT_TRUE(child.ok());
  const auto call = child.Receive();
  ASSERT_TRUE(call.has_value());
  ASSERT_NE(static_cast<pid_t>(call->pid), child.pid());
  const int number = static_cast<int>(call->data.args[0]);
  const Fd task(static_cast<int>(syscall(SYS_pidfd_open, call->pid, O_EXCL /*PIDFD_THREAD*/)));
  if (!task.valid()) {
    child.Answer(*call, 0);
    GTEST_SKIP() << "this kernel has no pidfd of a thread (6.9)";
  }
  const Fd old(static_cast<int>(syscall(SYS_pidfd_getfd, task.get(), number, 0)));
  const SocketIdentity identity = Identify(old.get()).value();
  const Fd twin(NewSocket());
  ASSERT_TRUE(child.Install(*call, twin.get(), number));
  const auto holder = FindHolder(static_cast<pid_t>(call->pid), identity);
  ASSERT_TRUE(holder.has_value()) << std::strerror(holder.error().code);
  EXPECT_EQ(holder->pid, static_cast<pid_t>(call->pid));
  Fd stranger;
  const auto back = TakeHeld(*holder, identity, stranger);
  ASSERT_TRUE(back.has_value());
  ASSERT_TRUE(child.Install(*call, back->get(), number));
  ASSERT_TRUE(child.Answer(*call, 0));
  EXPECT_EQ(child.Wait(), 0);
}

TEST_F(SharedFile, WhatWasHeldAtAnEarlierProbeDoesNotAnswerForALaterOne) {
  Fd held(NewSocket());
  ASSERT_TRUE(probe_->Arm(held.get()));
  EXPECT_TRUE(probe_->StillHeld()) << "our own copy counts";
  for (int i = 0; i < 20; ++i) {
    Fd other(NewSocket());
    ASSERT_TRUE(probe_->Arm(other.get()));
    other.reset();
    EXPECT_FALSE(probe_->StillHeld());
  }
  ASSERT_TRUE(probe_->Arm(held.get())) << "the same file under the same number a second time";
  EXPECT_TRUE(probe_->StillHeld());
}

TEST_F(SharedFile, AHangUpThatComesLateDoesNotAnswerForALaterProbe) {
  // The other holder of the file has made it listen meanwhile, and stops later.
  const Fd late(NewSocket());
  ASSERT_EQ(listen(late.get(), 1), 0);
  ASSERT_TRUE(probe_->Arm(late.get()));
  EXPECT_FALSE(probe_->StillHeld());
  ASSERT_EQ(shutdown(late.get(), SHUT_RD), 0);
  Fd other(NewSocket());
  ASSERT_TRUE(probe_->Arm(other.get()));
  other.reset();
  EXPECT_FALSE(probe_->StillHeld());
}

TEST_F(SharedFile, ADisarmedProbeLeavesNothingBehind) {
  const Fd kept(NewSocket());
  ASSERT_TRUE(probe_->Arm(kept.get()));
  probe_->Disarm(kept.get());
  Fd other(NewSocket());
  ASSERT_TRUE(probe_->Arm(other.get()));
  other.reset();
  EXPECT_FALSE(probe_->StillHeld());
}

TEST_F(SharedFile, BoundAndIpv6SocketsAreNoticedToo) {
  for (const int family : {AF_INET, AF_INET6}) {
    const Fd fd(NewSocket(family));
    const sockaddr_in6 address{.sin6_family = static_cast<sa_family_t>(family)};  // any address, any port
    ASSERT_EQ(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    Fd copy(dup(fd.get()));
    ASSERT_TRUE(probe_->Arm(copy.get()));
    copy.reset();
    EXPECT_TRUE(probe_->StillHeld());
  }
}

TEST_F(SharedFile, AHolderThatHasSomethingElseByNowIsEnoent) {
  const Fd fd(NewSocket());
  const Fd other(NewSocket());
  const SocketIdentity identity = Identify(fd.get()).value();
  Fd stranger;
  EXPECT_TRUE(TakeHeld({getpid(), fd.get()}, identity, stranger).has_value());
  const auto wrong = TakeHeld({getpid(), other.get()}, identity, stranger);
  ASSERT_FALSE(wrong.has_value());
  EXPECT_EQ(wrong.error().code, ENOENT);
  const auto closed = TakeHeld({getpid(), 60000}, identity, stranger);
  ASSERT_FALSE(closed.has_value());
  EXPECT_EQ(closed.error().code, ENOENT);
  EXPECT_FALSE(stranger.valid());
}

TEST_F(SharedFile, AHolderThatHasNoSocketByNowLeavesItsFileUnclosed) {
  const Fd fd(NewSocket());
  const Fd file(open("/dev/null", O_RDONLY | O_CLOEXEC));
  Fd stranger;
  const auto taken = TakeHeld({getpid(), file.get()}, Identify(fd.get()).value(), stranger);
  ASSERT_FALSE(taken.has_value());
  EXPECT_EQ(taken.error().code, ENOTSOCK);
  EXPECT_TRUE(stranger.valid());
}

TEST_F(SharedFile, TheSearchRunsOnASideThread) {
  auto side = SideThread::Start();
  ASSERT_TRUE(side.ok());
  SeccompChild child({SYS_connect}, [] {
    const int fd = NewSocket();
    return dup(fd) >= 0 ? Connect(fd) : 1;
  });
  ASSERT_TRUE(child.ok());
  EXPECT_TRUE(SwapAndAsk(child));
  HolderSearch search(child.pid(), identity_);
  ASSERT_TRUE((*side)->Submit(&search));
  pollfd readable{(*side)->completion_fd(), POLLIN, 0};
  ASSERT_EQ(poll(&readable, 1, 10000), 1);
  ASSERT_EQ((*side)->TakeFinished(), &search);
  ASSERT_TRUE(search.result().has_value());
  PutBack(child, *search.result());
  EXPECT_EQ(child.Wait(), 0);
}

}  // namespace
}  // namespace shunt::net
