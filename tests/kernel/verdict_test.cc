// SPDX-License-Identifier: Apache-2.0
// Containers that are killed or frozen for a call, on the real kernel, with real cgroups where we may make
// some.

#include "handlers/verdict.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <fstream>
#include <iterator>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "tests/support/guest_container.h"
#include "tests/support/test_cgroup.h"

namespace shunt {
namespace {

GuestOptions Options(DefaultAction action) {
  GuestOptions options;
  options.policy.default_action = action;
  options.traps = {{"acct", {}}};
  options.accelerator.opens_cgroups = true;
  return options;
}

// A call that fails as it is, with EPERM or ENOSYS, were it continued; the answers of ours are told from it
// by what happens beside.
int Forbidden() {
  return syscall(SYS_acct, nullptr) == 0 ? 0 : errno;
}

TEST(Verdict, ContinuesByDefault) {
  GuestOptions options = Options(DefaultAction::kContinue);
  GuestContainer container(options);
  container.Run([] { return Forbidden(); });
  EXPECT_EQ(container.Counted(Counter::continued), 1u) << container.error();
}

TEST(Verdict, FailsWithTheErrnoOfThePolicy) {
  GuestOptions options = Options(DefaultAction::kFail);
  options.policy.default_error = EBADMSG;
  GuestContainer container(options);
  EXPECT_EQ(container.Run([] { return Forbidden(); }), EBADMSG) << container.error();
}

TEST(Verdict, KillsTheFirstProcessWithoutACgroup) {
  for (const bool killable : {false, true}) {
    GuestOptions options = Options(DefaultAction::kKillContainer);
    options.wait_killable = killable;
    GuestContainer container(options);
    // Its child calls, which without a pid namespace would stay; it ends with its parent here.
    const int result = container.Run([] {
      if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        Forbidden();
        pause();
      }
      pause();
      return 0;
    });
    EXPECT_EQ(result, 1000 + SIGKILL) << container.error();
    EXPECT_EQ(container.warnings(), "");
  }
}

TEST(Verdict, KillsAllOfACgroup) {
  const TestCgroup cgroup(Hierarchy::kUnified);
  NEED_CGROUP(cgroup);
  GuestOptions options = Options(DefaultAction::kKillContainer);
  options.before_served = [&](pid_t pid) { EXPECT_TRUE(cgroup.Take(pid)); };
  GuestContainer container(options);
  // Run() ends when the last task under the filter has: the child as well.
  const int result = container.Run([] {
    if (fork() == 0) {
      pause();
      _exit(0);
    }
    Forbidden();
    return 0;
  });
  EXPECT_EQ(result, 1000 + SIGKILL) << container.error();
}

// Calls twice, and is frozen exactly twice, although each freeze takes it out of its call.
void FreezesOnceForEachCall(Hierarchy hierarchy, bool killable) {
  const TestCgroup cgroup(hierarchy);
  NEED_CGROUP(cgroup);
  int thaws = 0;
  GuestOptions options = Options(DefaultAction::kFreezeContainer);
  options.wait_killable = killable;
  options.before_served = [&](pid_t pid) { EXPECT_TRUE(cgroup.Take(pid)); };
  options.meanwhile = [&](pid_t) {
    if (!cgroup.IsFrozen()) return;
    ++thaws;
    cgroup.Thaw();
  };
  GuestContainer container(options);
  const int result = container.Run([] {
    const int first = Forbidden();
    return first == EPERM ? Forbidden() : first;
  });
  EXPECT_EQ(result, EPERM) << container.error();
  EXPECT_EQ(thaws, 2) << container.warnings();
}

TEST(Verdict, FreezesOnceForEachCallInTheUnifiedHierarchy) {
  FreezesOnceForEachCall(Hierarchy::kUnified, /*killable=*/false);
  FreezesOnceForEachCall(Hierarchy::kUnified, /*killable=*/true);
}

TEST(Verdict, FreezesOnceForEachCallInTheFreezersHierarchy) {
  FreezesOnceForEachCall(Hierarchy::kFreezer, /*killable=*/false);
  FreezesOnceForEachCall(Hierarchy::kFreezer, /*killable=*/true);
}

// As the container's runtime does, which else could neither see that it is frozen nor thaw it.
TEST(Verdict, FreezesByTheFreezersHierarchyWhereThereAreBoth) {
  const TestCgroup freezer(Hierarchy::kFreezer), unified(Hierarchy::kUnified);
  NEED_CGROUP(freezer);
  NEED_CGROUP(unified);
  int by_freezer = 0, by_unified = 0;
  GuestOptions options = Options(DefaultAction::kFreezeContainer);
  options.before_served = [&](pid_t pid) { EXPECT_TRUE(freezer.Take(pid) && unified.Take(pid)); };
  options.meanwhile = [&](pid_t) {
    if (freezer.IsFrozen()) {
      ++by_freezer;
      freezer.Thaw();
    }
    if (unified.IsFrozen()) {
      ++by_unified;
      unified.Thaw();
    }
  };
  GuestContainer container(options);
  EXPECT_EQ(container.Run([] { return Forbidden(); }), EPERM) << container.error();
  EXPECT_EQ(by_freezer, 1) << container.warnings();
  EXPECT_EQ(by_unified, 0);
}

TEST(Verdict, FreezesWithWhatAnEngineBeforeHasTaken) {
  for (const Hierarchy hierarchy : {Hierarchy::kUnified, Hierarchy::kFreezer}) {
    const TestCgroup cgroup(hierarchy);
    NEED_CGROUP(cgroup);
    std::array<int, 2> go;
    ASSERT_EQ(pipe(go.data()), 0);
    int thaws = 0;
    bool died = false;
    GuestOptions options = Options(DefaultAction::kFreezeContainer);
    options.before_served = [&](pid_t pid) { EXPECT_TRUE(cgroup.Take(pid)); };
    options.engine_dies = [&] { return !std::exchange(died, true); };
    options.meanwhile = [&](pid_t) {
      if (go[1] >= 0) close(std::exchange(go[1], -1));
      if (!cgroup.IsFrozen()) return;
      ++thaws;
      cgroup.Thaw();
    };
    GuestContainer container(options);
    const int result = container.Run([&] {
      close(go[1]);
      char byte;
      return read(go[0], &byte, 1) == 0 ? Forbidden() : 1;  // the second engine serves
    });
    EXPECT_EQ(result, EPERM) << container.error();
    EXPECT_EQ(thaws, 1) << container.warnings();
    close(go[0]);
  }
}

TEST(Verdict, FreezesNobodyElseWhereThereIsNoCgroupOfItsOwn) {
  GuestOptions options = Options(DefaultAction::kFreezeContainer);
  GuestContainer container(options);
  EXPECT_EQ(container.Run([] { return Forbidden(); }), EPERM) << container.error();
  EXPECT_TRUE(absl::StrContains(container.warnings(), "container guest cannot be frozen as a whole"))
      << container.warnings();
}

TEST(Verdict, TakesNoCgroupThatTheParentOfTheContainerIsIn) {
  const auto opener = CgroupOpener::Start();
  ASSERT_TRUE(opener.ok()) << opener.status();
  for (const Hierarchy hierarchy : {Hierarchy::kUnified, Hierarchy::kFreezer}) {
    const TestCgroup cgroup(hierarchy);
    NEED_CGROUP(cgroup);
    // A runtime without cgroups: both are where the runtime was started. We are elsewhere.
    std::array<int, 2> up;
    ASSERT_EQ(pipe(up.data()), 0);
    const pid_t runtime = fork();
    if (runtime == 0) {
      if (!cgroup.Take(getpid())) _exit(1);
      const pid_t first = fork();
      if (first == 0) {
        pause();
        _exit(0);
      }
      if (write(up[1], &first, sizeof(first)) != sizeof(first)) _exit(1);
      pause();
      _exit(0);
    }
    pid_t first = 0;
    ASSERT_EQ(read(up[0], &first, sizeof(first)), static_cast<ssize_t>(sizeof(first)));
    ContainerSpec spec{.name = "x", .first_process = first};
    spec.policy.default_action = DefaultAction::kFreezeContainer;
    const absl::StatusOr<Fd> shared = TakeLever(spec, opener->get());
    EXPECT_FALSE(shared.ok());
    EXPECT_TRUE(absl::StrContains(shared.status().message(), "is shared with others")) << shared.status();

    // Its parent somewhere else: it is its own. But not if its owner does not own it.
    const std::string root = DirectoryOf(Text("/proc/self/mountinfo"), hierarchy, "/");
    ASSERT_TRUE(Write(root + "cgroup.procs", std::to_string(runtime)));
    const absl::StatusOr<Fd> own = TakeLever(spec, opener->get());
    EXPECT_TRUE(own.ok()) << own.status();
    spec.owner = 1234;
    EXPECT_FALSE(TakeLever(spec, opener->get()).ok());
    kill(first, SIGKILL);
    kill(runtime, SIGKILL);
    waitpid(runtime, nullptr, 0);
    close(up[0]);
    close(up[1]);
  }
}

}  // namespace
}  // namespace shunt
