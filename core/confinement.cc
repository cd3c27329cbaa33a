// SPDX-License-Identifier: Apache-2.0
// Confinement: see confinement.h. The order here: capabilities, what the filters let through, the filters.
//
// The lists were found by reading every call that the engine makes after its start, and by running the tests
// of the program under them. Who adds a call to the engine adds it here. What is missing shows in the
// kernel's log (dmesg) as a line "type=1326 ... comm="shunt" ... syscall=NUMBER".

#include "core/confinement.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/nsfs.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/result.h"

namespace shunt {
namespace {

#ifdef SHUNT_SANITIZED
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// ---- capabilities

// What is kept of them, and by which threads. All else is dropped.
struct KeptCapability {
  int number;
  const char* name;
  bool control, reactor, side;
};
constexpr KeptCapability kKept[] = {
    // Memory, descriptors and /proc files of programs that belong to other users, have changed their user, or
    // have capabilities that we have not.
    {CAP_SYS_PTRACE, "sys_ptrace", true, true, true},
    // To enter the network namespace of a container that another user has made (net/netns.h). It takes this
    // capability in our own user namespace, too.
    {CAP_SYS_ADMIN, "sys_admin", true, false, false},
    // To load the socket lock (net/lock.h). Part of sys_admin, but an agent may be started with this one
    // only.
    {CAP_BPF, "bpf", true, false, false},
    // Published ports below the host's first unprivileged one (handlers/host_port.h).
    {CAP_NET_BIND_SERVICE, "net_bind_service", false, true, false},
    // To kill a container that has users of its own (handlers/verdict.h).
    {CAP_KILL, "kill", true, false, false},
};

constexpr uint64_t Bit(int capability) {
  return uint64_t{1} << capability;
}

uint64_t KeptBy(EngineThread thread) {
  uint64_t kept = 0;
  if (thread == EngineThread::kClient) return kept;
  for (const KeptCapability& one : kKept) {
    const bool keeps = thread == EngineThread::kControl   ? one.control
                       : thread == EngineThread::kReactor ? one.reactor
                                                          : one.side;
    if (keeps) kept |= Bit(one.number);
  }
  return kept;
}

// Inheritable and ambient capabilities go: nothing is executed any more.
absl::Status Keep(uint64_t capabilities) {
  __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets = {};
  if (syscall(SYS_capget, &header, sets.data()) != 0) return ToStatus({errno}, "read our capabilities");
  for (size_t word = 0; word < sets.size(); ++word) {
    const auto mask = static_cast<uint32_t>(capabilities >> (32 * word));
    sets[word].permitted &= mask;
    sets[word].effective = sets[word].permitted;
    sets[word].inheritable = 0;
  }
  if (syscall(SYS_capset, &header, sets.data()) != 0) return ToStatus({errno}, "drop capabilities");
  return absl::OkStatus();
}

// The permitted capabilities of all threads together.
uint64_t HeldCapabilities() {
  constexpr absl::string_view kLabel = "CapPrm:\t";
  uint64_t held = 0;
  std::error_code error;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task", error)) {
    std::ifstream status(task.path() / "status");
    for (std::string line; std::getline(status, line);) {
      uint64_t capabilities = 0;
      if (absl::StartsWith(line, kLabel) && absl::SimpleHexAtoi(line.substr(kLabel.size()), &capabilities)) {
        held |= capabilities;
      }
    }
  }
  return held;
}

absl::StatusOr<std::string> CapabilitiesInForce() {
  uint64_t held = HeldCapabilities();
  std::vector<absl::string_view> names;
  for (const KeptCapability& one : kKept) {
    if ((held & Bit(one.number)) != 0) names.emplace_back(one.name);
    held &= ~Bit(one.number);
  }
  if (held != 0 && !kSanitized) {  // TSan has a thread of its own, which drops nothing
    return absl::FailedPreconditionError(
        absl::StrCat("a thread still has capabilities that it should have dropped: ", absl::Hex(held)));
  }
  return names.empty() ? "no capabilities" : absl::StrCat("capabilities ", absl::StrJoin(names, ", "));
}

// ---- what the filters let through

// What every process needs to run on, to be out of memory, to abort, and to end.
constexpr int kEveryProcess[] = {
    SCMP_SYS(brk),    SCMP_SYS(munmap),          SCMP_SYS(mremap),       SCMP_SYS(madvise),
    SCMP_SYS(futex),  SCMP_SYS(clock_gettime),   SCMP_SYS(gettimeofday), SCMP_SYS(getpid),
    SCMP_SYS(gettid), SCMP_SYS(rt_sigprocmask),  SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigreturn),
    SCMP_SYS(tgkill), SCMP_SYS(restart_syscall), SCMP_SYS(exit),         SCMP_SYS(exit_group),
    SCMP_SYS(read),   SCMP_SYS(write),           SCMP_SYS(close),        SCMP_SYS(fcntl),
    SCMP_SYS(poll),   SCMP_SYS(ppoll),           SCMP_SYS(recvmsg),      SCMP_SYS(sendmsg),
    SCMP_SYS(wait4),  SCMP_SYS(waitid),          SCMP_SYS(kill),
};

