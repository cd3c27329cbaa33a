// SPDX-License-Identifier: Apache-2.0
// The order here: what a deed sees, one piece of work, the way into the namespaces, the process.

#include "core/worker.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <ctime>
#include <string_view>
#include <utility>
#include <vector>

#include "core/clock.h"
#include "core/confinement.h"
#include "core/descriptor_path.h"
#include "core/packet_socket.h"
#include "core/user_namespaces.h"

namespace shunt {
namespace {

// "PID/what" in a /proc.
class CallerPath {
 public:
  CallerPath(pid_t pid, std::string_view what) {
    char* at = std::to_chars(text_.data(), text_.data() + 16, pid).ptr;
    *at++ = '/';
    what = what.substr(0, text_.size() - 32);
    at = std::copy(what.begin(), what.end(), at);
    *at = '\0';
  }
  const char* c_str() const { return text_.data(); }

 private:
  std::array<char, 64> text_;
};

// The next component of `path`, which is advanced behind it; empty at the end.
std::string_view TakeComponent(std::string_view& path) {
  path.remove_prefix(std::min(path.find_first_not_of('/'), path.size()));
  const std::string_view component = path.substr(0, path.find('/'));
  path.remove_prefix(component.size());
  return component;
}

// What /proc/self has of the caller's descriptors. The kernel shows it to the process itself whatever its
// rights, and to others, as we are, only with more of them than the caller may have.
bool HasDescriptors(std::string_view folder) {
  return folder == "fd" || folder == "fdinfo";
}

// A name there that may be a descriptor's. Whoever follows dots with our rights comes out in our /proc, and
// from there anywhere.
bool MayBeDescriptor(std::string_view name) {
  return !name.empty() && name != "." && name != "..";
}

// "/proc/self/fd/NAME".
bool IsPlaceOfDescriptor(std::string_view path) {
  if (!path.starts_with('/') || TakeComponent(path) != "proc") return false;
  const std::string_view self = TakeComponent(path);
  if ((self != "self" && self != "thread-self") || !HasDescriptors(TakeComponent(path))) return false;
  return MayBeDescriptor(TakeComponent(path)) && TakeComponent(path).empty();
}

uint64_t NamespaceOf(int caller, const char* which) {
  struct stat info {};
  return fstatat(caller, which, &info, 0) == 0 ? info.st_ino : 0;
}

// How long a read of the link waits.
void SetPatience(int link, std::chrono::milliseconds patience) {
  const timeval limit{.tv_sec = patience.count() / 1000, .tv_usec = patience.count() % 1000 * 1000};
  setsockopt(link, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
}

void StayOn(int cpu) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET(static_cast<size_t>(cpu), &cpus);
  sched_setaffinity(0, sizeof(cpus), &cpus);  // best effort, as the reactor's own
}

}  // namespace

// ---- what a deed sees

int Inside::Place::directory() const {
  return owned.valid() ? owned.get() : AT_FDCWD;
}

Result<Fd> Inside::OpenOfCaller(const char* what, int flags) const {
  Fd fd(openat(caller_.directory.get(), what, flags | O_CLOEXEC));
  if (!fd.valid()) return FailErrno();
  return fd;
}

// Who has changed its user shows its links to nobody with the same rights, only to more.
Result<Fd> Inside::OpenWithOwnRights(const char* what) {
  if (Result<void> own = guise_.TakeOff(); !own) return tl::unexpected(own.error());
  Result<Fd> opened = OpenOfCaller(what, O_PATH | O_DIRECTORY);
  if (Result<void> again = guise_.PutOnAgain(); !again) return tl::unexpected(again.error());
  return opened;
}

// The same of the process that the caller is a thread of.
Result<Fd> Inside::OpenOfProcess(const char* what) {
  if (pids_.process == request_.tid) return OpenWithOwnRights(what);
  if (Result<void> own = guise_.TakeOff(); !own) return tl::unexpected(own.error());
  Fd opened(openat(proc_, CallerPath(pids_.process, what).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  const int error = errno;
  if (Result<void> again = guise_.PutOnAgain(); !again) return tl::unexpected(again.error());
  if (!opened.valid()) return Fail(error);
  return opened;
}

// What the caller is, at this moment.
Result<void> Inside::LookUp() {
  static std::array<char, 16384> text;
  const ssize_t size = pread(caller_.status.get(), text.data(), text.size(), 0);
  if (size <= 0) return Fail(size < 0 ? errno : ESRCH);
  const std::string_view all(text.data(), static_cast<size_t>(size));
  const Result<PidNumbers> pids = ParsePidNumbers(all);
  if (!pids) return tl::unexpected(pids.error());
  pids_ = *pids;
  return ParseIdentity(all, identity_);
}

Result<void> Inside::EnterRoot() {
  if (fchdir(caller_.directory.get()) != 0 || chroot("root") != 0 || chdir("/") != 0) return FailErrno();
  return {};
}

// The directory at which `path` begins, which is advanced to what has to be walked from there. Not valid: it
// is absolute.
Result<Fd> Inside::Start(const char*& path, std::span<char> rewritten) {
  if (path[0] != '/') {
    if (request_.directory == AT_FDCWD) return OpenWithOwnRights("cwd");
    std::array<char, 16> what{"fd/"};
    if (request_.directory < 0) return Fail(EBADF);
    *std::to_chars(what.data() + 3, what.data() + what.size() - 1, request_.directory).ptr = '\0';
    Result<Fd> directory = OpenWithOwnRights(what.data());
    if (!directory && directory.error() == Errno{ENOENT}) return Fail(EBADF);
    return directory;
  }
  std::string_view rest(path);
  const std::string_view mount = TakeComponent(rest);
  const std::string_view self = TakeComponent(rest);
  struct statfs filesystem {};
  if (mount != "proc" || (self != "self" && self != "thread-self") || statfs("/proc", &filesystem) != 0 ||
      filesystem.f_type != PROC_SUPER_MAGIC)
    return Fd();
  const bool thread = self == "thread-self";
  const std::string_view behind_self = rest;
  const std::string_view link = TakeComponent(rest);
  const std::string_view number = HasDescriptors(link) ? TakeComponent(rest) : std::string_view();
  if (link == "cwd" || link == "root" || MayBeDescriptor(number)) {
    constexpr size_t kLongestNumber = 10;  // longer ones are no descriptor's, nor are words
    if (number.size() > kLongestNumber) return Fail(ENOENT);
    std::array<char, 32> what{};
    char* const end = std::copy(link.begin(), link.end(), what.data());
    if (!number.empty()) *std::copy(number.begin(), number.end(), end + 1) = '\0', *end = '/';
    path = rest.data() + std::min(rest.find_first_not_of('/'), rest.size());
    return thread ? OpenWithOwnRights(what.data()) : OpenOfProcess(what.data());
  }
  // Anything else of /proc/self: the same under the caller's number.
  std::array<char, 64> numbers{};
  char* at = std::to_chars(numbers.data(), numbers.data() + 16, pids_.inner_process).ptr;
  if (thread) {
    at = std::copy_n("/task/", 6, at);
    at = std::to_chars(at, numbers.data() + numbers.size() - 1, pids_.inner_thread).ptr;
  }
  const std::string_view head("/proc/");
  const std::string_view middle(numbers.data(), static_cast<size_t>(at - numbers.data()));
  if (head.size() + middle.size() + behind_self.size() >= rewritten.size()) return Fail(ENAMETOOLONG);
  char* end = std::ranges::copy(head, rewritten.data()).out;
  end = std::ranges::copy(middle, end).out;
  *std::ranges::copy(behind_self, end).out = '\0';
  path = rewritten.data();
  return Fd();
}

Result<Inside::Place> Inside::Find(const char* path) {
  const std::string_view all(path);
  if (all.empty()) return Fail(ENOENT);
  const size_t end = all.find_last_not_of('/');
  if (end == std::string_view::npos) return Place{.owned = Fd(), .last = "/"};
  std::array<char, PATH_MAX> parent, rewritten;
  if (IsPlaceOfDescriptor(all)) {
    const char* name = path;
    const Result<Fd> there = Start(name, rewritten);
    // Nothing can be made there.
    if (!there && there.error() != Errno{ENOTDIR}) return tl::unexpected(there.error());
    if (!there || there->valid()) return Fail(EEXIST);
  }
  const size_t slash = all.find_last_of('/', end);
  const size_t begin = slash == std::string_view::npos ? 0 : slash + 1;
  *std::copy_n(path, begin, parent.data()) = '\0';
  const char* walk = begin == 0 ? path : parent.data();  // says whether it is absolute
  Result<Fd> start = Start(walk, rewritten);
  if (!start) return tl::unexpected(start.error());
  if (begin == 0 || walk[0] == '\0') return Place{.owned = *std::move(start), .last = path + begin};
  open_how how{.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .mode = 0, .resolve = RESOLVE_NO_MAGICLINKS};
  const int from = start->valid() ? start->get() : AT_FDCWD;
  Fd directory(static_cast<int>(syscall(SYS_openat2, from, walk, &how, sizeof(how))));
  if (!directory.valid()) return FailErrno();
  return Place{.owned = std::move(directory), .last = path + begin};
}

Result<Fd> Inside::Open(const char* path, int flags) {
  if (path[0] == '\0') return Fail(ENOENT);
  std::array<char, PATH_MAX> rewritten;
  const char* walk = path;
  Result<Fd> start = Start(walk, rewritten);
  if (!start || (start->valid() && walk[0] == '\0')) return start;
  open_how how{.flags = static_cast<uint64_t>(O_PATH | O_CLOEXEC | flags),
               .mode = 0,
               .resolve = RESOLVE_NO_MAGICLINKS};
  const int from = start->valid() ? start->get() : AT_FDCWD;
  Fd opened(static_cast<int>(syscall(SYS_openat2, from, walk, &how, sizeof(how))));
  if (!opened.valid()) return FailErrno();
  return opened;
}

void Inside::Say(Remark remark, std::string_view about) {
  const uint32_t bit = 1U << static_cast<uint32_t>(remark);
  if ((said_ & bit) != 0) return;
  said_ |= bit;
  WorkResult& result = desk_.result;
  result.remark = remark;
  about = about.substr(0, result.about.size() - 1);
  *std::ranges::copy(about, result.about.begin()).out = '\0';
}

bool Inside::Begin() {
  if (!listener_.StillValid(request_.call)) return false;
  desk_.state.store(DeskState::kBegun, std::memory_order_release);
  return true;
}

// ---- one piece of work

// What a worker has of its container, from the engine.
struct Post {
  Fd link, proc, companion;
  Listener listener;
  Desk& desk;
  MountTable& mounts;
  uint64_t user = 0, mount = 0;  // its namespaces
  bool own_user_namespace = false;
};

class Worker {
 public:
  Worker(Post post, Guise guise) : post_(std::move(post)), desk_(post_.desk), guise_(guise) {}

  [[noreturn]] void Serve(std::span<const Deed> deeds);

 private:
  void WaitForKnock();
  void Knock() const;
  void Work(std::span<const Deed> deeds);
  int64_t Do(std::span<const Deed> deeds);
  uint64_t FindCaller(pid_t tid);
  bool CallerLives();

  friend class Inside;

  Post post_;
  Desk& desk_;
  Guise guise_;
  Inside::Caller caller_;  // the last one
  Identity identity_;
  uint64_t gone_ = 0;    // see Inside::Forget()
  uint32_t said_ = 0;    // a bit for each Remark
  WorkerCall cpu_ = -1;  // that we are bound to
};

Inside::Inside(Worker& worker, Desk& desk)
    : request_(desk.request),
      proc_(worker.post_.proc.get()),
      caller_(worker.caller_),
      listener_(worker.post_.listener),
      guise_(worker.guise_),
      identity_(worker.identity_),
      desk_(desk),
      mounts_(worker.post_.mounts),
      gone_(worker.gone_),
      said_(worker.said_),
      companion_fd_(worker.post_.companion.get()),
      cpu_(worker.cpu_),
      own_user_namespace_(worker.post_.own_user_namespace) {}

// Returns the caller's user namespace; 0: there is no such thread.
uint64_t Worker::FindCaller(pid_t tid) {
  if (tid == caller_.tid) {
    if (const uint64_t user = NamespaceOf(caller_.directory.get(), "ns/user"); user != 0) return user;
  }
  caller_.tid = tid;
  caller_.directory.reset(
      openat(post_.proc.get(), CallerPath(tid, "").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  caller_.status.reset(openat(caller_.directory.get(), "status", O_RDONLY | O_CLOEXEC));
  return NamespaceOf(caller_.directory.get(), "ns/user");
}

// The one that was found: another thread may have its number by now. Whoever ends leaves its mount namespace
// first.
bool Worker::CallerLives() {
  return guise_.TakeOff().has_value() && NamespaceOf(caller_.directory.get(), "ns/mnt") != 0;
}

int64_t Worker::Do(std::span<const Deed> deeds) {
  const WorkRequest& request = desk_.request;
  WorkResult& result = desk_.result;
  if (request.deed >= deeds.size()) return -ENOSYS;
  const Deed& deed = deeds[request.deed];
  if (Result<void> own = guise_.TakeOff(); !own) return -own.error().code;
  // Whatever is found here has been so with the caller if it still waits when the deed begins: its number was
  // not given away meanwhile.
  result.user_namespace = FindCaller(request.tid);
  Inside inside(*this, desk_);
  result.elsewhere = result.user_namespace != post_.user;
  if (deed.on_mounts || result.elsewhere) {
    result.mount_namespace = NamespaceOf(caller_.directory.get(), "ns/mnt");
    result.elsewhere = result.elsewhere || result.mount_namespace != post_.mount;
  }
  if (result.elsewhere) return -EPERM;
  if (Result<void> seen = inside.LookUp(); !seen) return -EPERM;
  if (Result<void> root = inside.EnterRoot(); !root) return -EPERM;
  if (Result<void> worn = guise_.PutOn(identity_); !worn) return -EPERM;
  return deed.act(inside);
}

void Worker::Work(std::span<const Deed> deeds) {
  WorkResult& result = desk_.result;
  result = {};
  const int64_t value = Do(deeds);
  result.value = value;
  desk_.state.store(DeskState::kDone, std::memory_order_release);
  post_.mounts.Remove(std::exchange(gone_, 0));
  if (result.elsewhere) return;
  const Result<void> sent = post_.listener.Send(desk_.request.call, ReplyOf(value));
  result.send_error = sent ? 0 : CallerLives() ? sent.error().code : ESRCH;
  desk_.state.store(DeskState::kSent);
}

void Worker::Serve(std::span<const Deed> deeds) {
  sigevent by_force{};
  by_force.sigev_notify = SIGEV_SIGNAL;
  by_force.sigev_signo = SIGKILL;
  timer_t timer{};
  if (timer_create(CLOCK_MONOTONIC, &by_force, &timer) != 0) _exit(1);
  itimerspec longest{};
  longest.it_value.tv_sec = kLongestDeed.count();
  int64_t armed = 0;
  for (;;) {
    WaitForKnock();
    // Not each time: the limit need not be exact.
    const int64_t now = MonotonicNow();
    if (armed == 0 || now - armed > std::chrono::nanoseconds(kLongestDeed).count() / 10) {
      timer_settime(timer, 0, &longest, nullptr);
      armed = now;
    }
    Work(deeds);
    const WorkResult& result = desk_.result;
    if (desk_.hurry.exchange(false) || result.elsewhere || result.remark != Remark::kNone) Knock();
  }
}

void Worker::Knock() const {
  const char knock = 1;
  send(post_.link.get(), &knock, 1, MSG_NOSIGNAL);
}

// With two time limits, of which the shorter one is in force in a row of calls, without a word about it.
void Worker::WaitForKnock() {
  WorkerCall cpu = -1;
  ssize_t got = recv(post_.link.get(), &cpu, sizeof(cpu), 0);
  if (got < 0 && errno == EAGAIN) {
    if (desk_.state.load() == DeskState::kSent) Knock();
    SetPatience(post_.link.get(), kIdleWorker);
    got = recv(post_.link.get(), &cpu, sizeof(cpu), 0);
    SetPatience(post_.link.get(), kUnseenAnswer);
  }
  if (got <= 0) _exit(0);  // the engine is gone, or we have been idle for long
  if (cpu >= 0 && cpu != cpu_) StayOn(cpu_ = cpu);
}

// ---- the way into the namespaces

namespace {

// The groups that a container's programs have from outside of it have no number in its user namespace, and
// below one that was made without rights groups cannot be set at all: they can be taken on outside of it
// only. Where that is forbidden, we were started by their user. A worker that has not got them would have the
// agent's, which inside look like any others without a number. The thread may have changed its groups since
// its namespaces were looked at, but not to any that it could not have had then: inside, groups of the
// outside can only be given up. The numbers are those of whoever has opened the file.
Result<void> TakeGroupsOf(int proc, int status) {
  constexpr uint32_t kNoNumber = 65534;
  const Fd file(openat(proc, DescriptorPath(status).c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 16384> text;
  const ssize_t size = file.valid() ? read(file.get(), text.data(), text.size()) : -1;
  if (size <= 0) return Fail(ESRCH);
  static Identity identity;
  const Result<void> parsed = ParseIdentity({text.data(), static_cast<size_t>(size)}, identity);
  if (!parsed) return parsed;
  if (std::ranges::find(identity.supplementary(), kNoNumber) != identity.supplementary().end()) return {};
  if (syscall(SYS_setgroups, identity.group_count, identity.groups.data()) != 0 && errno != EPERM)
    return FailErrno();
  return {};
}

// A mount namespace can be joined by whoever is privileged where it was made; somewhere on the way in we are.
Result<void> Join(Fd user, Fd mount, int proc, Fd status) {
  struct stat ours {};
  if (stat("/proc/self/ns/user", &ours) != 0) return FailErrno();
  Result<std::vector<Fd>> chain = UserNamespacesDownTo(std::move(user), ours.st_ino);
  if (!chain) return tl::unexpected(chain.error());
  struct stat own_mount {};
  bool there = stat("/proc/self/ns/mnt", &own_mount) == 0 && own_mount.st_ino == InodeOf(mount.get());
  there = there || setns(mount.get(), CLONE_NEWNS) == 0;
  for (const Fd& one : *chain) {
    if (Result<void> groups = TakeGroupsOf(proc, status.get()); !groups) return groups;
    if (setns(one.get(), CLONE_NEWUSER) != 0) return FailErrno();
    there = there || setns(mount.get(), CLONE_NEWNS) == 0;
  }
  return there ? Result<void>() : FailErrno();
}

template <typename Part>
Result<Part*> Map(int memory, uint64_t offset) {
  void* const pages =
      mmap(nullptr, sizeof(Part), PROT_READ | PROT_WRITE, MAP_SHARED, memory, static_cast<off_t>(offset));
  if (pages == MAP_FAILED) return FailErrno();
  return static_cast<Part*>(pages);
}

// Its pages of the container's memory, and the lock that says that we are there.
Result<Desk*> SitDown(int memory, uint64_t offset) {
  const struct flock lock = LockOfDesk(offset);
  if (fcntl(memory, F_SETLK, &lock) != 0) return Fail(EBUSY);
  return Map<Desk>(memory, offset);
}

struct Told {
  WorkerSetup setup;
  std::vector<Fd> fds;
};

Result<Told> WaitForSetup(int link) {
  Told told;
  pollfd readable{link, POLLIN, 0};
  if (poll(&readable, 1, 10'000) != 1) return Fail(ETIMEDOUT);
  Result<PacketArrival> arrival =
      ReceivePacket(link, std::as_writable_bytes(std::span(&told.setup, 1)), WorkerSetup::kDescriptors);
  if (!arrival) return tl::unexpected(arrival.error());
  if (told.setup.magic != WorkerSetup::kMagic || arrival->fds.size() != WorkerSetup::kDescriptors ||
      told.setup.desk_offset % alignof(Desk) != 0 || told.setup.mounts_offset % alignof(MountTable) != 0 ||
      told.setup.orders_size > told.setup.orders.size())
    return Fail(EPROTO);
  told.fds = std::move(arrival->fds);
  return told;
}

[[noreturn]] void Leave(int link, Errno why) {
  const WorkerHello hello{.error = why.code, .pid = getpid()};
  (void)SendPacket(link, std::as_bytes(std::span(&hello, 1)), {});
  _exit(1);
}

// From here on the link's reads wait, but not for ever.
Result<void> MakePatient(int link) {
  SetPatience(link, kUnseenAnswer);
  if (fcntl(link, F_SETFL, fcntl(link, F_GETFL) & ~O_NONBLOCK) != 0) return FailErrno();
  return {};
}

}  // namespace

// ---- the process

void RunWorker(Fd link, std::span<const Deed> deeds, StartCompanion start_companion) {
  prctl(PR_SET_DUMPABLE, 0);
  Result<Told> told = WaitForSetup(link.get());
  if (!told) Leave(link.get(), told.error());
  auto& [setup, fds] = *told;
  Fd user = std::move(fds[0]), mount = std::move(fds[1]);
  Fd memory = std::move(fds[3]);  // stays open: to close it would give the lock up
  absl::StatusOr<Listener> listener = Listener::Adopt(std::move(fds[2]));
  Fd proc(open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!listener.ok() || !proc.valid()) Leave(link.get(), {EINVAL});
  const Result<Desk*> desk = SitDown(memory.get(), setup.desk_offset);
  if (!desk) Leave(link.get(), desk.error());
  const Result<MountTable*> mounts = Map<MountTable>(memory.get(), setup.mounts_offset);
  if (!mounts) Leave(link.get(), mounts.error());
  Result<Fd> companion;
  if (setup.orders_size > 0)
    companion = start_companion({{setup.orders.data(), setup.orders_size}, proc.get(), user.get()});
  if (!companion) Leave(link.get(), companion.error());
  WorkerHello hello{
      .pid = getpid(), .user_namespace = InodeOf(user.get()), .mount_namespace = InodeOf(mount.get())};
  struct stat outside {};
  if (stat("/proc/self/ns/user", &outside) != 0) Leave(link.get(), {errno});
  Result<void> in = Join(std::move(user), std::move(mount), proc.get(), std::move(fds[4]));
  if (!in) Leave(link.get(), in.error());
  Result<Guise> guise = Guise::Take();
  if (!guise) Leave(link.get(), guise.error());
  if (Result<void> patient = MakePatient(link.get()); !patient) Leave(link.get(), patient.error());
  if (absl::Status confined = ConfineWorker(setup.orders_size > 0); !confined.ok())
    Leave(link.get(), {EPERM});
  (void)SendPacket(link.get(), std::as_bytes(std::span(&hello, 1)), {});
  Worker({.link = std::move(link),
          .proc = std::move(proc),
          .companion = *std::move(companion),
          .listener = *std::move(listener),
          .desk = **desk,
          .mounts = **mounts,
          .user = hello.user_namespace,
          .mount = hello.mount_namespace,
          .own_user_namespace = outside.st_ino != hello.user_namespace},
         *guise)
      .Serve(deeds);
}

}  // namespace shunt
