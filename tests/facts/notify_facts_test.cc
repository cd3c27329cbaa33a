// SPDX-License-Identifier: Apache-2.0
// The notifier as core/listener, core/reactor and a restarted engine lean on it: when RECV blocks, what each
// answer means, who may give it, and what becomes of a call whose supervisor dies.
//
// The trapped call is getppid(2): it takes no arguments and nothing else makes it.

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <cstring>

#include "tests/facts/notifier.h"
#include "tests/support/seccomp_child.h"

namespace shunt::facts {
namespace {

using testing_support::SeccompChild;

long Trapped() {
  return syscall(SYS_getppid);
}

// True if RECV sleeps: done by a child, since it may do so for ever.
bool ReceiveBlocks(int listener) {
  Child receiver([listener] {
    seccomp_notif notification{};
    return Receive(listener, notification) == 0 ? 0 : errno;
  });
  bool sleeps = false;
  EXPECT_TRUE(Comes([&] {
    const char state = StateOf(receiver.pid());
    // Sleeping is seen twice, lest it be a short nap on the way into the call.
    sleeps = state == 'S' && StateOf(receiver.pid()) == 'S';
    return sleeps || state == 'Z';
  }));
  return sleeps;
}

TEST(NotifyFacts, ReceivingBlocksWhenNothingWaitsEvenWithoutBlocking) {
  SeccompChild child({SYS_getppid}, [] { return pause(); });
  ASSERT_TRUE(child.ok());
  ASSERT_EQ(fcntl(child.listener(), F_SETFL, O_NONBLOCK), 0);
  EXPECT_EQ(Poll(child.listener(), 0), 0);
  EXPECT_TRUE(ReceiveBlocks(child.listener()));
}

TEST(NotifyFacts, ACallWhoseCallerWasKilledIsENOENTOnceAndThenReceivingBlocks) {
  struct Told {
    volatile pid_t caller;
    volatile bool reaped;
  };
  const Shared<Told> told;
  SeccompChild child({SYS_getppid}, [&] {
    const pid_t caller = fork();
    if (caller == 0) _exit(static_cast<int>(Trapped()));
    told->caller = caller;
    waitpid(caller, nullptr, 0);
    told->reaped = true;
    return pause();
  });
  ASSERT_TRUE(child.ok());
  ASSERT_EQ(Poll(child.listener()), POLLIN);
  ASSERT_TRUE(Comes([&] { return told->caller != 0; }));
  ASSERT_EQ(kill(told->caller, SIGKILL), 0);
  ASSERT_TRUE(Comes([&] { return told->reaped; }));
  seccomp_notif notification{};
  EXPECT_EQ(Receive(child.listener(), notification), -ENOENT);
  EXPECT_TRUE(ReceiveBlocks(child.listener()));
}

TEST(NotifyFacts, AfterTheLastTaskTheListenerHangsUpAndSaysENOENTForEver) {
  SeccompChild child({SYS_getppid}, [] { return 0; });
  ASSERT_TRUE(child.ok());
  ASSERT_EQ(child.Wait(), 0);
  ASSERT_TRUE(Comes([&] { return Poll(child.listener(), 0) == POLLHUP; }));
  if (ReceiveBlocks(child.listener())) GTEST_SKIP() << "this kernel blocks in RECV when no task is left";
  for (int i = 0; i < 3; ++i) {
    seccomp_notif notification{};
    EXPECT_EQ(Receive(child.listener(), notification), -ENOENT);
  }
}

TEST(NotifyFacts, TheStructMustBeZeroedAndNothingIsLostIfItIsNot) {
  SeccompChild child({SYS_getppid}, [] { return Trapped() == 42 ? 0 : 1; });
  ASSERT_TRUE(child.ok());
  ASSERT_EQ(Poll(child.listener()), POLLIN);
  seccomp_notif notification{};
  notification.data.args[5] = 1;
  EXPECT_EQ(Receive(child.listener(), notification), -EINVAL);
  notification = {};
  ASSERT_EQ(Receive(child.listener(), notification), 0);
  EXPECT_EQ(Send(child.listener(), notification.id, 42), 0);
  EXPECT_EQ(child.Wait(), 0);
}

TEST(NotifyFacts, ANegativeErrorIsAnErrnoAndAPositiveOneIsReturned) {
  SeccompChild child({SYS_getppid}, [] {
    if (Trapped() != -1 || errno != EXDEV) return 1;
    return Trapped() == EXDEV ? 0 : 2;
  });
  ASSERT_TRUE(child.ok());
  for (const int error : {-EXDEV, EXDEV}) {
    const auto call = child.Receive();
    ASSERT_TRUE(call.has_value());
    EXPECT_EQ(Send(child.listener(), call->id, 0, error), 0);
  }
  EXPECT_EQ(child.Wait(), 0);
}

TEST(NotifyFacts, ContinueTakesNeitherValueNorError) {
  SeccompChild child({SYS_getppid}, [parent = getpid()] { return Trapped() == parent ? 0 : 1; });
  ASSERT_TRUE(child.ok());
  const auto call = child.Receive();
  ASSERT_TRUE(call.has_value());
  EXPECT_EQ(Send(child.listener(), call->id, 1, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE), -EINVAL);
  EXPECT_EQ(Send(child.listener(), call->id, 0, -EPERM, SECCOMP_USER_NOTIF_FLAG_CONTINUE), -EINVAL);
  EXPECT_EQ(Send(child.listener(), call->id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE), 0);
  EXPECT_EQ(child.Wait(), 0);
}

TEST(NotifyFacts, AnAnswerIsTakenOnce) {
  SeccompChild child({SYS_getppid}, [] { return static_cast<int>(Trapped()) + pause(); });
  ASSERT_TRUE(child.ok());
  const auto call = child.Receive();
  ASSERT_TRUE(call.has_value());
  EXPECT_EQ(Send(child.listener(), call->id, 1), 0);
  const int again = Send(child.listener(), call->id, 2);
  // Until the caller has run on the kernel still knows the call.
  EXPECT_TRUE(again == -EINPROGRESS || again == -ENOENT) << again;
}

TEST(NotifyFacts, IdsOfOneListenerAreConsecutiveAndNeverZero) {
  SeccompChild child({SYS_getppid}, [] {
    for (int i = 0; i < 5; ++i) Trapped();
    return 0;
  });
  ASSERT_TRUE(child.ok());
  EXPECT_EQ(IdValid(child.listener(), 0), -ENOENT);
  uint64_t last = 0;
  for (int i = 0; i < 5; ++i) {
    const auto call = child.Receive();
    ASSERT_TRUE(call.has_value());
    EXPECT_NE(call->id, 0u);
    EXPECT_TRUE(last == 0 || call->id == last + 1);
    last = call->id;
    ASSERT_EQ(Send(child.listener(), call->id, 0), 0);
  }
  EXPECT_EQ(child.Wait(), 0);
}

TEST(NotifyFacts, AnInstalledDescriptorReplacesTheOldOneAndItsCloseOnExec) {
  constexpr int kNumber = 77;
  for (const bool cloexec : {true, false}) {
    // Before, the descriptor is of the other kind.
    SeccompChild child({SYS_getppid}, [=] {
      int ends[2];
      if (pipe2(ends, 0) != 0 || dup3(ends[0], kNumber, cloexec ? 0 : O_CLOEXEC) != kNumber) return 1;
      Trapped();
      struct stat file;
      if (fstat(kNumber, &file) != 0 || !S_ISCHR(file.st_mode)) return 2;
      return (fcntl(kNumber, F_GETFD) & FD_CLOEXEC) == (cloexec ? FD_CLOEXEC : 0) ? 0 : 3;
    });
    ASSERT_TRUE(child.ok());
    const auto call = child.Receive();
    ASSERT_TRUE(call.has_value());
    const Fd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
    EXPECT_EQ(AddFd(child.listener(), {.id = call->id,
                                       .flags = SECCOMP_ADDFD_FLAG_SETFD,
                                       .srcfd = static_cast<uint32_t>(null.get()),
                                       .newfd = kNumber,
                                       .newfd_flags = cloexec ? uint32_t{O_CLOEXEC} : 0}),
              kNumber);
    EXPECT_EQ(Send(child.listener(), call->id, 0), 0);
    EXPECT_EQ(child.Wait(), 0);
  }
}

TEST(NotifyFacts, InstallAndAnswerInOneReturnsTheLowestFreeNumber) {
  SeccompChild child({SYS_getppid}, [] {
    const int free = dup(0);
    close(free);
    return Trapped() == free && fcntl(free, F_GETFD) == FD_CLOEXEC ? 0 : 1;
  });
  ASSERT_TRUE(child.ok());
  const auto call = child.Receive();
  ASSERT_TRUE(call.has_value());
  const Fd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int number = AddFd(child.listener(), {.id = call->id,
                                              .flags = SECCOMP_ADDFD_FLAG_SEND,
                                              .srcfd = static_cast<uint32_t>(null.get()),
                                              .newfd_flags = O_CLOEXEC});
  if (number == -EINVAL) GTEST_SKIP() << "this kernel has no SECCOMP_ADDFD_FLAG_SEND (Linux 5.14)";
  EXPECT_GE(number, 0);
  EXPECT_EQ(Send(child.listener(), call->id, 0), -ENOENT) << "it was the answer";
  EXPECT_EQ(child.Wait(), 0);
}

TEST(NotifyFacts, WithoutAListenerPendingAndLaterCallsFailWithENOSYS) {
  SeccompChild child({SYS_getppid}, [] {
    for (int i = 0; i < 3; ++i) {
      if (Trapped() != -1 || errno != ENOSYS) return 1 + i;
    }
    return 0;
  });
  ASSERT_TRUE(child.ok());
  ASSERT_TRUE(child.Receive().has_value());
  child.CloseListener();
  EXPECT_EQ(child.Wait(), 0);
}

// ---- what a restarted engine and its keeper lean on

TEST(NotifyFacts, WhoeverHoldsTheListenerAnswersByIdAfterTheReceiverWasKilled) {
  constexpr int kNumber = 78;
  SeccompChild child({SYS_getppid}, [] { return Trapped() == 42 && fcntl(kNumber, F_GETFD) >= 0 ? 0 : 1; });
  ASSERT_TRUE(child.ok());
  const Shared<seccomp_notif> slot;
  Child receiver([&] {
    if (Receive(child.listener(), *slot) != 0) return 1;
    return pause();
  });
  ASSERT_TRUE(Comes([&] { return *const_cast<volatile __u64*>(&slot->id) != 0; }));
  receiver.Kill();
  EXPECT_EQ(IdValid(child.listener(), slot->id), 0);
  EXPECT_EQ(AddFd(child.listener(),
                  {.id = slot->id, .flags = SECCOMP_ADDFD_FLAG_SETFD, .srcfd = 0, .newfd = kNumber}),
            kNumber);
  EXPECT_EQ(Send(child.listener(), slot->id, 42), 0);
  EXPECT_EQ(child.Wait(), 0);
}

TEST(NotifyFacts, ANotificationReceivedIntoSharedMemoryIsThereForEveryProcessThatMapsIt) {
  SeccompChild child({SYS_getppid}, [] { return Trapped() == 42 ? 0 : 1; });
  ASSERT_TRUE(child.ok());
  const Fd memory(memfd_create("journal", MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(memory.get(), 4096), 0);
  const auto map = [&] {
    return static_cast<seccomp_notif*>(
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0));
  };
  Child receiver([&] { return Receive(child.listener(), *map()) == 0 ? 0 : 1; });
  ASSERT_EQ(receiver.Wait(), 0);
  const seccomp_notif& seen = *map();
  EXPECT_EQ(static_cast<pid_t>(seen.pid), child.pid());
  EXPECT_EQ(seen.data.nr, SYS_getppid);
  EXPECT_EQ(Send(child.listener(), seen.id, 42), 0);
  EXPECT_EQ(child.Wait(), 0);
}

TEST(NotifyFacts, AReceiverKilledAtAnyMomentLosesNoNotification) {
  constexpr int kTries = 100;
  SeccompChild child({SYS_getppid}, [] {
    for (int i = 0; i < kTries; ++i) {
      if (Trapped() != i) return 1;
    }
    return 0;
  });
  ASSERT_TRUE(child.ok());
  struct Journal {
    seccomp_notif slot;
    volatile bool ready;
  };
  const Shared<Journal> journal;
  int in_the_slot = 0;
  for (int i = 0; i < kTries; ++i) {
    memset(static_cast<void*>(&*journal), 0, sizeof(Journal));
    {
      Child receiver([&] {
        journal->ready = true;
        Receive(child.listener(), journal->slot);
        return pause();
      });
      // Every other time from just before RECV on, else from the fork on.
      while (i % 2 == 0 && !journal->ready) continue;
      const auto moment =
          std::chrono::steady_clock::now() + std::chrono::microseconds(i % 2 == 0 ? i / 10 : 5 * i);
      while (std::chrono::steady_clock::now() < moment) continue;
      receiver.Kill();
    }
    seccomp_notif call = journal->slot;
    if (call.id != 0) {
      ++in_the_slot;
    } else {
      ASSERT_EQ(Poll(child.listener()), POLLIN) << "try " << i;
      ASSERT_EQ(Receive(child.listener(), call), 0);
    }
    ASSERT_EQ(Send(child.listener(), call.id, i), 0) << "try " << i;
  }
  EXPECT_EQ(child.Wait(), 0);
  RecordProperty("received_by_the_killed", in_the_slot);
}

// ---- signals

volatile sig_atomic_t handled = 0;

void CatchUsr1(int flags) {
  struct sigaction action {};
  action.sa_handler = [](int) { handled = handled + 1; };
  action.sa_flags = flags;
  sigaction(SIGUSR1, &action, nullptr);
}

TEST(NotifyFacts, ASignalEndsAReceivedCallWithEINTR) {
  SeccompChild child({SYS_getppid}, [] {
    CatchUsr1(0);
    return Trapped() == -1 && errno == EINTR && handled == 1 ? 0 : 1;
  });
  ASSERT_TRUE(child.ok());
  const auto call = child.Receive();
  ASSERT_TRUE(call.has_value());
  ASSERT_EQ(kill(child.pid(), SIGUSR1), 0);
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_EQ(Send(child.listener(), call->id, 0), -ENOENT);
}

TEST(NotifyFacts, WithSaRestartTheCallComesAgainUnderANewId) {
  SeccompChild child({SYS_getppid}, [] {
    CatchUsr1(SA_RESTART);
    return Trapped() == 42 && handled == 1 ? 0 : 1;
  });
  ASSERT_TRUE(child.ok());
  const auto call = child.Receive();
  ASSERT_TRUE(call.has_value());
  ASSERT_EQ(kill(child.pid(), SIGUSR1), 0);
  const auto again = child.Receive();
  ASSERT_TRUE(again.has_value());
  EXPECT_NE(again->id, call->id);
  EXPECT_EQ(again->data.nr, call->data.nr);
  EXPECT_EQ(Send(child.listener(), call->id, 1), -ENOENT);
  EXPECT_EQ(Send(child.listener(), again->id, 42), 0);
  EXPECT_EQ(child.Wait(), 0);
}

TEST(NotifyFacts, WaitKillableDefersSignalsAndEvenAStopUntilTheAnswer) {
  SeccompChild child(
      {SYS_getppid},
      [] {
        CatchUsr1(0);
        return Trapped() == 42 && handled == 1 ? 0 : 1;
      },
      SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
  if (!child.ok() && errno == EINVAL) {
    GTEST_SKIP() << "this kernel has no SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (Linux 5.19)";
  }
  ASSERT_TRUE(child.ok());
  const auto call = child.Receive();
  ASSERT_TRUE(call.has_value());
  ASSERT_EQ(kill(child.pid(), SIGUSR1), 0);
  EXPECT_TRUE(Comes([&] { return StateOf(child.pid()) == 'D'; }))
      << "the signal has turned its sleep into one "
         "that only a kill ends";
  ASSERT_EQ(kill(child.pid(), SIGSTOP), 0);
  EXPECT_EQ(IdValid(child.listener(), call->id), 0);
  EXPECT_EQ(
      AddFd(child.listener(), {.id = call->id, .flags = SECCOMP_ADDFD_FLAG_SETFD, .srcfd = 0, .newfd = 79}),
      79);
  EXPECT_EQ(Send(child.listener(), call->id, 42), 0);
  ASSERT_EQ(kill(child.pid(), SIGCONT), 0);
  EXPECT_EQ(child.Wait(), 0);
}

// ---- filters

TEST(NotifyFacts, AChainOfFiltersHasOneListener) {
  SeccompChild child({SYS_getppid}, [] {
    const int second = AddFilter(SYS_getuid, SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);
    return second == -EBUSY ? 0 : 1;
  });
  ASSERT_TRUE(child.ok());
  EXPECT_EQ(child.Wait(), 0);
}

TEST(NotifyFacts, AnErrnoOfAnyFilterGoesBeforeANotificationAndAnAllowDoesNot) {
  SeccompChild child({SYS_getppid}, [] {
    if (AddFilter(SYS_getppid, SECCOMP_RET_ALLOW) != 0 || Trapped() != 42) return 1;
    if (AddFilter(SYS_getppid, SECCOMP_RET_ERRNO | EXDEV) != 0) return 2;
    return Trapped() == -1 && errno == EXDEV ? 0 : 3;
  });
  ASSERT_TRUE(child.ok());
  const auto call = child.Receive();
  ASSERT_TRUE(call.has_value());
  EXPECT_EQ(Send(child.listener(), call->id, 42), 0);
  EXPECT_EQ(child.Wait(), 0);
}

TEST(NotifyFacts, SynchronousWakeUpsAreTakenAndUnknownFlagsAreNot) {
  SeccompChild child({SYS_getppid}, [] { return Trapped() == 42 ? 0 : 1; });
  ASSERT_TRUE(child.ok());
  const auto set = [&](unsigned long flags) {
    return Errno(ioctl(child.listener(), SECCOMP_IOCTL_NOTIF_SET_FLAGS, flags));
  };
  const int taken = set(SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
  if (taken == -EINVAL || taken == -ENOTTY)
    GTEST_SKIP() << "this kernel has no SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (Linux 6.6)";
  EXPECT_EQ(taken, 0);
  EXPECT_EQ(set(1UL << 63), -EINVAL);
  const auto call = child.Receive();
  ASSERT_TRUE(call.has_value());
  EXPECT_EQ(Send(child.listener(), call->id, 42), 0);
  EXPECT_EQ(child.Wait(), 0);
}

}  // namespace
}  // namespace shunt::facts