constexpr int kKeeper[] = {
    SCMP_SYS(pidfd_send_signal),
    SCMP_SYS(timerfd_settime),
    SCMP_SYS(timerfd_gettime),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_create1),
    SCMP_SYS(sendto),
    SCMP_SYS(recvfrom),
    SCMP_SYS(accept4),  // runtimes' connections
    // Journals, and what a network program has complained about.
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(pread64),
};

constexpr int kEngine[] = {
    // The reactors' rings, the control thread's queues.
    SCMP_SYS(io_uring_enter),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(timerfd_settime),
    // Waits for targets end, or are charged (core/patience.h).
    SCMP_SYS(timer_settime),
    SCMP_SYS(timer_delete),
    SCMP_SYS(getrusage),
    // Notifications are requests of ioctl. All requests: to look at them would cost each call.
    SCMP_SYS(ioctl),
    // Twins, runtimes' connections, netlink, the lock server, DNS servers, health checks.
    SCMP_SYS(socketpair),
    SCMP_SYS(bind),
    SCMP_SYS(connect),
    SCMP_SYS(listen),
    SCMP_SYS(accept4),
    SCMP_SYS(getsockname),
    SCMP_SYS(getpeername),
    SCMP_SYS(shutdown),
    SCMP_SYS(getsockopt),
    SCMP_SYS(setsockopt),
    SCMP_SYS(sendto),
    SCMP_SYS(recvfrom),
    // Targets. The epolls and dup3: registrations are tried out, and moved by the side thread.
    SCMP_SYS(process_vm_readv),
    SCMP_SYS(process_vm_writev),
    SCMP_SYS(pidfd_send_signal),
    SCMP_SYS(pidfd_open),
    SCMP_SYS(pidfd_getfd),
    SCMP_SYS(kcmp),
    SCMP_SYS(capget),
    SCMP_SYS(epoll_create1),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(dup3),
    // Files of /proc, the configuration, and the agent's own socket.
    SCMP_SYS(pread64),
    SCMP_SYS(lseek),
    SCMP_SYS(getdents64),
    SCMP_SYS(newfstatat),
    SCMP_SYS(fstat),
    SCMP_SYS(readlink),
    SCMP_SYS(readlinkat),
    SCMP_SYS(unlink),
    SCMP_SYS(chmod),
    SCMP_SYS(setxattr),  // who may connect to a socket of ours
    // Files of backends that others write (net/discovery/watched_path.h). Who may not read a directory cannot
    // watch it.
    SCMP_SYS(inotify_init1),
    SCMP_SYS(inotify_add_watch),
    SCMP_SYS(inotify_rm_watch),
    // What is known of a container, for the engines to come.
    SCMP_SYS(memfd_create),
    SCMP_SYS(ftruncate),
    // Threads that end or wait, a child that is forked, the log on a terminal or in a file.
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(sched_yield),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(getrandom),
    SCMP_SYS(writev),
    // What is asked about ourselves.
    SCMP_SYS(getuid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getegid),
    SCMP_SYS(getppid),
    SCMP_SYS(uname),
    SCMP_SYS(sysinfo),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(getcpu),
};

constexpr int kStatMount = 457;  // younger than libseccomp's table; the same on every architecture

