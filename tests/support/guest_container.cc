// SPDX-License-Identifier: Apache-2.0
#include "tests/support/guest_container.h"

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
#include <cstdio>
#include <cstring>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/check.h"
#include "core/filter.h"
#include "handlers/traps.h"
#include "tests/support/fresh_namespace.h"

namespace shunt {
namespace {

constexpr int kRunTimeoutMs = 60'000;

void Expect(int pipe_fd) {
  char byte;
  if (read(pipe_fd, &byte, 1) != 1) _exit(99);
}

void Tell(int pipe_fd) {
  SHUNT_CHECK(write(pipe_fd, "", 1) == 1);
}

[[noreturn]] void Child(const std::vector<sock_filter>& program, bool wait_killable, uid_t uid, gid_t gid,
                        bool maps_itself, int from_parent, int to_parent, const std::function<int()>& body) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (maps_itself) {
    WriteFile("/proc/self/setgroups", "deny");
    WriteFile("/proc/self/uid_map", absl::StrFormat("0 %d 1", uid));
    WriteFile("/proc/self/gid_map", absl::StrFormat("0 %d 1", gid));
  }
  BringLoopbackUp();
  // As a container's runtime does, which execs: else a non-root supervisor may not look at us.
  prctl(PR_SET_DUMPABLE, 1);
  const Result<Fd> listener =
      InstallFilter(program, wait_killable ? FilterWait::kWaitKillable : FilterWait::kInterruptible);
  SHUNT_CHECK(listener.has_value());
  const int number = listener->get();
  SHUNT_CHECK(write(to_parent, &number, sizeof(number)) == sizeof(number));
  Expect(from_parent);
  ::close(number);
  _exit(body());
}

// Keeps what has to outlive an engine, as the keeper does.
class Custody final : public WorkerStarter {
 public:
  void HoldContainer(uint64_t its_key, std::span<const int> fds) override {
    key = its_key;
    container.clear();
    for (const int fd : fds) container.push_back(Copy(fd));
  }
  void DropContainer(uint64_t /*key*/) override {}
  void HoldJournal(int fd) override { journal = Copy(fd); }
  void DropJournal(uint64_t /*name*/) override {}

  uint64_t key = 0;
  std::vector<Fd> container;
  Fd journal;

 private:
  static Fd Copy(int fd) { return Fd(fcntl(fd, F_DUPFD_CLOEXEC, 0)); }
};

int WaitFor(pid_t child) {
  int status = 0;
  SHUNT_CHECK(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

}  // namespace

int GuestContainer::Run(const std::function<int()>& body) {
  std::vector<Trap> traps = Traps({.renumbered = true});
  traps.insert(traps.end(), options_.traps.begin(), options_.traps.end());
  const absl::StatusOr<std::vector<sock_filter>> program = BuildFilter(traps, Denies({}));
  SHUNT_CHECK(program.ok());
  std::array<int, 2> down, up;
  SHUNT_CHECK(pipe2(down.data(), O_CLOEXEC) == 0 && pipe2(up.data(), O_CLOEXEC) == 0);
  const uid_t uid = geteuid();
  const gid_t gid = getegid();
  const int user = options_.own_user_namespace ? CLONE_NEWUSER : 0;
  const bool maps_itself = options_.own_user_namespace && options_.id_map.empty();
  const pid_t child = ForkInto(user | CLONE_NEWNET | options_.more_namespaces);
  if (child == 0) Child(*program, options_.wait_killable, uid, gid, maps_itself, down[0], up[1], body);
  if (!options_.id_map.empty()) {
    WriteFile(absl::StrFormat("/proc/%d/uid_map", child).c_str(), options_.id_map);
    WriteFile(absl::StrFormat("/proc/%d/gid_map", child).c_str(), options_.id_map);
  }
  const Fd from_child(up[0]), to_child(down[1]);
  ::close(down[0]);
  ::close(up[1]);

  const auto fail = [&](const std::string& why) {
    error_ = why;
    kill(child, SIGKILL);
    WaitFor(child);
    return -1;
  };
  int number = -1;
  if (read(from_child.get(), &number, sizeof(number)) != sizeof(number))
    return fail("the child made no listener");
  const Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, child, 0)));
  Fd listener(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd.get(), number, 0)));
  if (!listener.valid()) return fail(absl::StrFormat("pidfd_getfd: %s", strerror(errno)));

  Custody custody;
  if (options_.engine_dies) options_.accelerator.custodian = &custody;
  if (options_.before_served) options_.before_served(child);
  options_.accelerator.warn = [this](std::string_view line) { warnings_.append(line).append("\n"); };
  options_.accelerator.balances = !options_.services.empty();
  const auto start = [this] {
    absl::StatusOr<std::unique_ptr<Accelerator>> started = Accelerator::Start(options_.accelerator);
    if (started.ok() && !options_.services.empty())
      (*started)->Balance(options_.services, /*zone=*/"", /*at_once=*/true);
    return started;
  };
  absl::StatusOr<std::unique_ptr<Accelerator>> accelerator = start();
  if (!accelerator.ok()) return fail(accelerator.status().ToString());
  if (options_.engine_dies) (*accelerator)->Begin();
  locks_ = (*accelerator)->LocksInForce();
  bool ended = false;
  const absl::StatusOr<std::string> served = (*accelerator)
                                                 ->Serve(std::move(listener),
                                                         {.name = "guest",
                                                          .pid = options_.tell_pid ? child : 0,
                                                          .publish = options_.publish,
                                                          .first_process = options_.tell_pid ? child : 0,
                                                          .policy = options_.policy,
                                                          .ignore = options_.ignore,
                                                          .exact_traps = true},
                                                         [&ended] { ended = true; });
  if (!served.ok()) return fail(served.status().ToString());
  Tell(to_child.get());

  pollfd event{.fd = (*accelerator)->event_fd(), .events = POLLIN};
  const auto late = std::chrono::steady_clock::now() + std::chrono::milliseconds(kRunTimeoutMs);
  while (!ended) {
    const bool often = options_.meanwhile || options_.operate || options_.engine_dies;
    poll(&event, 1, often ? 1 : kRunTimeoutMs);
    if (options_.engine_dies && options_.engine_dies()) {
      accelerator->reset();
      options_.accelerator.first_key = custody.key + 1;
      if (options_.next_services) options_.services = *options_.next_services;
      accelerator = start();
      if (!accelerator.ok()) return fail(accelerator.status().ToString());
      Fd journal = std::move(custody.journal);
      std::vector<Fd> held = std::move(custody.container);
      if (!(*accelerator)->Adopt(custody.key, std::move(held), [&ended] { ended = true; }).ok() ||
          !(*accelerator)->TakeOver(1, std::move(journal)).ok())
        return fail("the second engine cannot take over");
      (*accelerator)->Begin();
      event.fd = (*accelerator)->event_fd();
    }
    (*accelerator)->HandleEvents();
    ReadCounters(**accelerator);
    if (options_.meanwhile) options_.meanwhile(child);
    if (options_.operate) options_.operate(**accelerator);
    if (std::chrono::steady_clock::now() > late) return fail("the container did not end in time");
  }
  ReadCounters(**accelerator);
  services_ = (*accelerator)->DescribeServices();
  return WaitFor(child);
}

void GuestContainer::ReadCounters(const Accelerator& accelerator) {
  const std::vector<Accelerator::CounterValue> values = accelerator.Counters();
  for (size_t i = 0; i < values.size(); ++i) counters_[i] = values[i].value;
}

}  // namespace shunt
