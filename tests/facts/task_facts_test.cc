// SPDX-License-Identifier: Apache-2.0
// Naming the task that made a call, and its descriptors: thread ids, pidfds and fdinfo, as core/target leans
// on them.

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/stat.h>

#include <string_view>
#include <thread>

#include "tests/facts/notifier.h"
#include "tests/support/seccomp_child.h"

namespace shunt::facts {
namespace {

using testing_support::SeccompChild;

int OpenPidFd(pid_t pid, unsigned flags) {
  return Errno(syscall(SYS_pidfd_open, pid, flags));
}

int TakeFd(int pidfd, int number) {
  return Errno(syscall(SYS_pidfd_getfd, pidfd, number, 0));
}

TEST(TaskFacts, TheCallerIsNamedByItsThreadId) {
  const Shared<volatile pid_t> tid;
  SeccompChild child({SYS_getppid}, [&] {
    std::thread([&] {
      *tid = gettid();
      syscall(SYS_getppid);
    }).join();
    return 0;
  });
  ASSERT_TRUE(child.ok());
  const auto call = child.Receive();
  ASSERT_TRUE(call.has_value());
  EXPECT_EQ(static_cast<pid_t>(call->pid), *tid);
  EXPECT_NE(static_cast<pid_t>(call->pid), child.pid());
  EXPECT_EQ(Send(child.listener(), call->id, 0), 0);
  EXPECT_EQ(child.Wait(), 0);
}

TEST(TaskFacts, ACallerOutsideOfTheReceiversPidNamespaceIsNamedZero) {
  SeccompChild child({SYS_getppid}, [] { return syscall(SYS_getppid) == 42 ? 0 : 1; });
  ASSERT_TRUE(child.ok());
  const Shared<seccomp_notif> slot;
  Child receiver([&] {
    if (unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0) return 77;
    const pid_t inside = fork();
    if (inside == 0) _exit(Receive(child.listener(), *slot) == 0 ? 0 : 1);
    int status = -1;
    waitpid(inside, &status, 0);
    return status == 0 ? 0 : 1;
  });
  const int result = receiver.Wait();
  if (result == 77) GTEST_SKIP() << "no user namespace is to be had here";
  ASSERT_EQ(result, 0);
  EXPECT_NE(slot->id, 0u);
  EXPECT_EQ(slot->pid, 0u);
  EXPECT_EQ(Send(child.listener(), slot->id, 42), 0);
  EXPECT_EQ(child.Wait(), 0);
}

TEST(TaskFacts, APidfdForAThreadThatLeadsNoProcessTakesAFlag) {
  const Shared<volatile pid_t> tid;
  Child child([&] {
    std::thread([&] {
      *tid = gettid();
      pause();
    }).join();
    return 0;
  });
  ASSERT_TRUE(Comes([&] { return *tid != 0; }));
  EXPECT_LT(OpenPidFd(*tid, 0), 0);
  const Fd pidfd(OpenPidFd(*tid, PIDFD_THREAD));
  if (pidfd.get() == -EINVAL) GTEST_SKIP() << "this kernel has no PIDFD_THREAD (Linux 6.9)";
  ASSERT_TRUE(pidfd.valid());
  EXPECT_GE(Fd(TakeFd(pidfd.get(), 0)).get(), 0);
}

// `cat` that holds a pipe's end open until it is killed.
[[noreturn]] void BecomeCat(int input) {
  dup2(input, 0);
  execl("/bin/cat", "cat", nullptr);
  _exit(127);
}

TEST(TaskFacts, APidfdSurvivesExecAndAnOpenMemoryFileDoesNot) {
  int waits[2], feeds[2];
  ASSERT_EQ(pipe2(waits, O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(feeds, O_CLOEXEC), 0);
  const Fd go_read(waits[0]), cat_read(feeds[0]), cat_write(feeds[1]);
  Fd go_write(waits[1]);
  static char byte = 'x';
  Child child([&] {
    char go;
    return read(go_read.get(), &go, 1) == 1 ? (BecomeCat(cat_read.get()), 0) : 1;
  });
  const Fd pidfd(OpenPidFd(child.pid(), 0));
  ASSERT_TRUE(pidfd.valid());
  char path[32];
  std::snprintf(path, sizeof(path), "/proc/%d/mem", child.pid());
  const Fd memory(open(path, O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(memory.valid());
  char seen = 0;
  ASSERT_EQ(pread(memory.get(), &seen, 1, static_cast<off_t>(reinterpret_cast<uintptr_t>(&byte))), 1);
  ASSERT_EQ(write(go_write.get(), "g", 1), 1);
  // The exec closes the child's copy of this pipe's end: ours is the last one.
  ASSERT_TRUE(Comes([&] { return TakeFd(pidfd.get(), go_write.get()) == -EBADF; }));
  EXPECT_EQ(pread(memory.get(), &seen, 1, static_cast<off_t>(reinterpret_cast<uintptr_t>(&byte))), 0);
  const Fd taken(TakeFd(pidfd.get(), 0));
  EXPECT_TRUE(taken.valid());
}

TEST(TaskFacts, ATakenDescriptorIsClosedOnExecWhateverTheTargetsIs) {
  const Fd plain(dup(0)), closing(fcntl(0, F_DUPFD_CLOEXEC, 0));
  const Fd self(OpenPidFd(getpid(), 0));
  for (const int number : {plain.get(), closing.get()}) {
    const Fd taken(TakeFd(self.get(), number));
    ASSERT_TRUE(taken.valid());
    EXPECT_EQ(fcntl(taken.get(), F_GETFD), FD_CLOEXEC);
  }
}

TEST(TaskFacts, AnOpenFdinfoTellsWhatLiesUnderTheNumberNowAndNothingOnceTheTaskHasGone) {
  constexpr int kNumber = 80;
  int steps[2], done[2];
  ASSERT_EQ(pipe2(steps, O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(done, O_CLOEXEC), 0);
  const Fd step_read(steps[0]), step_write(steps[1]), done_read(done[0]), done_write(done[1]);
  Child child([&] {
    char byte;
    for (const int flags : {O_RDONLY | O_CLOEXEC, O_WRONLY | O_APPEND}) {
      const Fd file(open("/dev/null", flags));
      if (dup3(file.get(), kNumber, flags & O_CLOEXEC) != kNumber) return 1;
      if (write(done_write.get(), "d", 1) != 1 || read(step_read.get(), &byte, 1) != 1) return 2;
    }
    close(kNumber);
    if (write(done_write.get(), "d", 1) != 1) return 3;
    return pause();
  });
  char path[48], text[512], byte;
  std::snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", child.pid(), kNumber);
  ASSERT_EQ(read(done_read.get(), &byte, 1), 1);
  const Fd info(open(path, O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(info.valid());
  const auto tells = [&](const char* flags) {
    const ssize_t length = pread(info.get(), text, sizeof(text), 0);
    return length > 0 &&
           std::string_view(text, static_cast<size_t>(length)).find(flags) != std::string_view::npos;
  };
  EXPECT_TRUE(tells("flags:\t02100000\n")) << "O_CLOEXEC is told";
  ASSERT_EQ(write(step_write.get(), "s", 1), 1);
  ASSERT_EQ(read(done_read.get(), &byte, 1), 1);
  EXPECT_TRUE(tells("flags:\t0102001\n"));
  ASSERT_EQ(write(step_write.get(), "s", 1), 1);
  ASSERT_EQ(read(done_read.get(), &byte, 1), 1);
  EXPECT_LE(pread(info.get(), text, sizeof(text), 0), 0);
  child.Kill();
  EXPECT_LE(pread(info.get(), text, sizeof(text), 0), 0);
}

}  // namespace
}  // namespace shunt::facts