// A worker: the caller's identity, root and paths, and the deeds.
constexpr int kWorker[] = {
    SCMP_SYS(recvfrom),  SCMP_SYS(sendto),    SCMP_SYS(timer_settime), SCMP_SYS(openat),
    SCMP_SYS(openat2),   SCMP_SYS(fstat),     SCMP_SYS(newfstatat),    SCMP_SYS(statfs),
    SCMP_SYS(fchdir),    SCMP_SYS(chroot),    SCMP_SYS(capset),        SCMP_SYS(setgroups),
    SCMP_SYS(setresuid), SCMP_SYS(setresgid), SCMP_SYS(setfsuid),      SCMP_SYS(setfsgid),
    SCMP_SYS(umask),     SCMP_SYS(mkdirat),   SCMP_SYS(timer_create),  SCMP_SYS(setsockopt),
    SCMP_SYS(pread64),   SCMP_SYS(chdir),
};

// What the deeds about mounts and devices take besides.
constexpr int kMountingWorker[] = {
    SCMP_SYS(fsopen),  SCMP_SYS(fstatfs), SCMP_SYS(fsconfig), SCMP_SYS(fsmount),  SCMP_SYS(move_mount),
    SCMP_SYS(umount2), SCMP_SYS(statx),   SCMP_SYS(mknodat),  SCMP_SYS(unlinkat), kStatMount,
};

// A worker's companion (handlers/mount_builder.h).
constexpr int kMountBuilder[] = {
    SCMP_SYS(fsopen),
    SCMP_SYS(fsconfig),
    SCMP_SYS(fsmount),
    SCMP_SYS(move_mount),
    SCMP_SYS(open_tree),
    SCMP_SYS(mount_setattr),
    SCMP_SYS(unshare),
    SCMP_SYS(openat),
    SCMP_SYS(openat2),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(mknodat),
    SCMP_SYS(fchownat),
    SCMP_SYS(umask),
    SCMP_SYS(getppid),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(sched_setaffinity),
    SCMP_SYS(sched_yield),
    SCMP_SYS(timer_create),
    SCMP_SYS(timer_settime),
};

// What only an intruder calls. Fatal.
constexpr int kFatal[] = {
    SCMP_SYS(execve),
    SCMP_SYS(execveat),
    SCMP_SYS(ptrace),
    SCMP_SYS(process_madvise),
    SCMP_SYS(mount),
    SCMP_SYS(umount2),
    SCMP_SYS(move_mount),
    SCMP_SYS(open_tree),
    SCMP_SYS(mount_setattr),
    SCMP_SYS(fsopen),
    SCMP_SYS(fsconfig),
    SCMP_SYS(fsmount),
    SCMP_SYS(fspick),
    SCMP_SYS(pivot_root),
    SCMP_SYS(chroot),
    SCMP_SYS(unshare),
    SCMP_SYS(kexec_load),
    SCMP_SYS(kexec_file_load),
    SCMP_SYS(init_module),
    SCMP_SYS(finit_module),
    SCMP_SYS(delete_module),
    SCMP_SYS(reboot),
    SCMP_SYS(swapon),
    SCMP_SYS(swapoff),
    SCMP_SYS(acct),
    SCMP_SYS(quotactl),
    SCMP_SYS(settimeofday),
    SCMP_SYS(clock_settime),
    SCMP_SYS(adjtimex),
    SCMP_SYS(clock_adjtime),
    SCMP_SYS(sethostname),
    SCMP_SYS(setdomainname),
    SCMP_SYS(syslog),
    SCMP_SYS(iopl),
    SCMP_SYS(ioperm),
    SCMP_SYS(personality),
    SCMP_SYS(keyctl),
    SCMP_SYS(add_key),
    SCMP_SYS(request_key),
    SCMP_SYS(open_by_handle_at),
    SCMP_SYS(fanotify_init),
    SCMP_SYS(userfaultfd),
    SCMP_SYS(perf_event_open),
    SCMP_SYS(io_uring_setup),
    SCMP_SYS(io_uring_register),
    SCMP_SYS(setuid),
    SCMP_SYS(setgid),
    SCMP_SYS(setreuid),
    SCMP_SYS(setregid),
    SCMP_SYS(setresuid),
    SCMP_SYS(setresgid),
    SCMP_SYS(setgroups),
    SCMP_SYS(setfsuid),
    SCMP_SYS(setfsgid),
};

