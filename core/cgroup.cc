// SPDX-License-Identifier: Apache-2.0
#include "core/cgroup.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>
#include <vector>

#include "core/confinement.h"

namespace shunt {
namespace {

// A list such as "rw,freezer".
bool Lists(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    const size_t end = std::min(list.find(','), list.size());
    if (list.substr(0, end) == word) return true;
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return false;
}

std::vector<std::string_view> Words(std::string_view line) {
  std::vector<std::string_view> words;
  while (!line.empty()) {
    const size_t end = std::min(line.find(' '), line.size());
    if (end > 0) words.push_back(line.substr(0, end));
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  return words;
}

// Takes the next line off `text`.
std::string_view TakeLine(std::string_view& text) {
  const size_t end = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

// ---- The opener's two sides. One packet there: which file, and the directory; one back: errno, and the
// file.

struct Question {
  CgroupFile file;
};
struct Answer {
  int error;
};

template <typename T>
bool SendWith(int socket, const T& what, int fd) {
  iovec data{.iov_base = const_cast<T*>(&what), .iov_len = sizeof(what)};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> room{};
  msghdr message{.msg_iov = &data, .msg_iovlen = 1};
  if (fd >= 0) {
    message.msg_control = room.data();
    message.msg_controllen = room.size();
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  }
  return sendmsg(socket, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof(what));
}

template <typename T>
bool ReceiveWith(int socket, T& what, Fd& fd) {
  iovec data{.iov_base = &what, .iov_len = sizeof(what)};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> room{};
  msghdr message{
      .msg_iov = &data, .msg_iovlen = 1, .msg_control = room.data(), .msg_controllen = room.size()};
  const ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (const cmsghdr* header = got >= 0 ? CMSG_FIRSTHDR(&message) : nullptr;
      header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
    int number = -1;
    memcpy(&number, CMSG_DATA(header), sizeof(number));
    fd.reset(number);
  }
  return got == static_cast<ssize_t>(sizeof(what));
}

Result<Fd> OpenFor(int directory, CgroupFile file) {
  struct statfs system {};
  if (fstatfs(directory, &system) != 0) return FailErrno();
  const bool unified = system.f_type == CGROUP2_SUPER_MAGIC;
  if (!unified && system.f_type != CGROUP_SUPER_MAGIC) return Fail(EPERM);
  const char* const name = file == CgroupFile::kKill     ? "cgroup.kill"
                           : file == CgroupFile::kFreeze ? "cgroup.freeze"
                                                         : "freezer.state";
  Fd opened(openat(directory, name, kCgroupOpenerFlags));
  if (!opened.valid()) return FailErrno();
  return opened;
}

// The process. It has one descriptor, which is its standard input.
[[noreturn]] void Serve(pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(0);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2}) std::signal(signal, SIG_IGN);
  prctl(PR_SET_NAME, "shunt-cgroups");
  prctl(PR_SET_DUMPABLE, 0);
  if (!ConfineCgroupOpener().ok()) _exit(1);
  for (;;) {
    Question question{};
    Fd directory;
    if (!ReceiveWith(0, question, directory)) _exit(0);
    Result<Fd> file = OpenFor(directory.get(), question.file);
    if (!SendWith(0, Answer{file ? 0 : file.error().code}, file ? file->get() : -1)) _exit(0);
  }
}

}  // namespace

// Of one of the older hierarchies.
static std::string_view ControllerOf(Hierarchy hierarchy) {
  return hierarchy == Hierarchy::kDevices ? "devices" : "freezer";
}

std::string CgroupIn(std::string_view proc_cgroup, Hierarchy hierarchy) {
  while (!proc_cgroup.empty()) {
    const std::string_view line = TakeLine(proc_cgroup);  // "6:freezer:/docker/12ab", "0::/init.scope"
    const size_t first = line.find(':');
    const size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const bool is_it = hierarchy == Hierarchy::kUnified ? line.substr(0, first) == "0" && controllers.empty()
                                                        : Lists(controllers, ControllerOf(hierarchy));
    if (is_it) return std::string(line.substr(second + 1));
  }
  return {};
}

bool IsWithin(std::string_view inner, std::string_view outer) {
  if (outer == "/") return true;
  return inner.starts_with(outer) && (inner.size() == outer.size() || inner[outer.size()] == '/');
}

std::string DirectoryOf(std::string_view mountinfo, Hierarchy hierarchy, std::string_view cgroup) {
  if (cgroup.find("/..") != std::string_view::npos) return {};  // out of our cgroup namespace
  while (!mountinfo.empty()) {
    // "31 23 0:26 / /sys/fs/cgroup/freezer rw,relatime shared:9 - cgroup cgroup rw,freezer"
    const std::vector<std::string_view> words = Words(TakeLine(mountinfo));
    size_t dash = 6;
    while (dash < words.size() && words[dash] != "-") ++dash;
    if (dash + 3 >= words.size()) continue;
    const bool is_it = hierarchy == Hierarchy::kUnified
                           ? words[dash + 1] == "cgroup2"
                           : words[dash + 1] == "cgroup" && Lists(words[dash + 3], ControllerOf(hierarchy));
    const std::string_view root = words[3];
    const std::string_view place = words[4];
    // A name with a blank is written with a backslash: nobody has his cgroups there.
    if (!is_it || !IsWithin(cgroup, root) || place.find('\\') != std::string_view::npos) continue;
    if (root != "/") cgroup.remove_prefix(root.size());
    return std::string(place).append(cgroup);
  }
  return {};
}

absl::StatusOr<std::unique_ptr<CgroupOpener>> CgroupOpener::Start() {
  std::array<int, 2> ends;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return ToStatus({errno}, "make a socket pair");
  Fd ours(ends[0]), theirs(ends[1]);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return ToStatus({errno}, "fork the process that opens cgroups");
  if (pid == 0) {
    dup2(theirs.get(), 0);
    if (syscall(SYS_close_range, 1u, ~0u, 0u) != 0) _exit(1);
    Serve(parent);
  }
  // Nobody waits for long where the process is stopped.
  const timeval patience{.tv_sec = 1, .tv_usec = 0};
  setsockopt(ours.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  return std::unique_ptr<CgroupOpener>(new CgroupOpener(std::move(ours), pid));
}

CgroupOpener::~CgroupOpener() {
  socket_.reset();
  kill(pid_, SIGKILL);  // our child, which nobody else waits for
  waitpid(pid_, nullptr, 0);
}

Result<Fd> CgroupOpener::Open(int directory, CgroupFile file) const {
  Answer answer{};
  Fd opened;
  if (!SendWith(socket_.get(), Question{file}, directory) || !ReceiveWith(socket_.get(), answer, opened)) {
    shutdown(socket_.get(), SHUT_RDWR);  // what came late would be taken for the answer to the next question
    return Fail(EPIPE);
  }
  if (answer.error != 0) return Fail(answer.error);
  if (!opened.valid()) return Fail(EMFILE);
  return opened;
}

}  // namespace shunt
