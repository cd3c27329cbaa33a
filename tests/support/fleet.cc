// SPDX-License-Identifier: Apache-2.0
#include "tests/support/fleet.h"

#include <dirent.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_format.h"
#include "core/check.h"
#include "core/filter.h"
#include "handlers/traps.h"
#include "tests/support/fresh_namespace.h"

namespace shunt {
namespace {

struct Birth {
  pid_t pid = -1;
};
struct Outcome {
  pid_t pid = -1;
  int value = 0;
};

void SendBirth(int channel, int listener, int go) {
  const Birth birth{getpid()};
  iovec data{.iov_base = const_cast<Birth*>(&birth), .iov_len = sizeof(birth)};
  const std::array<int, 2> fds{listener, go};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(fds))> control{};
  msghdr message{
      .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.data(), .msg_controllen = control.size()};
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(fds));
  memcpy(CMSG_DATA(header), fds.data(), sizeof(fds));
  SHUNT_CHECK(sendmsg(channel, &message, MSG_NOSIGNAL) == sizeof(birth));
}

[[noreturn]] void Container(const std::vector<sock_filter>& program, uid_t uid, gid_t gid, int channel,
                            int results, const std::function<int()>& body) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGCHLD, SIG_DFL);
  WriteFile("/proc/self/setgroups", "deny");
  WriteFile("/proc/self/uid_map", absl::StrFormat("0 %d 1", uid));
  WriteFile("/proc/self/gid_map", absl::StrFormat("0 %d 1", gid));
  BringLoopbackUp();
  // As a container's runtime does, which execs: else a non-root supervisor may not look at us.
  prctl(PR_SET_DUMPABLE, 1);
  std::array<int, 2> go;
  SHUNT_CHECK(pipe2(go.data(), O_CLOEXEC) == 0);
  {
    const Result<Fd> listener = InstallFilter(program, FilterWait::kInterruptible);
    SHUNT_CHECK(listener.has_value());
    SendBirth(channel, listener->get(), go[1]);
  }
  close(go[1]);
  close(channel);
  char byte;
  if (read(go[0], &byte, 1) != 1) _exit(1);
  close(go[0]);
  const Outcome result{getpid(), body()};
  SHUNT_CHECK(write(results, &result, sizeof(result)) == sizeof(result));
  _exit(0);
}

[[noreturn]] void Nursery(const std::vector<sock_filter>& program, int channel, int results,
                          const std::vector<std::function<int()>>& bodies) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGCHLD, SIG_IGN);  // nobody asks for their statuses
  const uid_t uid = geteuid();
  const gid_t gid = getegid();
  size_t body;
  while (recv(channel, &body, sizeof(body), 0) == sizeof(body)) {
    if (ForkInto(CLONE_NEWUSER | CLONE_NEWNET) == 0)
      Container(program, uid, gid, channel, results, bodies.at(body));
  }
  _exit(0);
}

}  // namespace

Fleet::Fleet(FleetOptions options) : options_(std::move(options)) {
  std::vector<Trap> traps = Traps({.renumbered = true});
  traps.insert(traps.end(), options_.traps.begin(), options_.traps.end());
  const absl::StatusOr<std::vector<sock_filter>> program = BuildFilter(traps, Denies({}));
  SHUNT_CHECK(program.ok());
  std::array<int, 2> channel, results;
  SHUNT_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel.data()) == 0);
  SHUNT_CHECK(pipe2(results.data(), O_CLOEXEC) == 0);
  nursery_pid_ = fork();
  SHUNT_CHECK(nursery_pid_ >= 0);
  if (nursery_pid_ == 0) {
    close(channel[0]);
    close(results[0]);
    Nursery(*program, channel[1], results[1], options_.bodies);
  }
  close(channel[1]);
  close(results[1]);
  nursery_ = Fd(channel[0]);
  results_ = Fd(results[0]);
  fcntl(results_.get(), F_SETFL, O_NONBLOCK);
}