// A call that is let through if one of its conditions holds.
struct Condition {
  int call;
  scmp_arg_cmp is;
};

constexpr scmp_arg_cmp Equals(unsigned argument, uint64_t value) {
  return {.arg = argument, .op = SCMP_CMP_EQ, .datum_a = value, .datum_b = 0};
}
constexpr scmp_arg_cmp HasNone(unsigned argument, uint64_t bits) {
  return {.arg = argument, .op = SCMP_CMP_MASKED_EQ, .datum_a = bits, .datum_b = 0};
}

// Memory, but no new code.
constexpr Condition kMemory[] = {
    {SCMP_SYS(mmap), HasNone(2, PROT_EXEC)},
    {SCMP_SYS(mprotect), HasNone(2, PROT_EXEC)},
};

// No thread, and no namespace of its own.
constexpr Condition kFork{
    SCMP_SYS(clone),
    HasNone(0, CLONE_VM | CLONE_FILES | CLONE_FS | CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET |
                   CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP | CLONE_PTRACE)};

constexpr Condition kEngineConditions[] = {
    // Files are read, never made or written.
    {SCMP_SYS(openat), HasNone(2, O_ACCMODE | O_CREAT | O_TRUNC)},
    // A child that visits a container's network (net/netns.h).
    kFork,
    {SCMP_SYS(setns), Equals(1, CLONE_NEWNET)},
    {SCMP_SYS(setns), Equals(1, CLONE_NEWUSER)},
    {SCMP_SYS(socket), Equals(0, AF_INET)},
    {SCMP_SYS(socket), Equals(0, AF_INET6)},
    {SCMP_SYS(socket), Equals(0, AF_UNIX)},
    {SCMP_SYS(socket), Equals(0, AF_NETLINK)},
    {SCMP_SYS(bpf), Equals(0, BPF_PROG_LOAD)},
    {SCMP_SYS(seccomp), Equals(0, SECCOMP_GET_NOTIF_SIZES)},
    {SCMP_SYS(prlimit64), Equals(2, 0)},  // read, not set
};

// SECCOMP_IOCTL_NOTIF_SET_FLAGS, Linux 6.6; newer than Debian 12's headers.
constexpr uint64_t kSetListenerFlags = SECCOMP_IOW(4, uint64_t);

constexpr Condition kWorkerConditions[] = {
    {SCMP_SYS(ioctl), Equals(1, SECCOMP_IOCTL_NOTIF_SEND)},
    {SCMP_SYS(ioctl), Equals(1, SECCOMP_IOCTL_NOTIF_ID_VALID)},
    {SCMP_SYS(sched_setaffinity), Equals(0, 0)},  // its own
};

constexpr Condition kMountBuilderConditions[] = {
    // One process for each thing that is built; where it goes.
    kFork,
    {SCMP_SYS(setns), Equals(1, CLONE_NEWUSER)},
    {SCMP_SYS(setns), Equals(1, CLONE_NEWNET)},
    {SCMP_SYS(setns), Equals(1, CLONE_NEWPID)},
    {SCMP_SYS(setns), Equals(1, CLONE_NEWIPC)},
    {SCMP_SYS(setns), Equals(1, CLONE_NEWCGROUP)},
    {SCMP_SYS(ioctl), Equals(1, NS_GET_USERNS)},
    {SCMP_SYS(ioctl), Equals(1, NS_GET_PARENT)},
    {SCMP_SYS(prctl), Equals(0, PR_SET_PDEATHSIG)},
};

// The sanitizers call some of these in ways of their own, and one call can have one kind of rule.
constexpr int kMountBuilderAnyhow[] = {SCMP_SYS(setns), SCMP_SYS(ioctl)};

