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

enum class Sleep { kThatASignalEnds, kThatOnlyDeathEnds };

char StateOf(pid_t pid) {
  char path[32], state = 0;
  std::snprintf(path, sizeof(path), "/proc/%d/stat", pid);
  FILE* const file = std::fopen(path, "re");
  if (file == nullptr) return 0;
  if (std::fscanf(file, "%*d (%*[^)]) %c", &state) != 1) state = 0;
  std::fclose(file);
  return state;
}

// A child that sleeps, in so many groups; -1 if it may not be in them. Who waits for a child of vfork()
// sleeps as who waits for our answer under WAIT_KILLABLE_RECV does.
pid_t SleepingChild(Sleep sleep, size_t groups = 0) {
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    std::vector<gid_t> ids;
    for (size_t i = 0; i < groups; ++i) ids.push_back(static_cast<gid_t>(4'000'000'000 + i));
    if (groups != 0 && setgroups(ids.size(), ids.data()) != 0) _exit(kNoGroups);
    std::signal(SIGUSR1, [](int) {});
    std::signal(SIGUSR2, SIG_IGN);
    if (const pid_t own = getpid(); sleep == Sleep::kThatOnlyDeathEnds && vfork() == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      while (getppid() == own) pause();
      _exit(0);
    }
    if (sleep == Sleep::kThatASignalEnds) raise(SIGSTOP);
    _exit(0);
  }
  const char wanted = sleep == Sleep::kThatOnlyDeathEnds ? 'D' : 'T';
  for (int looks = 0; looks < 60'000; ++looks) {
    const char state = StateOf(child);
    if (state == wanted) return child;
    if (state == 'Z') break;
    usleep(1000);
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return -1;
}

void ExpectToSeeSignalsOf(pid_t child) {
  EXPECT_FALSE(SignalKeptBack(child));
  kill(child, SIGUSR2);
  EXPECT_FALSE(SignalKeptBack(child)) << "it is ignored";
  kill(child, SIGUSR1);
  EXPECT_TRUE(SignalKeptBack(child));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_FALSE(SignalKeptBack(child));
}

TEST(PendingSignals, AreSeen) {
  const pid_t child = SleepingChild(Sleep::kThatOnlyDeathEnds);
  ASSERT_GT(child, 0);
  ExpectToSeeSignalsOf(child);
}

TEST(PendingSignals, AreSeenOfAProcessInManyGroups) {
  const pid_t child = SleepingChild(Sleep::kThatOnlyDeathEnds, 5000);
  if (child < 0) GTEST_SKIP() << "an ordinary user cannot be in 5000 groups";
  ExpectToSeeSignalsOf(child);
}

TEST(PendingSignals, OfWhoWakesUpForThemAreNotKeptBack) {
  const pid_t child = SleepingChild(Sleep::kThatASignalEnds);
  ASSERT_GT(child, 0);
  kill(child, SIGUSR1);
  EXPECT_FALSE(SignalKeptBack(child));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

}  // namespace
}  // namespace shunt
