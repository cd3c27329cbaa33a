// SPDX-License-Identifier: Apache-2.0

#include "tools/run_terminal.h"

#include <fcntl.h>
#include <unistd.h>

namespace shunt {
namespace {

// True if the caller's shell made a job of us alone: we lead our group, and no pipe makes it likely that
// there are others in it. A session leader is nobody's job.
bool AloneInOurJob() {
  return getpgrp() == getpid() && getsid(0) != getpid() && isatty(STDIN_FILENO) == 1 &&
         isatty(STDOUT_FILENO) == 1;
}

}  // namespace

sigset_t FrontSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int sig : {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SIGCONT, SIGTSTP,
                        SIGTTIN, SIGTTOU, SIGCHLD}) {
    sigaddset(&set, sig);
  }
  return set;
}

Terminal Terminal::Open() {
  Terminal terminal;
  terminal.tty.reset(open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY));
  terminal.own_group = !terminal.tty.valid() || AloneInOurJob();
  terminal.foreground = terminal.tty.valid() && tcgetpgrp(terminal.tty.get()) == getpgrp();
  const sigset_t blocked = FrontSignals();
  sigprocmask(SIG_BLOCK, &blocked, &terminal.callers_mask);
  return terminal;
}

}  // namespace shunt