constexpr Condition kKeeperConditions[] = {
    {SCMP_SYS(ioctl), Equals(1, SECCOMP_IOCTL_NOTIF_RECV)},
    {SCMP_SYS(ioctl), Equals(1, SECCOMP_IOCTL_NOTIF_SEND)},
    {SCMP_SYS(ioctl), Equals(1, SECCOMP_IOCTL_NOTIF_ID_VALID)},
    {SCMP_SYS(ioctl), Equals(1, SECCOMP_IOCTL_NOTIF_ADDFD)},
    {SCMP_SYS(ioctl), Equals(1, kSetListenerFlags)},
    {SCMP_SYS(seccomp), Equals(0, SECCOMP_GET_NOTIF_SIZES)},
    {SCMP_SYS(prlimit64), Equals(2, 0)},  // read, not set
};

constexpr int kCgroupOpener[] = {
    SCMP_SYS(recvmsg), SCMP_SYS(sendmsg), SCMP_SYS(fstatfs), SCMP_SYS(close), SCMP_SYS(exit_group),
};
constexpr Condition kCgroupOpenerConditions[] = {
    {SCMP_SYS(openat), Equals(2, kCgroupOpenerFlags)},
};

// What the sanitizers' runtimes call beside that: reports, their own memory, and a thread that stops all
// others to look for leaks. Nothing in other builds.
#ifdef SHUNT_SANITIZED
constexpr int kSanitizers[] = {
    SCMP_SYS(mmap),       SCMP_SYS(mprotect), SCMP_SYS(openat), SCMP_SYS(clone),      SCMP_SYS(ptrace),
    SCMP_SYS(prctl),      SCMP_SYS(pipe2),    SCMP_SYS(open),   SCMP_SYS(prlimit64),  SCMP_SYS(sigaltstack),
    SCMP_SYS(nanosleep),  SCMP_SYS(readlink), SCMP_SYS(lseek),  SCMP_SYS(getdents64), SCMP_SYS(getppid),
    SCMP_SYS(newfstatat), SCMP_SYS(stat),     SCMP_SYS(lstat),  SCMP_SYS(pipe),       SCMP_SYS(getdents),
    SCMP_SYS(sched_yield)};
#else
constexpr std::span<const int> kSanitizers;
#endif

// ---- the filters

class FilterMaker {
 public:
  // Calls that no rule names fail with ENOSYS.
  FilterMaker() : filter_(seccomp_init(SCMP_ACT_ERRNO(ENOSYS))) {
    if (filter_ == nullptr) error_ = ENOMEM;
    Set(SCMP_FLTATR_CTL_TSYNC, 1);
    // A kernel before 5.16 slows confined processes down against speculation unless told not to; what runs
    // here is no foreign code.
    Set(SCMP_FLTATR_CTL_SSB, 1);
    Set(SCMP_FLTATR_CTL_LOG, 1);
    Set(SCMP_FLTATR_CTL_OPTIMIZE, 2);  // a binary tree, for the calls whose arguments are looked at
    Set(SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
  }

  void Allow(std::span<const int> calls) {
    for (const int call : calls) Rule(SCMP_ACT_ALLOW, call);
  }
  void Kill(std::span<const int> calls) {
    for (const int call : calls) Rule(SCMP_ACT_KILL_PROCESS, call);
  }
  void AllowIf(std::span<const Condition> conditions) {
    for (const Condition& condition : conditions) {
      if (error_ == 0)
        error_ = -seccomp_rule_add_array(filter_.get(), SCMP_ACT_ALLOW, condition.call, 1, &condition.is);
    }
  }

  // Sets no_new_privs as well, without which nobody may install a filter.
  absl::Status Load() {
    if (error_ == 0) error_ = -seccomp_load(filter_.get());
    return error_ == 0 ? absl::OkStatus() : ToStatus({error_}, "confine ourselves by a seccomp filter");
  }

 private:
  struct Release {
    void operator()(scmp_filter_ctx filter) const { seccomp_release(filter); }
  };

  void Set(scmp_filter_attr attribute, uint32_t value) {
    if (error_ == 0) error_ = -seccomp_attr_set(filter_.get(), attribute, value);
  }

  void Rule(uint32_t action, int call) {
    if (error_ == 0) error_ = -seccomp_rule_add(filter_.get(), action, call, 0);
  }

  std::unique_ptr<void, Release> filter_;
  int error_ = 0;
};

// What has happened, as one line, or as an error if something has failed.
absl::StatusOr<std::string> Report(const absl::StatusOr<std::string>& capabilities,
                                   const absl::Status& filter) {
  constexpr absl::string_view kFilterWords = "no_new_privs; a seccomp filter";
  if (capabilities.ok() && filter.ok()) return absl::StrCat(*capabilities, "; ", kFilterWords);
  const absl::Status& first = capabilities.ok() ? filter : capabilities.status();
  return absl::Status(first.code(),
                      absl::StrCat("not as it should be: ",
                                   capabilities.ok() ? *capabilities : capabilities.status().message(), "; ",
                                   filter.ok() ? kFilterWords : filter.message()));
}

// Parsing and making tables take milliseconds at a time, and a program waits for a reactor. A lesser weight
// is not enough: whoever runs is let alone for a slice, which is longer than a connect takes. Kernels before
// 6.12 do not know slices of one's own, and go by the weight (bench: many-services). One that may not sleep
// forever behind others: this is no SCHED_IDLE.
void GiveWay() {
  constexpr int kNicer = 10, kNicest = 19;
  constexpr uint64_t kSlice = 100'000;  // ns, the shortest that there is
  // The first version of the kernel's sched_attr, whose header cannot be had together with <sched.h>.
  struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
  } wanted{.size = sizeof(wanted), .policy = SCHED_OTHER};
  wanted.nice = std::min(getpriority(PRIO_PROCESS, static_cast<id_t>(getpid())) + kNicer,
                         kNicest);  // than the main thread
  wanted.runtime = kSlice;
  syscall(SYS_sched_setattr, 0, &wanted, 0);  // what is refused is only slower
}

}  // namespace

