// SPDX-License-Identifier: Apache-2.0

#include "tools/run_init.h"

#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

namespace shunt {
namespace {

class Init {
 public:
  Init(const Terminal& terminal, int link_fd, pid_t command)
      : terminal_(terminal), link_fd_(link_fd), command_(command) {}

  void Run() {
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    const Fd child_fd(signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
    while (true) {
      pollfd fds[] = {{child_fd.get(), POLLIN, 0}, {link_fd_, POLLIN, 0}};
      if (poll(fds, 2, -1) < 0 && errno != EINTR) return;
      signalfd_siginfo info;
      while (read(child_fd.get(), &info, sizeof info) > 0) {
      }
      // In this order: what the front wants is judged by the command's newest state.
      if (!Reap()) return;
      if (fds[1].revents != 0 && !ObeyFront()) return;
    }
  }

 private:
  // Looks after whoever changed. False when the command has ended.
  bool Reap() {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED | WCONTINUED)) > 0) {
      if (pid != command_) continue;
      if (WIFCONTINUED(status)) {
        stopped_ = false;
      } else if (WIFSTOPPED(status)) {
        stopped_ = true;
        Send({.kind = JobMessage::Kind::kStopped, .value = WSTOPSIG(status), .stop = ++stops_});
      } else {
        const int exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        Send({.kind = JobMessage::Kind::kExited, .value = exit_status});
        return false;
      }
    }
    return true;
  }

  // Does what the front asks for. False when the front is gone.
  bool ObeyFront() {
    JobMessage message;
    const ssize_t got = recv(link_fd_, &message, sizeof message, MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got != sizeof message) return false;
    if (message.kind == JobMessage::Kind::kSignal) {
      kill(command_, message.value);
    } else {
      Continue(message.kind == JobMessage::Kind::kContinueInForeground, message.stop);
    }
    return true;
  }

  // A SIGCONT too many would undo a ^Z that came after the one that the front has in mind.
  void Continue(bool foreground, int32_t stop) {
    if (stopped_ && stop != stops_) return;
    if (!terminal_.own_group) {
      // Our shell continues the whole group, mostly. This is for a front that was continued alone.
      if (stopped_) kill(command_, SIGCONT);
      return;
    }
    // The foreground first: the command would stop again at once if it read from the background.
    if (foreground) tcsetpgrp(terminal_.tty.get(), command_);
    kill(-command_, SIGCONT);
  }

  void Send(const JobMessage& message) { send(link_fd_, &message, sizeof message, MSG_NOSIGNAL); }

  const Terminal& terminal_;
  const int link_fd_;
  const pid_t command_;
  bool stopped_ = false;
  int32_t stops_ = 0;  // how often the command was stopped
};

// How many bytes, the end of the stream included, programs have left to the kernel for delivery by closing
// their sockets: /proc/net/tcp, the columns "st" and "tx_queue" (before its colon), in hexadecimal.
uint64_t BytesOnTheirWay() {
  uint64_t bytes = 0;
  for (const char* const path : {"/proc/self/net/tcp", "/proc/self/net/tcp6"}) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);  // the headings
    while (std::getline(file, line)) {
      std::istringstream fields(line);
      std::string number, local, remote, state, queues;
      fields >> number >> local >> remote >> state >> queues;
      if (state == "04" || state == "09" || state == "0B") {  // FIN_WAIT1, LAST_ACK, CLOSING
        bytes += std::strtoull(queues.c_str(), nullptr, 16);
      }
    }
  }
  return bytes;
}

// A program may end right after it has closed a connection, and counts on the kernel to deliver what it
// wrote. In our namespace the kernel can do so only as long as the network program lives, which ends when we
// do. Gives up on a peer that takes nothing for three seconds, on a slow one after ten, and when the front is
// gone or passes a signal on.
void LetTheNetworkDrain(int link_fd) {
  constexpr int kStepMs = 5;
  // slirp4netns acknowledges what it has not delivered yet, up to its own buffers, and nobody can look into
  // these.
  constexpr int kDeliveryMs = 200;
  uint64_t before = 0;
  int idle_steps = 0;
  for (int step = 0; step < 10'000 / kStepMs && idle_steps < 3000 / kStepMs; ++step) {
    const uint64_t bytes = BytesOnTheirWay();
    if (bytes == 0) {
      pollfd link = {link_fd, POLLIN, 0};
      if (before != 0) poll(&link, 1, kDeliveryMs);
      return;
    }
    idle_steps = bytes == before ? idle_steps + 1 : 0;
    before = bytes;
    pollfd link = {link_fd, POLLIN, 0};
    if (poll(&link, 1, kStepMs) > 0) return;
  }
}

}  // namespace

void RunInit(const Terminal& terminal, int link_fd, pid_t command) {
  prctl(PR_SET_NAME, "shunt-init");
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) close(fd);
  Init(terminal, link_fd, command).Run();
  LetTheNetworkDrain(link_fd);
}

}  // namespace shunt
