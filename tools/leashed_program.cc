// SPDX-License-Identifier: Apache-2.0

#include "tools/leashed_program.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace shunt {
namespace {

constexpr off_t kComplaintBytes = off_t{64} * 1024;
constexpr int kReadyFd = 3;

int PidfdOpen(pid_t pid) {
  return static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
}

// A file for a program's stderr that nobody has to empty and that cannot grow: later writes fail, which such
// programs ignore.
Fd MakeComplaintFile() {
  Fd file(memfd_create("shunt-stderr", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (file.valid() && ftruncate(file.get(), kComplaintBytes) == 0) {
    fcntl(file.get(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK);
  }
  return file;
}

std::string ReadComplaint(int file_fd) {
  std::string text(kComplaintBytes, '\0');
  const ssize_t size = pread(file_fd, text.data(), text.size(), 0);
  text.resize(size < 0 ? 0 : static_cast<size_t>(size));
  text.resize(std::min(text.size(), text.find('\0')));
  std::vector<std::string> lines;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipWhitespace())) {
    // pasta complains about its complaining where there is no syslog.
    if (!absl::StrContains(line, "bytes to syslog")) lines.emplace_back(line);
  }
  return absl::StrJoin(lines, "; ");
}

std::vector<char*> ArgumentPointers(const std::vector<std::string>& argv) {
  std::vector<char*> pointers;
  pointers.reserve(argv.size() + 1);
  for (const std::string& argument : argv) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// In a child of a process with threads: only async-signal-safe calls from here to the exec.
[[noreturn]] void ExecTool(char* const* argv, int ready_fd, int complaint_fd) {
  const int null_fd = open("/dev/null", O_RDWR);
  dup2(null_fd, STDIN_FILENO);
  dup2(null_fd, STDOUT_FILENO);
  dup2(complaint_fd, STDERR_FILENO);
  int first_closed = kReadyFd;
  if (ready_fd >= 0) {
    if (ready_fd == kReadyFd) {
      fcntl(ready_fd, F_SETFD, 0);
    } else {
      dup2(ready_fd, kReadyFd);
    }
    ++first_closed;
  }
  close_range(static_cast<unsigned>(first_closed), ~0U, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execv(argv[0], argv);
  _exit(127);
}

// slirp4netns leaves the mounts that it finds by detaching them all. Unless it is in a user namespace of its
// own, and for root it is not, what lies below a shared mount is thereby unmounted for everybody: /dev/pts,
// the control groups, /run/netns. So it starts in a namespace that tells ours nothing. Who may not make one
// (EPERM) cannot do that harm either.
void KeepMountsApart(int complaint_fd) {
  if (unshare(CLONE_NEWNS) == 0) {
    if (mount("none", "/", nullptr, MS_REC | MS_SLAVE, nullptr) == 0) return;
  } else if (errno == EPERM) {
    return;
  }
  constexpr char kWhy[] = "its mounts cannot be kept apart from the host's";
  (void)!write(complaint_fd, kWhy, sizeof(kWhy) - 1);
  _exit(1);
}

// The process between us and the program; `leash_fd` and `owner_fd` (a pidfd) tell it when we have had enough
// or are gone.
[[noreturn]] void HoldLeash(char* const* argv, int ready_fd, int complaint_fd, int leash_fd, int owner_fd) {
  setsid();
  const pid_t program = _Fork();
  if (program < 0) _exit(1);
  if (program == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // holds at least until it joins a user namespace
    KeepMountsApart(complaint_fd);
    ExecTool(argv, ready_fd, complaint_fd);
  }
  const int program_fd = PidfdOpen(program);
  // Keep nothing that others wait to see closed: not the ready pipe, not the far end of our own leash.
  dup2(leash_fd, 0);
  dup2(owner_fd, 1);
  dup2(program_fd, 2);
  close_range(3, ~0U, 0);
  pollfd fds[] = {{0, POLLIN, 0}, {1, POLLIN, 0}, {2, POLLIN, 0}};
  while (poll(fds, 3, -1) < 0 && errno == EINTR) {
  }
  kill(program, SIGKILL);
  while (waitpid(program, nullptr, 0) < 0 && errno == EINTR) {
  }
  _exit(0);
}

}  // namespace

std::string FindProgram(const std::string& name) {
  const char* const path = std::getenv("PATH");
  const std::string places = absl::StrCat(path == nullptr ? "" : path, ":/usr/bin:/usr/sbin:/bin:/sbin");
  for (const absl::string_view place : absl::StrSplit(places, ':', absl::SkipEmpty())) {
    std::string candidate = absl::StrCat(place, "/", name);
    if (access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return "";
}

absl::Status RunToEnd(const std::vector<std::string>& argv) {
  const Fd complaint = MakeComplaintFile();
  const std::vector<char*> pointers = ArgumentPointers(argv);
  const pid_t pid = fork();
  if (pid < 0) return absl::ErrnoToStatus(errno, absl::StrCat("start ", argv[0]));
  if (pid == 0) ExecTool(pointers.data(), -1, complaint.get());
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return absl::OkStatus();
  return absl::UnknownError(absl::StrCat(argv[0], ": ", ReadComplaint(complaint.get())));
}

absl::StatusOr<LeashedProgram> LeashedProgram::Start(const std::vector<std::string>& argv, int ready_fd) {
  LeashedProgram started;
  started.complaint_ = MakeComplaintFile();
  int leash[2];
  if (pipe2(leash, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "make a pipe");
  const Fd leash_end(leash[0]);
  started.leash_.reset(leash[1]);
  const Fd owner(PidfdOpen(getpid()));
  const std::vector<char*> pointers = ArgumentPointers(argv);
  const pid_t holder = _Fork();  // not fork(): its handlers are for a child that goes on as we do
  if (holder < 0) return absl::ErrnoToStatus(errno, absl::StrCat("start ", argv[0]));
  if (holder == 0) {
    HoldLeash(pointers.data(), ready_fd, started.complaint_.get(), leash_end.get(), owner.get());
  }
  started.holder_pid_ = holder;
  started.holder_.reset(PidfdOpen(holder));
  return started;
}

LeashedProgram::~LeashedProgram() {
  if (!holder_.valid()) return;
  leash_.reset();
  while (waitpid(holder_pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

std::string LeashedProgram::Complaint() const {
  return ReadComplaint(complaint_.get());
}

}  // namespace shunt
