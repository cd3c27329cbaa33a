// SPDX-License-Identifier: Apache-2.0
// The handle first, then the process itself, from the loop outwards to the exec.

#include "tools/starter.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/packet_socket.h"

namespace shunt {
namespace {

constexpr int kLinkFd = 3;           // in an engine
constexpr int kLowestOwnFd = 10;     // in the starter: out of the way of what an engine inherits
constexpr int kCannotExecute = 127;  // as shells say it

// In the starter. Everything that an engine needs is prepared, so that between fork and exec nothing is
// allocated.
struct StarterProcess {
  Fd link;
  Fd current;        // O_PATH, the program
  Fd candidate;      // the same, of the last kStartNew
  std::string path;  // where the program lay when the starter was made
  std::vector<std::string> words;
  std::vector<char*> argv;  // the words, for exec
  std::vector<std::string> worker_words;
  std::vector<char*> worker_argv;
};

template <typename T>
std::span<const std::byte> Bytes(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

Fd MoveUp(Fd fd) {
  return Fd(fcntl(fd.get(), F_DUPFD_CLOEXEC, kLowestOwnFd));
}

[[noreturn]] void Exec(int program_fd, int link_fd, char* const* argv, pid_t starter) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != starter) _exit(kCannotExecute);
  dup2(link_fd, kLinkFd);  // without close-on-exec; it is another number, see MoveUp()
  close_range(kLinkFd + 1, ~0U, CLOSE_RANGE_CLOEXEC);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR2}) std::signal(signal, SIG_IGN);
  for (const int signal : {SIGPIPE, SIGCHLD}) std::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  syscall(SYS_execveat, program_fd, "", argv, environ, AT_EMPTY_PATH);
  _exit(kCannotExecute);
}

struct Started {
  Fd link;
  Fd pidfd;
  pid_t pid = 0;
};

Result<Started> StartEngine(StarterProcess& self, int program_fd) {
  Result<std::pair<Fd, Fd>> pair = MakePacketSockets();
  if (!pair.has_value()) return tl::unexpected(pair.error());
  const Fd engine_end = MoveUp(std::move(pair->second));
  if (!engine_end.valid()) return FailErrno();
  const pid_t starter = getpid();
  const pid_t pid = fork();
  if (pid < 0) return FailErrno();
  if (pid == 0) Exec(program_fd, engine_end.get(), self.argv.data(), starter);
  // It cannot have been reaped: only this thread does that.
  Started started{.link = std::move(pair->first),
                  .pidfd = Fd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))),
                  .pid = pid};
  if (!started.pidfd.valid()) {
    const int error = errno;
    kill(pid, SIGKILL);
    return Fail(error);
  }
  return started;
}

Result<Started> Handle(StarterProcess& self, StarterRequest::Kind kind) {
  if (kind == StarterRequest::Kind::kStart) return StartEngine(self, self.current.get());
  self.candidate = Fd(open(self.path.c_str(), O_PATH | O_CLOEXEC));
  if (self.candidate.valid()) self.candidate = MoveUp(std::move(self.candidate));
  if (!self.candidate.valid()) return FailErrno();
  return StartEngine(self, self.candidate.get());
}

// Whoever wants it notices by its link if this fails.
void StartWorker(const StarterProcess& self, Fd link) {
  const Fd worker_end = MoveUp(std::move(link));
  if (!worker_end.valid()) return;
  const pid_t starter = getpid();
  if (fork() == 0) Exec(self.current.get(), worker_end.get(), self.worker_argv.data(), starter);
}

// To the keeper, which always reads; if it does not, it is stopped, and waiting is right.
void Report(const StarterProcess& self, const StarterReport& report, std::span<const int> fds) {
  for (;;) {
    const Result<void> sent = SendPacket(self.link.get(), Bytes(report), fds);
    if (sent.has_value() || (sent.error().code != EAGAIN && sent.error().code != ETOOMANYREFS)) return;
    pollfd writable{self.link.get(), POLLOUT, 0};
    poll(&writable, 1, 10);
  }
}

void Serve(StarterProcess& self, const StarterRequest& request, std::vector<Fd> fds) {
  switch (request.kind) {
    case StarterRequest::Kind::kWorker:
      if (fds.size() == 1) StartWorker(self, std::move(fds[0]));
      return;
    case StarterRequest::Kind::kKeepNew:
      if (self.candidate.valid()) self.current = std::move(self.candidate);
      return;
    case StarterRequest::Kind::kStart:
    case StarterRequest::Kind::kStartNew:
      break;
  }
  const Result<Started> started = Handle(self, request.kind);
  StarterReport report{.sequence = request.sequence};
  if (!started.has_value()) {
    report.kind = StarterReport::Kind::kFailed;
    report.detail = started.error().code;
    return Report(self, report, {});
  }
  report.kind = StarterReport::Kind::kStarted;
  report.pid = started->pid;
  const std::array<int, 2> ends = {started->link.get(), started->pidfd.get()};
  Report(self, report, ends);
}

void ReapEngines(const StarterProcess& self) {
  int status = 0;
  for (pid_t pid = waitpid(-1, &status, WNOHANG); pid > 0; pid = waitpid(-1, &status, WNOHANG)) {
    Report(self, {.kind = StarterReport::Kind::kEnded, .pid = pid, .detail = status}, {});
  }
}

