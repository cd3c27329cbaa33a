// SPDX-License-Identifier: Apache-2.0
// Calls that workers do are not lost on a calm container while another one makes as many of them as it can.

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <string>
#include <thread>
#include <vector>

#include "core/limits.h"
#include "tests/endure/guest_sockets.h"
#include "tests/support/fleet.h"
#include "tests/support/inside_checks.h"
#include "tests/support/shared.h"
#include "tests/support/worker_starter.h"

namespace shunt {
namespace {

// Far more threads at once than one container may have calls waiting.
constexpr int kProcesses = 40, kThreads = 8;
static_assert(kProcesses * kThreads > 4 * limits::kTaskSlotsPerListener);
constexpr int kCalm = 300;  // calls, at least

struct Course {
  std::atomic<size_t> at_it = 0;      // threads of the flood
  std::atomic<uint64_t> flooded = 0;  // directories that it has made
  std::atomic<bool> enough = false;
};

bool EnterOwnTmpfs() {
  return unshare(CLONE_NEWNS) == 0 && EnterTmpfs();
}

// Processes that make processes, whose threads make directories, until it is enough.
int Floods(Course& course) {
  if (!EnterOwnTmpfs()) return 1;
  const pid_t parent = getpid();
  for (int process = 0; process < kProcesses; ++process) {
    if (fork() != 0) continue;
    EndWith(parent);
    const pid_t self = getpid();
    for (;;) {
      if (fork() == 0) {
        EndWith(self);
        std::vector<std::thread> threads;
        for (int thread = 0; thread < kThreads; ++thread) {
          threads.emplace_back([&course, name = std::to_string(self) + "-" + std::to_string(thread)] {
            ++course.at_it;
            for (int i = 0; i < 64; ++i) {
              if (mkdir(name.c_str(), 0700) != 0) continue;  // there may be no slot left for it
              ++course.flooded;
              rmdir((name + "-made").c_str());
            }
            --course.at_it;
          });
        }
        for (std::thread& thread : threads) thread.join();
        _exit(0);
      }
      wait(nullptr);
    }
  }
  while (!course.enough) usleep(1000);  // what it began ends with it
  return 0;
}

int WorksCalmly(Course& course) {
  if (!EnterOwnTmpfs()) return 1;
  // At once when they are so many: no worker of theirs is there yet, and all calls wait.
  while (course.at_it < 2 * limits::kTaskSlotsPerListener) sched_yield();
  const uint64_t flooded = course.flooded;
  for (int i = 0; i < kCalm || course.flooded < flooded + kCalm; ++i) {
    if (mkdir("calm", 0700) != 0) return errno;
    if (rmdir("calm-made") != 0) return 254;
  }
  course.enough = true;
  return 0;
}

TEST(Inside, AForkBombOfCallsTakesNoneFromACalmContainer) {
  const Shared<Course> course;
  WorkerStarter starter;
  Fleet fleet({.bodies = {[&] { return Floods(*course); }, [&] { return WorksCalmly(*course); }},
               .policy = Renaming().policy,
               .traps = Renaming().traps,
               .accelerator = {.reactors = 1, .custodian = &starter}});
  ASSERT_EQ(fleet.Start(), "");
  const pid_t flood = fleet.Launch(0), calm = fleet.Launch(1);
  ASSERT_GT(flood, 0) << fleet.error();
  ASSERT_GT(calm, 0) << fleet.error();
  EXPECT_EQ(fleet.Join(calm), 0) << fleet.error();
  course->enough = true;
  EXPECT_EQ(fleet.Join(flood), 0) << fleet.error();
}

}  // namespace
}  // namespace shunt
