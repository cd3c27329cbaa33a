// SPDX-License-Identifier: Apache-2.0

#include "tools/run_sandbox.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/run_init.h"
#include "tools/run_mounts.h"

namespace shunt {
namespace {

// What the engine, and init or (after its fork) the command tell each other before the exec, one to a packet.
struct SetupMessage {
  enum class Kind : int32_t {
    kMapped,   // to init: you have ids
    kMounted,  // from init; text: the shortcoming
    kPrepare,  // to init: value 1: install the filter; text: the content of resolv.conf
    kReady,    // from the command: value: the number of its listener's descriptor, or -1
    kStart,    // to the command: exec
    kFailed,   // from either: text says why
  };
  Kind kind;
  int32_t value;
  char text[4088];  // ends with a NUL; longer texts are cut
};

bool Send(int fd, SetupMessage::Kind kind, int value = 0, absl::string_view text = "") {
  SetupMessage message = {kind, value, {}};
  text.copy(message.text, sizeof message.text - 1);
  return send(fd, &message, sizeof message, MSG_NOSIGNAL) == sizeof message;
}

// Empty when the other side is gone.
std::optional<SetupMessage> Receive(int fd) {
  SetupMessage message;
  ssize_t got;
  while ((got = recv(fd, &message, sizeof message, 0)) < 0 && errno == EINTR) {
  }
  if (got != sizeof message) return std::nullopt;
  return message;
}

// ---- In the container ----

class InsideSandbox {
 public:
  InsideSandbox(const SandboxOptions& options, const Terminal& terminal, int link_fd, int setup_fd)
      : options_(options), terminal_(terminal), link_fd_(link_fd), setup_fd_(setup_fd) {}

  // The life of init.
  void Run() {
    const std::optional<SetupMessage> mapped = Receive(setup_fd_);
    if (!mapped.has_value()) return;
    // We still have the caller's id, and every capability in the new user namespace, whatever that id is
    // called there. (That would end with an exec.) The engine took the listener from us, and the network
    // program our namespaces: both need this where the caller's id was changed on the way, as by sudo.
    prctl(PR_SET_DUMPABLE, 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (absl::Status status = SetUp(); !status.ok()) return Fail(status);
    Send(setup_fd_, SetupMessage::Kind::kMounted, 0, shortcoming_);
    const std::optional<SetupMessage> prepare = Receive(setup_fd_);
    if (!prepare.has_value()) return;
    if (prepare->text[0] != '\0') {
      if (absl::Status status = ReplaceResolvConf(prepare->text); !status.ok()) return Fail(status);
    }
    const pid_t command = fork();
    if (command < 0) return Fail(absl::ErrnoToStatus(errno, "fork the command"));
    if (command == 0) RunCommand(prepare->value != 0);
    close(setup_fd_);
    RunInit(terminal_, link_fd_, command);
  }

 private:
  void Fail(const absl::Status& status) { Send(setup_fd_, SetupMessage::Kind::kFailed, 0, status.message()); }

  absl::Status SetUp() {
    if (absl::Status status = BringUpLoopback(); !status.ok()) return status;
    if (options_.rootfs.empty()) {
      absl::StatusOr<std::string> shortcoming = MountHostView();
      if (!shortcoming.ok()) return shortcoming.status();
      shortcoming_ = *std::move(shortcoming);
      return absl::OkStatus();
    }
    const char* const tty = ttyname(STDIN_FILENO);
    if (absl::Status status = EnterRootfs(options_.rootfs, tty == nullptr ? "" : tty); !status.ok())
      return status;
    setenv("PWD", "/", 1);
    unsetenv("OLDPWD");
    // The caller's home is rarely there.
    const char* const home = getenv("HOME");
    if (home == nullptr || access(home, X_OK) != 0) {
      setenv("HOME", options_.user.uid == 0 && access("/root", X_OK) == 0 ? "/root" : "/", 1);
    }
    return absl::OkStatus();
  }

  static absl::Status BringUpLoopback() {
    const Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request = {};
    std::strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (!fd.valid() || ioctl(fd.get(), SIOCSIFFLAGS, &request) != 0) {
      return absl::ErrnoToStatus(errno, "bring up the container's loopback device");
    }
    return absl::OkStatus();
  }

  // The command's process, up to its exec.
  [[noreturn]] void RunCommand(bool filter) {
    int listener = -1;
    if (filter) {
      absl::StatusOr<Fd> installed = options_.install_filter();
      if (!installed.ok()) {
        Fail(installed.status());
        _exit(1);
      }
      listener = installed->release();
    }
    // From here to the exec nothing may be called that the filter traps: nobody answers yet. send() with
    // flags is such a call only for MSG_FASTOPEN.
    Send(setup_fd_, SetupMessage::Kind::kReady, listener);
    if (!Receive(setup_fd_).has_value()) _exit(1);
    if (listener >= 0) close(listener);
    if (absl::Status status = BecomeUser(); !status.ok()) {
      std::fprintf(stderr, "shunt run: %s\n", std::string(status.message()).c_str());
      _exit(1);
    }
    JoinTerminal();
    Exec();
  }

  absl::Status BecomeUser() {
    // Where the kernel does not allow it, the caller is the only user, and has the caller's groups.
    if (options_.drop_groups && setgroups(0, nullptr) != 0 && errno != EPERM) {
      return absl::ErrnoToStatus(errno, "drop the caller's groups");
    }
    const auto [uid, gid] = options_.user;
    if (setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("become user ", uid, " and group ", gid));
    }
    return absl::OkStatus();
  }

