// SPDX-License-Identifier: Apache-2.0
// Many idle containers for one agent: hands over a seccomp listener for each, as an OCI runtime does.
//
//   listeners SOCKET COUNT
//
// Each "container" is a process in a user and network namespace of its own, under a filter that traps connect
// and bind. It is handed to the agent at SOCKET and then makes one trapped call, so that a listener counts
// only when it is really served. Prints "ready" when all are served; ends the containers and itself at the
// end of its standard input. An error is one line and exit status 1.

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "listeners: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}

int InstallFilter() {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 4),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_connect, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_bind, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{sizeof code / sizeof code[0], code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
  return static_cast<int>(
      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program));
}

// The container: tells its listener's number, waits for a byte, makes the trapped call, tells that it came
// back, sleeps.
[[noreturn]] void RunContainer(int channel) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  int listener = unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 ? InstallFilter() : -1;
  if (listener < 0) listener = -errno;
  char go;
  if (write(channel, &listener, sizeof listener) != sizeof listener || read(channel, &go, 1) != 1) _exit(1);
  close(listener);
  const int error = connect(-1, nullptr, 0) == 0 ? 0 : errno;
  if (write(channel, &error, sizeof error) != sizeof error) _exit(1);
  close(channel);
  for (;;) pause();
}

// Waits at most ten seconds for a number from the container.
int ReadNumber(int channel, const std::string& what) {
  pollfd waiting{channel, POLLIN, 0};
  const int timeout_ms = 10'000;
  int number = 0;
  errno = ETIMEDOUT;
  if (poll(&waiting, 1, timeout_ms) != 1 || read(channel, &number, sizeof number) != sizeof number) Die(what);
  return number;
}

int ConnectTo(const char* path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  const int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(connection, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) Die(path);
  return connection;
}

// ContainerProcessState of the OCI runtime specification, as runc 1.1 writes it.
void HandOver(const char* path, int index, pid_t pid, int listener) {
  const std::string id = "idle-" + std::to_string(index), number = std::to_string(pid);
  std::string state = R"({"ociVersion":"1.0.2-dev","fds":["seccompFd"],"pid":)" + number +
                      R"(,"metadata":"","state":{"ociVersion":"1.0.2-dev","id":")" + id +
                      R"(","status":"creating","pid":)" + number + R"(,"bundle":"/nonexistent"}})";
  iovec body{state.data(), state.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
  msghdr message{};
  message.msg_iov = &body;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &listener, sizeof listener);
  const int connection = ConnectTo(path);
  if (sendmsg(connection, &message, MSG_NOSIGNAL) != static_cast<ssize_t>(state.size())) Die("sendmsg");
  close(connection);
}

pid_t StartContainer(const char* path, int index) {
  int channel[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) != 0) Die("socketpair");
  const pid_t pid = fork();
  if (pid < 0) Die("fork");
  if (pid == 0) RunContainer(channel[1]);
  close(channel[1]);
  const int theirs = ReadNumber(channel[0], "container " + std::to_string(index) + " did not start");
  errno = -theirs;
  if (theirs < 0) Die("a namespace with a seccomp listener");
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  const int listener = static_cast<int>(syscall(SYS_pidfd_getfd, pidfd, theirs, 0));
  if (listener < 0) Die("pidfd_getfd");
  close(pidfd);
  HandOver(path, index, pid, listener);
  close(listener);
  if (write(channel[0], "", 1) != 1) Die("write to the container");
  const int error = ReadNumber(channel[0], "the agent does not serve container " + std::to_string(index));
  errno = error;
  if (error != EBADF) Die("connect() on no descriptor, under the agent, must fail with EBADF");
  close(channel[0]);
  return pid;
}

}  // namespace

int main(int argc, char** argv) {
  const int count = argc == 3 ? std::atoi(argv[2]) : 0;
  if (count < 1 || count > 100'000) {
    std::fprintf(stderr, "usage: listeners SOCKET COUNT   (COUNT 1 to 100000)\n");
    return 2;
  }
  std::vector<pid_t> containers;
  for (int i = 0; i < count; ++i) containers.push_back(StartContainer(argv[1], i));
  std::printf("ready\n");
  std::fflush(stdout);
  char byte;
  while (read(STDIN_FILENO, &byte, 1) > 0) {
  }
  for (const pid_t pid : containers) kill(pid, SIGKILL);
  for (const pid_t pid : containers) waitpid(pid, nullptr, 0);
}