absl::Status KeepCapabilities(EngineThread thread) {
  return Keep(KeptBy(thread));
}

void BeginThread(EngineThread thread, const char* name) {
  prctl(PR_SET_NAME, name);
  GiveWay();
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  KeepCapabilities(thread).IgnoreError();
}

absl::StatusOr<std::string> ConfineEngine() {
  const absl::Status dropped = KeepCapabilities(EngineThread::kControl);
  const absl::StatusOr<std::string> capabilities = dropped.ok() ? CapabilitiesInForce() : dropped;
  FilterMaker filter;
  filter.Allow(kEveryProcess);
  filter.Allow(kEngine);
  filter.AllowIf(kMemory);
  filter.Allow(kSanitizers);
  filter.AllowIf(kEngineConditions);
  if (!kSanitized) filter.Kill(kFatal);  // ptrace is among them, and one call can have one rule
  return Report(capabilities, filter.Load());
}

absl::StatusOr<std::string> ConfineKeeper() {
  const absl::Status dropped = Keep(0);
  const absl::StatusOr<std::string> capabilities = dropped.ok() ? CapabilitiesInForce() : dropped;
  FilterMaker filter;
  filter.Allow(kEveryProcess);
  filter.Allow(kKeeper);
  filter.AllowIf(kMemory);
  filter.Allow(kSanitizers);
  filter.AllowIf(kKeeperConditions);
  return Report(capabilities, filter.Load());
}

absl::StatusOr<std::string> ConfineCgroupOpener() {
  const absl::Status dropped = Keep(0);
  FilterMaker filter;
  filter.Allow(kCgroupOpener);
  filter.AllowIf(kMemory);
  filter.Allow(kSanitizers);
  if (!kSanitized) filter.AllowIf(kCgroupOpenerConditions);
  return Report(dropped.ok() ? absl::StatusOr<std::string>("no capabilities") : dropped, filter.Load());
}

absl::Status ConfineWorker(bool mounts) {
  FilterMaker filter;
  filter.Allow(kEveryProcess);
  filter.Allow(kWorker);
  if (mounts) filter.Allow(kMountingWorker);
  filter.AllowIf(kMemory);
  filter.Allow(kSanitizers);
  filter.AllowIf(kWorkerConditions);
  return filter.Load();
}

absl::Status ConfineMountBuilder() {
  FilterMaker filter;
  filter.Allow(kEveryProcess);
  filter.Allow(kMountBuilder);
  filter.AllowIf(kMemory);
  filter.Allow(kSanitizers);
  if (!kSanitized) filter.AllowIf(kMountBuilderConditions);
  if (kSanitized) filter.Allow(kMountBuilderAnyhow);
  return filter.Load();
}

}  // namespace shunt