// Of what the keeper has, the starter keeps its standard streams and two descriptors.
void CloseAllBut(int one_fd, int other_fd) {
  const auto low = static_cast<unsigned>(std::min(one_fd, other_fd));
  const auto high = static_cast<unsigned>(std::max(one_fd, other_fd));
  close_range(STDERR_FILENO + 1, low - 1, 0);
  if (high > low + 1) close_range(low + 1, high - 1, 0);
  close_range(high + 1, ~0U, 0);
}

// What a terminal tells its jobs is not meant for us, and no engine shall be able to type into it. But the
// session stays the caller's: each session is a group of its own to the scheduler (autogroup), and a switch
// between two groups, of which a call takes several, costs more than one within a group.
void LeaveTerminal() {
  const Fd terminal(open("/dev/tty", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  const bool left = terminal.valid() ? ioctl(terminal.get(), TIOCNOTTY) == 0 : errno == ENXIO;
  if (left) {
    setpgid(0, 0);
  } else {
    setsid();
  }
}

[[noreturn]] void RunStarter(StarterProcess& self, pid_t keeper) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != keeper) _exit(0);
  LeaveTerminal();
  prctl(PR_SET_NAME, "shunt-starter");
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
  self.link = MoveUp(std::move(self.link));
  self.current = MoveUp(std::move(self.current));
  if (!self.link.valid() || !self.current.valid()) _exit(1);
  CloseAllBut(self.link.get(), self.current.get());
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  std::signal(SIGCHLD, SIG_DFL);  // an ignored one would reap by itself
  const Fd ended = MoveUp(Fd(signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK)));
  if (!ended.valid()) _exit(1);

  std::array<pollfd, 2> sources{{{self.link.get(), POLLIN, 0}, {ended.get(), POLLIN, 0}}};
  for (;;) {
    if (poll(sources.data(), sources.size(), -1) < 0) continue;
    if (sources[1].revents != 0) {
      signalfd_siginfo ignored{};
      while (read(ended.get(), &ignored, sizeof(ignored)) > 0) continue;
      ReapEngines(self);
    }
    if (sources[0].revents == 0) continue;
    StarterRequest request{};
    Result<PacketArrival> arrival =
        ReceivePacket(self.link.get(), std::as_writable_bytes(std::span(&request, 1)), 1);
    if (arrival.has_value()) {
      Serve(self, request, std::move(arrival->fds));
    } else if (arrival.error().code != EAGAIN) {
      _exit(0);  // the keeper has gone, and engines go with us
    }
  }
}

// The file itself and the path that leads to it.
absl::StatusOr<std::pair<Fd, std::string>> FindProgram(const std::string& program) {
  Fd file(open(program.c_str(), O_PATH | O_CLOEXEC));
  if (!file.valid()) return ToStatus(Errno{errno}, absl::StrCat("open ", program));
  const std::string link = absl::StrCat("/proc/self/fd/", file.get());
  std::array<char, PATH_MAX> path{};
  const ssize_t size = readlink(link.c_str(), path.data(), path.size());
  if (size <= 0)
    return ToStatus(Errno{errno}, absl::StrCat("find the path of ", program, " (is /proc mounted?)"));
  return std::pair(std::move(file), std::string(path.data(), static_cast<size_t>(size)));
}

}  // namespace

absl::StatusOr<Starter> Starter::Fork(const StarterOptions& options) {
  absl::StatusOr<std::pair<Fd, std::string>> program = FindProgram(options.program);
  if (!program.ok()) return program.status();
  Result<std::pair<Fd, Fd>> pair = MakePacketSockets();
  if (!pair.has_value()) return ToStatus(pair.error(), "make a socket pair for the starter");

  StarterProcess self{.link = std::move(pair->second),
                      .current = std::move(program->first),
                      .path = std::move(program->second),
                      .words = {"shunt", "engine", "--link", std::to_string(kLinkFd)}};
  self.words.insert(self.words.end(), options.arguments.begin(), options.arguments.end());
  for (std::string& word : self.words) self.argv.push_back(word.data());
  self.argv.push_back(nullptr);
  self.worker_words = {"shunt", "worker", "--link", std::to_string(kLinkFd)};
  for (std::string& word : self.worker_words) self.worker_argv.push_back(word.data());
  self.worker_argv.push_back(nullptr);

  const pid_t keeper = getpid();
  const pid_t pid = fork();
  if (pid < 0) return ToStatus(Errno{errno}, "fork the starter of engines");
  if (pid == 0) RunStarter(self, keeper);
  return Starter(std::move(pair->first), pid);
}

Starter::~Starter() {
  if (!link_.valid()) return;  // moved from
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

Result<void> Starter::Send(StarterRequest request, std::span<const int> fds) const {
  return SendPacket(link_.get(), Bytes(request), fds);
}

Result<Starter::Arrival> Starter::Receive() const {
  Arrival result;
  Result<PacketArrival> arrival =
      ReceivePacket(link_.get(), std::as_writable_bytes(std::span(&result.report, 1)), 2);
  if (!arrival.has_value()) return tl::unexpected(arrival.error());
  result.fds = std::move(arrival->fds);
  // Our own descriptor table is full: an engine that we cannot hold on to ends when its link closes.
  if (result.report.kind == StarterReport::Kind::kStarted && result.fds.size() != 2) {
    result.report.kind = StarterReport::Kind::kFailed;
    result.report.detail = EMFILE;
  }
  return result;
}

}  // namespace shunt
