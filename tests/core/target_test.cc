// SPDX-License-Identifier: Apache-2.0
// Targets whose number is given to another task.

#include "core/target.h"

#include <gtest/gtest.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

namespace shunt {
namespace {

constexpr int kNoNamespace = 77;

// The exit status of `body`, run by the first process of a pid namespace in which it may choose pids.
int InAPidNamespace(const std::function<int()>& body) {
  const pid_t outer = fork();
  if (outer == 0) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0) _exit(kNoNamespace);
    const pid_t inner = fork();
    if (inner == 0) _exit(body());
    int status = 0;
    waitpid(inner, &status, 0);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 255);
  }
  int status = 0;
  waitpid(outer, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

bool StartProcess(pid_t pid) {
  clone_args args{};
  args.exit_signal = SIGCHLD;
  args.set_tid = reinterpret_cast<uint64_t>(&pid);
  args.set_tid_size = 1;
  const long started = syscall(SYS_clone3, &args, sizeof(args));
  if (started == 0) {
    pause();
    _exit(0);
  }
  return started == pid;
}

TEST(Target, ANoteAboutATaskIsNoneAboutTheNextOneOfItsNumber) {
  const int status = InAPidNamespace([] {
    constexpr pid_t kPid = 50;
    constexpr uint64_t kOwner = 1;
    const Fd open(eventfd(0, 0));
    TargetCache cache;
    if (!StartProcess(kPid) || !cache.Find(kOwner, kPid).TakeFd(open.get())) return 1;
    cache.Find(kOwner, kPid).note()[0] = 5;
    if (!cache.Find(kOwner, kPid).TakeFd(open.get()) || cache.Find(kOwner, kPid).note()[0] != 5) return 2;
    kill(kPid, SIGKILL);
    if (waitpid(kPid, nullptr, 0) != kPid || !StartProcess(kPid)) return 3;
    if (!cache.Find(kOwner, kPid).TakeFd(open.get())) return 4;
    return cache.Find(kOwner, kPid).note()[0] == 0 ? 0 : 5;
  });
  if (status == kNoNamespace) GTEST_SKIP() << "this user may not make user namespaces";
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace shunt
