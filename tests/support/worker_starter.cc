// SPDX-License-Identifier: Apache-2.0
#include "tests/support/worker_starter.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "core/check.h"

namespace shunt {

WorkerStarter::~WorkerStarter() {
  for (const pid_t worker : workers_) {
    kill(worker, SIGKILL);
    waitpid(worker, nullptr, 0);
  }
}

void WorkerStarter::StartWorker(Fd link) {
  constexpr int kLink = 3;
  const pid_t worker = fork();
  SHUNT_CHECK(worker >= 0);
  if (worker > 0) {
    workers_.push_back(worker);
    return;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (link.get() == kLink) {
    fcntl(kLink, F_SETFD, 0);
  } else {
    dup2(link.get(), kLink);
  }
  close_range(kLink + 1, ~0U, CLOSE_RANGE_CLOEXEC);
  execl(SHUNT_PROGRAM, "shunt", "worker", "--link", "3", nullptr);
  _exit(127);
}

}  // namespace shunt