  void JoinTerminal() {
    if (terminal_.own_group) setpgid(0, 0);
    if (terminal_.own_group && terminal_.foreground) tcsetpgrp(terminal_.tty.get(), getpid());
  }

  [[noreturn]] void Exec() {
    // Only the standard descriptors pass.
    close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    sigprocmask(SIG_SETMASK, &terminal_.callers_mask, nullptr);
    std::vector<char*> argv;
    for (const std::string& argument : options_.command) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    execvp(argv[0], argv.data());
    const int error = errno;
    std::fprintf(stderr, "shunt run: %s: %s\n", argv[0],
                 error == ENOENT ? "not found, or its interpreter is not" : std::strerror(error));
    _exit(error == ENOENT ? 127 : 126);
  }

  const SandboxOptions& options_;
  const Terminal& terminal_;
  const int link_fd_;
  const int setup_fd_;
  std::string shortcoming_;
};

// ---- Outside ----

// A fork whose child is the first process of new namespaces. The IPC namespace is among them because System V
// shared memory would survive the container.
pid_t ForkIntoNamespaces(Fd* pidfd) {
  int fd = -1;
  clone_args args = {};
  args.flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_PIDFD;
  args.pidfd = reinterpret_cast<uint64_t>(&fd);
  args.exit_signal = SIGCHLD;
  const pid_t pid = static_cast<pid_t>(syscall(SYS_clone3, &args, sizeof args));
  if (pid > 0) pidfd->reset(fd);
  return pid;
}

absl::Status NamespaceError(int error) {
  std::string text = "cannot make a user namespace";
  if (error == EPERM) {
    absl::StrAppend(&text,
                    "; as root: sysctl -w kernel.unprivileged_userns_clone=1, or where AppArmor forbids it ",
                    "kernel.apparmor_restrict_unprivileged_userns=0");
  } else if (error == ENOSPC) {
    absl::StrAppend(&text, "; as root: sysctl -w user.max_user_namespaces=15000");
  }
  return absl::ErrnoToStatus(error, text);
}

std::string FailureOf(const std::optional<SetupMessage>& message) {
  if (message.has_value() && message->kind == SetupMessage::Kind::kFailed) return message->text;
  return "the container ended before its command began";
}

}  // namespace

absl::StatusOr<Sandbox> Sandbox::Create(const SandboxOptions& options, const Terminal& terminal,
                                        int link_fd) {
  absl::Status status = absl::InvalidArgumentError(absl::StrCat(
      "--user ", options.user.uid, ":", options.user.gid, ": a container of root has the ids 0 to 65535"));
  for (IdMap& map : PlanIdMaps(options.user, !options.rootfs.empty())) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
      return absl::ErrnoToStatus(errno, "make a socket pair");
    }
    Sandbox container;
    container.setup_.reset(pair[0]);
    const Fd inner_end(pair[1]);
    const int on = 1;
    setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    container.pid_ = ForkIntoNamespaces(&container.pidfd_);
    if (container.pid_ < 0) return NamespaceError(errno);
    if (container.pid_ == 0) {
      container.setup_.reset();
      InsideSandbox(options, terminal, link_fd, inner_end.get()).Run();
      _exit(0);
    }
    status = WriteIdMap(map, container.pid_);
    if (status.ok()) {
      container.id_map_ = std::move(map);
      Send(container.setup_.get(), SetupMessage::Kind::kMapped);
      const std::optional<SetupMessage> mounted = Receive(container.setup_.get());
      if (mounted.has_value() && mounted->kind == SetupMessage::Kind::kMounted) {
        container.shortcoming_ = mounted->text;
        return container;
      }
      container.Reap();
      return absl::UnavailableError(FailureOf(mounted));
    }
    // A namespace's map is written once: the next plan needs another.
    kill(container.pid_, SIGKILL);
    container.Reap();
  }
  return status;
}

absl::StatusOr<Fd> Sandbox::Prepare(const std::string& resolv_conf, bool filter) {
  Send(setup_.get(), SetupMessage::Kind::kPrepare, filter ? 1 : 0, resolv_conf);
  // The sender's pid, translated to our namespace by the kernel.
  SetupMessage message;
  iovec data = {&message, sizeof message};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))];
  msghdr header = {
      .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  ssize_t got;
  while ((got = recvmsg(setup_.get(), &header, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR) {
  }
  if (got != sizeof message) return absl::UnavailableError(FailureOf(std::nullopt));
  if (message.kind != SetupMessage::Kind::kReady) return absl::UnavailableError(FailureOf(message));
  if (!filter) return Fd();

  const cmsghdr* const credentials = CMSG_FIRSTHDR(&header);
  if (credentials == nullptr || credentials->cmsg_type != SCM_CREDENTIALS) {
    return absl::InternalError("the command did not say who it is");
  }
  ucred sender;
  std::memcpy(&sender, CMSG_DATA(credentials), sizeof sender);
  const Fd command(static_cast<int>(syscall(SYS_pidfd_open, sender.pid, 0)));
  Fd listener(static_cast<int>(syscall(SYS_pidfd_getfd, command.get(), message.value, 0)));
  if (!listener.valid()) return absl::ErrnoToStatus(errno, "take the seccomp listener of the command");
  return listener;
}

absl::Status Sandbox::Start() {
  if (Send(setup_.get(), SetupMessage::Kind::kStart)) return absl::OkStatus();
  return absl::UnavailableError(FailureOf(std::nullopt));
}

int Sandbox::Reap() {
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : 0;
}

}  // namespace shunt
