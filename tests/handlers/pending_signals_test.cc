// SPDX-License-Identifier: Apache-2.0

#include "handlers/pending_signals.h"

#include <grp.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <vector>

namespace shunt {
namespace {

constexpr int kNoGroups = 77;

// A child that is stopped, so that signals stay with it, in so many groups; -1 if it may not be in them.
pid_t StoppedChild(size_t groups) {
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    std::vector<gid_t> ids;
    for (size_t i = 0; i < groups; ++i) ids.push_back(static_cast<gid_t>(4'000'000'000 + i));
    if (groups != 0 && setgroups(ids.size(), ids.data()) != 0) _exit(kNoGroups);
    std::signal(SIGUSR1, [](int) {});
    std::signal(SIGUSR2, SIG_IGN);
    raise(SIGSTOP);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, WUNTRACED);
  return WIFSTOPPED(status) ? child : -1;
}

void ExpectToSeeSignalsOf(pid_t child) {
  EXPECT_FALSE(SignalWaits(child));
  kill(child, SIGUSR2);
  EXPECT_FALSE(SignalWaits(child)) << "it is ignored";
  kill(child, SIGUSR1);
  EXPECT_TRUE(SignalWaits(child));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_FALSE(SignalWaits(child));
}

TEST(PendingSignals, AreSeen) {
  const pid_t child = StoppedChild(0);
  ASSERT_GT(child, 0);
  ExpectToSeeSignalsOf(child);
}

TEST(PendingSignals, AreSeenOfAProcessInManyGroups) {
  const pid_t child = StoppedChild(5000);
  if (child < 0) GTEST_SKIP() << "an ordinary user cannot be in 5000 groups";
  ExpectToSeeSignalsOf(child);
}

}  // namespace
}  // namespace shunt
