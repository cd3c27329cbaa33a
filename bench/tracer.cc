// SPDX-License-Identifier: Apache-2.0
// Counting system calls: see tracer.h.

#include "bench/tracer.h"

#include <poll.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace shunt::bench {
namespace {

constexpr int kSyscallStop = SIGTRAP | 0x80;  // PTRACE_O_TRACESYSGOOD

}  // namespace

Tracer::Tracer() {
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child, nullptr);
  child_events_ = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
}

Tracer::~Tracer() {
  close(child_events_);
}

std::string Tracer::Seize(pid_t process) {
  const std::string tasks = "/proc/" + std::to_string(process) + "/task";
  std::error_code error;
  for (const auto& task : std::filesystem::directory_iterator(tasks, error)) {
    const auto tid = static_cast<pid_t>(std::stol(task.path().filename().string()));
    const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE;
    if (ptrace(PTRACE_SEIZE, tid, nullptr, options) != 0)
      return std::string("ptrace: ").append(std::strerror(errno));
    traced_.insert(tid);
    ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr);
  }
  return traced_.empty() ? "there is no process " + std::to_string(process) : "";
}

void Tracer::CountUntilReadable(int fd) {
  while (!traced_.empty()) {
    HandleStops();
    pollfd events[] = {{fd, POLLIN, 0}, {child_events_, POLLIN, 0}};
    // Not for ever: now and then the last of them has been seen to end without a signal to us.
    const int timeout_ms = 200;
    if (poll(events, 2, timeout_ms) < 0 && errno != EINTR) return;
    if (events[0].revents != 0) return;
    signalfd_siginfo taken;
    while (read(child_events_, &taken, sizeof taken) == sizeof taken) {
    }
  }
}

// One SIGCHLD may stand for several stops.
void Tracer::HandleStops() {
  int status = 0;
  pid_t tid;
  while ((tid = waitpid(-1, &status, __WALL | WNOHANG)) > 0) {
    if (WIFSTOPPED(status)) {
      traced_.insert(tid);  // a new thread comes by itself
      Continue(tid, status);
    } else {
      traced_.erase(tid);
    }
  }
  if (tid < 0 && errno == ECHILD) traced_.clear();
}

void Tracer::Continue(pid_t tid, int status) {
  const int signal = WSTOPSIG(status);
  const bool is_event = status >> 16 != 0;
  if (signal == kSyscallStop) {
    __ptrace_syscall_info info{};
    if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof info, &info) > 0 && info.op == PTRACE_SYSCALL_INFO_ENTRY)
      ++calls_[tid][static_cast<int>(info.entry.nr)];
  }
  const int delivered = signal == kSyscallStop || is_event ? 0 : signal;
  ptrace(PTRACE_SYSCALL, tid, nullptr, delivered);
}

}  // namespace shunt::bench
