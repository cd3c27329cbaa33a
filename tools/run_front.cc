// SPDX-License-Identifier: Apache-2.0

#include "tools/run_front.h"

#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <optional>

namespace shunt {
namespace {

class Front {
 public:
  Front(const Terminal& terminal, int link_fd, pid_t engine)
      : terminal_(terminal), link_fd_(link_fd), engine_(engine) {
    sigset_t signals = FrontSignals();
    sigemptyset(&group_stops_);
    if (!terminal_.own_group) {
      for (const int sig : {SIGTSTP, SIGTTIN, SIGTTOU}) {
        sigaddset(&group_stops_, sig);
        sigdelset(&signals, sig);
      }
    }
    signal_fd_.reset(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  }

  int Follow() {
    while (!engine_status_.has_value()) {
      pollfd fds[] = {{signal_fd_.get(), POLLIN, 0}, {link_fd_, POLLIN, 0}};
      if (poll(fds, 2, -1) < 0 && errno != EINTR) break;
      if (fds[0].revents != 0) ReadSignals();
      if (fds[1].revents != 0) ReadLink();
    }
    ReadLink();
    TakeOrphanedTerminal();
    return ExitStatus();
  }

 private:
  void ReadSignals() {
    signalfd_siginfo info;
    while (read(signal_fd_.get(), &info, sizeof info) == sizeof info) {
      const int sig = static_cast<int>(info.ssi_signo);
      if (sig == SIGCHLD) {
        int status;
        if (waitpid(engine_, &status, WNOHANG) == engine_) engine_status_ = status;
      } else if (sig == SIGCONT) {
        SendContinue();
      } else if (terminal_.own_group && command_stopped_ && sig == SIGTSTP) {
        // ^Z again before we could continue the command. The kernel has dropped our SIGCONT for it.
        StopLikeTheCommand(sig);
      } else if (terminal_.own_group || info.ssi_code != SI_KERNEL) {
        // The terminal's ^C, ^Z, hang-up and resize go to a whole process group. If that is the command's
        // group too, then the kernel has told the command already.
        Send({JobMessage::Kind::kSignal, sig});
      }
    }
  }

  void ReadLink() {
    JobMessage message;
    ssize_t got;
    while ((got = recv(link_fd_, &message, sizeof message, MSG_DONTWAIT)) == sizeof message) {
      if (message.kind == JobMessage::Kind::kExited) command_status_ = message.value;
      if (message.kind == JobMessage::Kind::kStopped) {
        last_stop_ = message.stop;
        command_stopped_ = true;
        if (terminal_.own_group || message.value == SIGSTOP) {
          StopLikeTheCommand(message.value);
        } else {
          StopWithTheGroup();
        }
      }
    }
    // At the end of the stream init has ended, orderly or not; poll leaves a negative descriptor in peace.
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) link_fd_ = -1;
  }

  // Stops us by the signal that stopped the command, so that our shell says of us what it would have said of
  // the command.
  void StopLikeTheCommand(int sig) {
    sigset_t only;
    sigemptyset(&only);
    sigaddset(&only, sig);
    signal(sig, SIG_DFL);
    kill(getpid(), sig);
    sigprocmask(SIG_UNBLOCK, &only,
                nullptr);  // here we stop; and go on after SIGCONT, which ReadSignals() finds
    sigprocmask(SIG_BLOCK, &only, nullptr);
  }

  // The terminal stops its whole foreground group, so the signal that stopped the command has been waiting
  // for us, too. Unless the shell has continued the group meanwhile: it may be content to see others of the
  // group stop.
  void StopWithTheGroup() {
    sigprocmask(SIG_UNBLOCK, &group_stops_, nullptr);
    sigprocmask(SIG_BLOCK, &group_stops_, nullptr);
  }

  void SendContinue() {
    command_stopped_ = false;
    const bool foreground = terminal_.tty.valid() && tcgetpgrp(terminal_.tty.get()) == getpgrp();
    const auto kind = foreground ? JobMessage::Kind::kContinueInForeground : JobMessage::Kind::kContinue;
    Send({.kind = kind, .stop = last_stop_});
  }

  void Send(JobMessage message) { send(link_fd_, &message, sizeof message, MSG_NOSIGNAL | MSG_DONTWAIT); }

  // A shell in the container may have ended while its own group, or a job's, had the foreground. Whoever runs
  // next in our group would be stopped at its first read. Our own shell would see to it, a script does not.
  void TakeOrphanedTerminal() const {
    if (!terminal_.foreground) return;
    const pid_t group = tcgetpgrp(terminal_.tty.get());
    // SIGTTOU is blocked, which is what allows us to do this from the background.
    if (group > 0 && kill(-group, 0) != 0 && errno == ESRCH) tcsetpgrp(terminal_.tty.get(), getpgrp());
  }

  int ExitStatus() const {
    if (command_status_.has_value()) return *command_status_;
    if (!engine_status_.has_value()) return 1;
    if (WIFEXITED(*engine_status_)) return WEXITSTATUS(*engine_status_);
    std::fprintf(stderr, "shunt run: the engine was killed by signal %d, and the command with it\n",
                 WTERMSIG(*engine_status_));
    return 1;
  }

  const Terminal& terminal_;
  int link_fd_;
  const pid_t engine_;
  Fd signal_fd_;
  sigset_t group_stops_;  // stop signals that come to us and the command at once, and are left pending
  bool command_stopped_ = false;       // and not continued by us
  int32_t last_stop_ = 0;              // the number of the command's last stop that we know of
  std::optional<int> engine_status_;   // as waitpid gives it
  std::optional<int> command_status_;  // as a shell gives it
};

}  // namespace

int FollowCommand(const Terminal& terminal, int link_fd, pid_t engine) {
  return Front(terminal, link_fd, engine).Follow();
}

}  // namespace shunt
