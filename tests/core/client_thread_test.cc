// SPDX-License-Identifier: Apache-2.0
// BeginThread: such a thread lets a reactor go first, and takes nobody along.

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <thread>

#include "core/confinement.h"

namespace shunt {
namespace {

struct Schedule {
  uint32_t size = sizeof(Schedule), policy = 0;
  uint64_t flags = 0;
  int32_t nice = 0;
  uint32_t priority = 0;
  uint64_t runtime = 0, deadline = 0, period = 0;
};

Schedule Own() {
  Schedule schedule;
  EXPECT_EQ(syscall(SYS_sched_getattr, 0, &schedule, sizeof(schedule), 0), 0);
  return schedule;
}

// Before Linux 6.12 no thread has a slice of its own, and none is told.
TEST(ClientThreadTest, GoesBehindTheOthersAndStaysRunnable) {
  const Schedule before = Own();
  Schedule client;
  std::thread([&client] {
    BeginThread(EngineThread::kClient, "client");
    client = Own();
  }).join();
  EXPECT_EQ(client.nice, std::min(before.nice + 10, 19));
  EXPECT_EQ(client.policy, uint32_t{SCHED_OTHER}) << "SCHED_IDLE may never run";
  if (before.runtime != 0) {
    EXPECT_LT(client.runtime, before.runtime);
  }
  EXPECT_EQ(Own().nice, before.nice) << "of this thread nobody has said anything";
  EXPECT_EQ(Own().runtime, before.runtime);
}

}  // namespace
}  // namespace shunt
