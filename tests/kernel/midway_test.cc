// SPDX-License-Identifier: Apache-2.0
// What may happen to a mkdir while a worker is in the middle of it: to the caller, to the worker, to the
// caller's number. Each is made once, and gets its answer.

#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <string>
#include <utility>

#include "core/cgroup.h"
#include "core/filter.h"
#include "tests/support/held_directory.h"
#include "tests/support/inside_checks.h"
#include "tests/support/shared.h"
#include "tests/support/test_cgroup.h"

namespace shunt {
namespace {

#define NEED_FUSE()                          \
  if (access("/dev/fuse", R_OK | W_OK) != 0) \
  GTEST_SKIP() << "no /dev/fuse that this user may open: a call cannot be held in its middle"

// What the test and the container tell each other.
struct Scene {
  Hold hold;
  std::atomic<pid_t> caller = 0;
  std::atomic<bool> go = false;
};

void Until(const std::atomic<bool>& flag) {
  while (!flag) sched_yield();
}

// Inside: what comes to /mnt is held up. That is there already: to make a directory takes a worker.
bool Prepare(Hold& hold) {
  return HoldDirectory("/mnt", hold) > 0;
}

int ErrorOfMaking(const char* path) {
  return mkdir(path, 0777) == 0 ? 0 : errno;
}

// In a child, which ends with its parent.
pid_t Spawn(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child != 0) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  _exit(body());
}

int StatusOf(pid_t child) {
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

// The caller of mkdir(`path`) is frozen when the worker has got as far as to the request `at`, and thawed
// when that is over.
void FreezeMidway(Hierarchy hierarchy, uint32_t at, const char* path, bool killable) {
  const TestCgroup cgroup(hierarchy);
  NEED_CGROUP(cgroup);
  const Shared<Scene> scene;
  scene->hold.at = at;
  GuestOptions options = Renaming();
  options.wait_killable = killable;
  bool freezes = false;
  int thaws = 0;
  options.meanwhile = [&](pid_t) {
    Hold& hold = scene->hold;
    if (!scene->go && scene->caller != 0) {
      EXPECT_TRUE(cgroup.Take(scene->caller));
      scene->go = true;
    }
    if (hold.holding && !std::exchange(freezes, true)) cgroup.Freeze();
    // It cannot be frozen in a call that nothing but death ends.
    if (freezes && (killable || cgroup.IsFrozen())) hold.let_go = true;
    if (hold.answered && thaws == 0 && cgroup.IsFrozen()) {
      ++thaws;
      cgroup.Thaw();
    }
  };
  ExpectInside(
      [&scene, path] {
        CHECK_INSIDE(Prepare(scene->hold));
        const pid_t caller = Spawn([&scene, path] {
          Until(scene->go);
          const int first = ErrorOfMaking(path);
          return first == 0 && ErrorOfMaking(path) == EEXIST ? 0 : 1 + first;
        });
        scene->caller = caller;
        CHECK_INSIDE(StatusOf(caller) == 0);
        CHECK_INSIDE(scene->hold.made == 1);
        return 0;
      },
      std::move(options));
  EXPECT_EQ(thaws, 1);
}

void FreezeMidway(uint32_t at, const char* path) {
  NEED_FUSE();
  for (const Hierarchy hierarchy : {Hierarchy::kUnified, Hierarchy::kFreezer}) {
    for (const bool killable : {false, true}) {
      if (killable && !HasWaitKillable()) continue;
      SCOPED_TRACE(std::string(hierarchy == Hierarchy::kUnified ? "unified" : "freezer") +
                   (killable ? ", killable" : ""));
      FreezeMidway(hierarchy, at, path, killable);
    }
  }
}

TEST(Midway, FrozenBetweenTheDeedAndTheAnswerACallIsDoneOnce) {
  FreezeMidway(FUSE_MKDIR, "/mnt/a");
}

TEST(Midway, FrozenWhileItsWorkIsGivenAndNotBegunACallIsDoneOnce) {
  FreezeMidway(FUSE_LOOKUP, "/mnt/deep/a");
}

// Whoever may signal a worker may stop it as well.
TEST(Midway, AStoppedWorkerHoldsUpItsOwnCallOnlyAndMakesNothingTwice) {
  NEED_FUSE();
  const Shared<Scene> scene;
  const Shared<std::atomic<bool>> others_done;
  scene->hold.at = FUSE_MKDIR;
  GuestOptions options = Renaming();
  const GuestContainer* running = nullptr;
  pid_t stopped = 0;
  bool goes_on = false;
  options.meanwhile = [&](pid_t) {
    if (scene->hold.holding && stopped == 0) {
      ASSERT_EQ(running->workers().size(), 1u);
      stopped = running->workers()[0];
      EXPECT_EQ(kill(stopped, SIGSTOP), 0);
      scene->hold.let_go = true;
      scene->go = true;
    }
    if (*others_done && !std::exchange(goes_on, true)) {
      EXPECT_EQ(kill(stopped, SIGCONT), 0);
    }
  };
  GuestContainer container(std::move(options));
  running = &container;
  EXPECT_EQ(container.Run([&] {
    CHECK_INSIDE(EnterTmpfs() && Prepare(scene->hold));
    const pid_t caller = Spawn([] { return ErrorOfMaking("/mnt/a"); });
    Until(scene->go);
    Until(scene->hold.answered);
    for (int i = 0; i < 300; ++i) CHECK_INSIDE(ErrorOfMaking(("/tmp/" + std::to_string(i)).c_str()) == 0);
    CHECK_INSIDE(waitpid(caller, nullptr, WNOHANG) == 0);
    *others_done = true;
    CHECK_INSIDE(StatusOf(caller) == 0);
    CHECK_INSIDE(scene->hold.made == 1);
    return 0;
  }),
            0)
      << container.error();
  EXPECT_TRUE(goes_on);
  EXPECT_GT(container.workers().size(), 1u);
}

// The number of a caller that was killed in the middle of its call is given to another, which calls as well,
// in the very same way at first.
TEST(Midway, WhoHasAKilledCallersNumberGetsAnswersOfItsOwn) {
  NEED_FUSE();
  constexpr char kLastPid[] = "/proc/sys/kernel/ns_last_pid";
  if (geteuid() != 0) GTEST_SKIP() << "takes root: " << kLastPid << " is to be written";
  const Shared<Scene> scene;
  const Shared<std::atomic<pid_t>> wanted;  // not 0: the next process shall have this number
  scene->hold.at = FUSE_MKDIR;
  GuestOptions options = Renaming();
  options.meanwhile = [&](pid_t) {
    const pid_t number = *wanted;
    if (number == 0) return;
    EXPECT_TRUE(Write(kLastPid, std::to_string(number - 1)));
    *wanted = 0;
  };
  ExpectInside(
      [&] {
        CHECK_INSIDE(Prepare(scene->hold));
        const auto call = [](const char* path) { return ErrorOfMaking(path); };
        const pid_t killed = Spawn([&] { return call("/mnt/a"); });
        Until(scene->hold.holding);
        CHECK_INSIDE(kill(killed, SIGKILL) == 0 && waitpid(killed, nullptr, 0) == killed);
        pid_t next = 0;
        for (int i = 0; i < 1000 && next != killed; ++i) {
          if (next > 0) kill(next, SIGKILL), waitpid(next, nullptr, 0);
          *wanted = killed;
          while (*wanted != 0) sched_yield();
          next = Spawn([&] {
            Until(scene->go);
            if (call("/mnt/a") != EEXIST) return 1;
            if (call("/tmp/b") != 0 || call("/tmp/b") != EEXIST) return 2;
            return call("/mnt/c");
          });
        }
        CHECK_INSIDE(next == killed);
        scene->go = true;
        scene->hold.let_go = true;
        CHECK_INSIDE(StatusOf(next) == 0);
        CHECK_INSIDE(scene->hold.made == 2);
        return 0;
      },
      std::move(options));
}

}  // namespace
}  // namespace shunt