Fleet::~Fleet() {
  accelerator_.reset();
  for (const auto& [pid, ended] : alive_) {
    if (!ended) kill(pid, SIGKILL);
  }
  nursery_.reset();
  kill(nursery_pid_, SIGKILL);
  waitpid(nursery_pid_, nullptr, 0);
}

std::string Fleet::Start() {
  absl::StatusOr<std::unique_ptr<Accelerator>> started = Accelerator::Start(options_.accelerator);
  if (!started.ok()) return started.status().ToString();
  accelerator_ = *std::move(started);
  return "";
}

pid_t Fleet::Fail(const std::string& what) {
  error_ = what;
  return -1;
}

pid_t Fleet::Launch(size_t body) {
  SHUNT_CHECK(send(nursery_.get(), &body, sizeof(body), MSG_NOSIGNAL) == sizeof(body));
  Birth birth;
  iovec data{.iov_base = &birth, .iov_len = sizeof(birth)};
  std::array<int, 2> fds{};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(fds))> control{};
  msghdr message{
      .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.data(), .msg_controllen = control.size()};
  if (recvmsg(nursery_.get(), &message, MSG_CMSG_CLOEXEC) != sizeof(birth))
    return Fail("the nursery is gone");
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_len != CMSG_LEN(sizeof(fds))) return Fail("no listener came");
  memcpy(fds.data(), CMSG_DATA(header), sizeof(fds));
  Fd listener(fds[0]);
  const Fd go(fds[1]);
  const pid_t pid = birth.pid;
  alive_[pid] = false;
  const absl::StatusOr<std::string> served = accelerator_->Serve(std::move(listener),
                                                                 {.name = absl::StrFormat("guest %d", pid),
                                                                  .pid = options_.tell_pid ? pid : 0,
                                                                  .publish = options_.publish,
                                                                  .first_process = pid,
                                                                  .policy = options_.policy,
                                                                  .ignore = options_.ignore,
                                                                  .exact_traps = true},
                                                                 [this, pid] { alive_[pid] = true; });
  if (!served.ok()) return Fail(served.status().ToString());
  if (write(go.get(), "", 1) != 1) return Fail("the container is gone");
  return pid;
}

void Fleet::ReadResults() {
  Outcome result;
  while (read(results_.get(), &result, sizeof(result)) == sizeof(result)) result_[result.pid] = result.value;
}

void Fleet::HandleEvents() {
  pollfd event{.fd = accelerator_->event_fd(), .events = POLLIN};
  while (poll(&event, 1, 0) == 1) accelerator_->HandleEvents();
  ReadResults();  // before the pipe is full
}

int Fleet::Join(pid_t pid, int timeout_ms) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  const auto found = alive_.find(pid);
  SHUNT_CHECK(found != alive_.end());
  while (!found->second) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) {
      Fail("a container did not end in time");
      kill(pid, SIGKILL);
      return -1;
    }
    std::array<pollfd, 2> events{
        {{.fd = accelerator_->event_fd(), .events = POLLIN}, {.fd = results_.get(), .events = POLLIN}}};
    poll(events.data(), events.size(), static_cast<int>(left.count()));
    HandleEvents();
  }
  alive_.erase(found);
  ReadResults();
  const auto result = result_.find(pid);
  if (result == result_.end()) return kKilled;
  const int value = result->second;
  result_.erase(result);
  return value;
}

uint64_t Fleet::Counted(Counter counter) const {
  return accelerator_->Counters()[static_cast<size_t>(counter)].value;
}

Footprint Footprint::Now() {
  Footprint now;
  DIR* const directory = opendir("/proc/self/fd");
  SHUNT_CHECK(directory != nullptr);
  while (readdir(directory) != nullptr) ++now.descriptors;
  closedir(directory);
  FILE* const file = fopen("/proc/self/statm", "re");
  size_t size = 0, resident = 0;
  SHUNT_CHECK(file != nullptr && fscanf(file, "%zu %zu", &size, &resident) == 2);
  fclose(file);
  now.resident_kib = resident * static_cast<size_t>(sysconf(_SC_PAGESIZE)) / 1024;
  return now;
}

}  // namespace shunt
