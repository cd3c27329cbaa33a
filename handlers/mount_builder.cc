// SPDX-License-Identifier: Apache-2.0
// The order here: the place where it builds, what it builds, the process.

#include "handlers/mount_builder.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <ctime>
#include <string>
#include <string_view>

#include "core/cgroup.h"
#include "core/confinement.h"
#include "core/identity.h"
#include "core/packet_socket.h"
#include "core/user_namespaces.h"
#include "handlers/new_mount.h"
#include "handlers/policy.h"
#include "handlers/policy_json.h"
#include "handlers/proc_options.h"

namespace shunt {
namespace {

constexpr const char* kOwnUserNamespace = "/proc/self/ns/user";

// Names in the place where it builds, all in its root.
constexpr char kTree[] = "tree";                  // what is being built
constexpr char kNode[] = "tree/node";             // a device
constexpr char kNull[] = "null";                  // the host's /dev/null
constexpr char kEmpty[] = "empty";                // a directory with nothing in it, read-only
constexpr char kProc[] = "proc", kSys[] = "sys";  // the host's: see EnterScratch()

// How a process ends that builds one thing.
enum End : int { kBuilt = 0, kNobodyAsks = 1, kBroken = 2 };

struct Builder {
  Fd link;
  Fd proc;  // in which callers are seen
  Fd user;  // where what it builds goes
  Policy policy;
  uint64_t origin = 0;                        // the user namespace that we come from
  bool crosses = false;                       // `user` is not the namespace that we build in
  bool sees_host = false;                     // we have no rights on the host
  int error = 0;                              // why it cannot build
  Hierarchy hierarchy = Hierarchy::kUnified;  // in which the use of devices is ruled
  Fd cgroups;                                 // its root; not valid: it cannot be seen
  Fd home;                                    // the members of our own cgroup there, to be written
};

// ---- the place

Result<void> Step(int result) {
  if (result < 0) return FailErrno();
  return {};
}

// Rights to mount: where we are, or in the outermost of the container's user namespaces.
Result<void> GetRights(const Builder& builder) {
  if (unshare(CLONE_NEWNS) == 0) return {};
  const Fd own(open(kOwnUserNamespace, O_RDONLY | O_CLOEXEC));
  Fd innermost(fcntl(builder.user.get(), F_DUPFD_CLOEXEC, 0));
  const Result<std::vector<Fd>> chain = UserNamespacesDownTo(std::move(innermost), InodeOf(own.get()));
  if (!chain) return tl::unexpected(chain.error());
  if (chain->empty()) return Fail(EPERM);
  if (setns(chain->front().get(), CLONE_NEWUSER) != 0) return FailErrno();
  return Step(unshare(CLONE_NEWNS));
}

// With a `mode`, on a new file.
Result<void> Attach(Result<Fd> mount, const char* at, mode_t mode = 0) {
  if (!mount) return tl::unexpected(mount.error());
  if (mode != 0 && !Fd(open(at, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, mode)).valid()) return FailErrno();
  const Fd place(open(at, O_PATH | O_CLOEXEC));
  if (!place.valid()) return FailErrno();
  return PutMount(mount->get(), place.get());
}

Result<void> MakeReadOnly(int mount) {
  mount_attr read_only{};
  read_only.attr_set = MOUNT_ATTR_RDONLY;
  return Step(mount_setattr(mount, "", AT_EMPTY_PATH, &read_only, sizeof(read_only)));
}

// A file of the host's, to be shown to containers. It is read-only, and stays so: a device works all the
// same, but a root without a user namespace of its own could change the mode and the owner of the host's.
Result<Fd> ShowFile(const char* path) {
  Result<Fd> mount = CopyMount(AT_FDCWD, path);
  if (!mount) return mount;
  if (Result<void> made = MakeReadOnly(mount->get()); !made) return tl::unexpected(made.error());
  return mount;
}

// Where the host's own of a rule is.
std::string NameOfDevice(size_t rule) {
  return "device" + std::to_string(rule);
}

// A mount namespace with nothing of the host's but /dev/null, for every mount in it is copied for every mount
// that is built. In a user namespace the kernel lets nobody mount a proc or a sysfs who does not see a whole
// one: there these two come along.
Result<void> EnterScratch(const Builder& builder) {
  const bool see_host = builder.sees_host;
  if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return FailErrno();
  Result<Fd> null = ShowFile("/dev/null");
  Result<Fd> proc, sys;
  if (see_host) {
    proc = CopyMount(AT_FDCWD, "/proc", AT_RECURSIVE);
    sys = CopyMount(AT_FDCWD, "/sys", AT_RECURSIVE);
  }
  std::vector<Result<Fd>> devices;
  for (const DeviceRule& rule : builder.policy.devices)
    devices.push_back(rule.path.empty() ? Fail(ENXIO) : ShowFile(rule.path.c_str()));
  Result<Fd> root = MakeMount({.type = "tmpfs", .data = "mode=755", .flags = MS_NOSUID | MS_NOEXEC});
  Result<void> done = Attach(std::move(root), "/proc");
  if (!done) return done;
  if (chdir("/proc") != 0 || syscall(SYS_pivot_root, ".", ".") != 0) return FailErrno();
  if (umount2(".", MNT_DETACH) != 0 || chdir("/") != 0) return FailErrno();
  for (const char* name : {kTree, kEmpty, kProc, kSys}) {
    if (mkdir(name, 0755) != 0) return FailErrno();
  }
  done = Attach(std::move(null), kNull, 0600);
  if (done && see_host) done = Attach(std::move(proc), kProc);
  if (done && see_host) done = Attach(std::move(sys), kSys);
  for (size_t i = 0; done && i < devices.size(); ++i) {
    if (devices[i]) done = Attach(std::move(devices[i]), NameOfDevice(i).c_str(), 0600);
  }
  if (!done) return done;
  return Attach(MakeMount({.type = "tmpfs",
                           .data = "mode=555,size=4k,nr_inodes=1",
                           .flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC}),
                kEmpty);
}

// ---- what it builds

Result<Fd> OpenOfCaller(const Builder& builder, pid_t tid, const char* what) {
  const std::string path = std::to_string(tid) + "/" + what;
  Fd opened(openat(builder.proc.get(), path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!opened.valid()) return FailErrno();
  return opened;
}

// What the kernel asks of whoever mounts a view of a namespace: rights where it belongs to. The caller has
// them in its own user namespace and within, and what it has elsewhere we do not look for.
Result<Fd> NamespaceOfItsOwn(const Builder& builder, pid_t tid, const char* which) {
  Result<Fd> space = OpenOfCaller(builder, tid, which);
  if (!space) return space;
  const Fd owner(ioctl(space->get(), NS_GET_USERNS));
  if (!owner.valid() || InodeOf(owner.get()) != InodeOf(builder.user.get())) return Fail(EPERM);
  return space;
}

// Hides a path of the tree, or makes it read-only. One that this kernel has not got is no loss.
Result<void> PutMask(int tree, const Mask& mask, std::string_view root) {
  std::string_view path = mask.path;
  if (path.substr(0, root.size()) != root) return {};
  path.remove_prefix(root.size());
  if (path.empty()) return mask.hides ? Fail(EPERM) : MakeReadOnly(tree);  // all of it
  if (path[0] != '/') return {};
  const std::string relative(path.substr(1));
  open_how how{.flags = O_PATH | O_CLOEXEC,
               .mode = 0,
               .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
  const Fd place(static_cast<int>(syscall(SYS_openat2, tree, relative.c_str(), &how, sizeof(how))));
  if (!place.valid() && errno == ENOENT) return {};
  struct stat info {};
  if (!place.valid() || fstat(place.get(), &info) != 0) return FailErrno();
  if (mask.hides) {
    const Result<Fd> cover = CopyMount(AT_FDCWD, S_ISDIR(info.st_mode) ? kEmpty : kNull);
    if (!cover) return tl::unexpected(cover.error());
    return PutMount(cover->get(), place.get());
  }
  const Result<Fd> same = CopyMount(place.get(), "", AT_EMPTY_PATH);
  if (!same) return tl::unexpected(same.error());
  if (Result<void> made = MakeReadOnly(same->get()); !made) return made;
  return PutMount(same->get(), place.get());
}

// The copy that leaves, with everything in it locked to what it lies on. Where it goes to the user namespace
// that we build in, one within that will do for the way.
Result<Fd> TakeOut(const Builder& builder) {
  // To give a mount namespace up takes the kernel longer than all the rest. Held, that comes with our end.
  [[maybe_unused]] const int held = openat(builder.proc.get(), "self/ns/mnt", O_RDONLY | O_CLOEXEC);
  if (builder.crosses) {
    if (setns(builder.user.get(), CLONE_NEWUSER) != 0) return FailErrno();
  } else if (unshare(CLONE_NEWUSER) != 0) {
    return FailErrno();
  }
  if (unshare(CLONE_NEWNS) != 0) return FailErrno();
  return CopyMount(AT_FDCWD, kTree, AT_RECURSIVE);
}

Result<Fd> WithMasks(const Builder& builder, const Result<Fd>& mount, std::string_view root) {
  if (!mount) return tl::unexpected(mount.error());
  const Fd place(open(kTree, O_PATH | O_CLOEXEC));
  if (Result<void> put = PutMount(mount->get(), place.get()); !put) return tl::unexpected(put.error());
  // Those of a path within another one's shall be on top of it.
  for (const Mask& mask : builder.policy.mounts.masks) {
    if (Result<void> put = PutMask(mount->get(), mask, root); !put) return tl::unexpected(put.error());
  }
  return TakeOut(builder);
}

MountWish WishOf(const BuildRequest& request) {
  return {.type = request.string(request.type),
          .source = request.string(request.source),
          .data = request.string(request.data),
          .flags = request.flags};
}

// Whoever sees us in there has no rights over us. Our memory belongs to the user namespace that we come from,
// and is not dumpable; but a container of that one, and whoever sees into a namespace that is within its, may
// trace us if it has CAP_SYS_PTRACE.
bool IsSafeIn(const Builder& builder, int pid_namespace) {
  const uint64_t own = InodeOf(Fd(openat(builder.proc.get(), "self/ns/pid", O_RDONLY | O_CLOEXEC)).get());
  Fd space(fcntl(pid_namespace, F_DUPFD_CLOEXEC, 0));
  while (own != 0 && space.valid() && InodeOf(space.get()) != own) {
    const Fd owner(ioctl(space.get(), NS_GET_USERNS));
    if (!owner.valid() || InodeOf(owner.get()) == builder.origin) return false;
    space.reset(ioctl(space.get(), NS_GET_PARENT));
  }
  return own != 0 && space.valid();
}

// The rest of what this process does is done by its child, whose pid namespace this is.
Result<void> GoOnIn(const Builder& builder, int pid_namespace) {
  if (!IsSafeIn(builder, pid_namespace)) return Fail(EPERM);
  if (setns(pid_namespace, CLONE_NEWPID) != 0) return FailErrno();
  const pid_t child = fork();
  if (child < 0) return FailErrno();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return {};
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  _exit(WIFEXITED(status) ? WEXITSTATUS(status) : kBroken);
}

std::string GroupsOfCaller(const Builder& builder, pid_t tid) {
  const Result<Fd> map = OpenOfCaller(builder, tid, "gid_map");
  std::array<char, 8192> text;
  const ssize_t size = map ? read(map->get(), text.data(), text.size()) : -1;
  return std::string(text.data(), static_cast<size_t>(std::max<ssize_t>(size, 0)));
}

Result<Fd> BuildProc(const Builder& builder, const BuildRequest& request) {
  if (!builder.policy.mounts.proc) return Fail(EPERM);
  const char* const data = request.string(request.data);
  const std::optional<std::string> options =
      ProcOptions(data == nullptr ? "" : data, GroupsOfCaller(builder, request.tid));
  if (!options) return Fail(EINVAL);
  const Result<Fd> pids = NamespaceOfItsOwn(builder, request.tid, "ns/pid");
  if (!pids) return tl::unexpected(pids.error());
  MountWish wish = WishOf(request);
  wish.type = "proc";
  wish.data = options->c_str();
  Result<Fd> made = MakeMount(wish, pids->get());
  if (!made && made.error() == Errno{EOPNOTSUPP}) {
    if (Result<void> there = GoOnIn(builder, pids->get()); !there) return tl::unexpected(there.error());
    made = MakeMount(wish);
  }
  return WithMasks(builder, made, "/proc");
}

Result<Fd> BuildSysfs(const Builder& builder, const BuildRequest& request) {
  if (!builder.policy.mounts.sysfs) return Fail(EPERM);
  const Result<Fd> network = NamespaceOfItsOwn(builder, request.tid, "ns/net");
  if (!network) return tl::unexpected(network.error());
  if (setns(network->get(), CLONE_NEWNET) != 0) return FailErrno();
  MountWish wish = WishOf(request);
  wish.type = "sysfs";
  if (builder.policy.mounts.sysfs_read_only) wish.flags |= MS_RDONLY;
  return WithMasks(builder, MakeMount(wish), "/sys");
}

// Filesystems that show a namespace of whoever mounts them, beside proc and sysfs.
struct View {
  std::string_view type;
  const char* of;
  int kind;
};
constexpr View kViews[] = {{"mqueue", "ns/ipc", CLONE_NEWIPC},
                           {"binder", "ns/ipc", CLONE_NEWIPC},
                           {"cgroup", "ns/cgroup", CLONE_NEWCGROUP},
                           {"cgroup2", "ns/cgroup", CLONE_NEWCGROUP}};

// The caller's, if it is not the host's.
Result<void> JoinForView(const Builder& builder, const BuildRequest& request, const View& view) {
  const Result<Fd> space = NamespaceOfItsOwn(builder, request.tid, view.of);
  if (!space) return tl::unexpected(space.error());
  const std::string ours = std::string("self/") + view.of;
  const Fd host(openat(builder.proc.get(), ours.c_str(), O_RDONLY | O_CLOEXEC));
  if (!host.valid()) return FailErrno();
  if (InodeOf(host.get()) == InodeOf(space->get())) return Fail(EPERM);
  return Step(setns(space->get(), view.kind));
}

Result<void> JoinNetwork(const Builder& builder, const BuildRequest& request) {
  const Result<Fd> network = OpenOfCaller(builder, request.tid, "ns/net");
  if (!network) return tl::unexpected(network.error());
  return Step(setns(network->get(), CLONE_NEWNET));
}

// Its source is looked for where we are, so nothing of the host's can be meant by it but what is reached over
// the network, and that is the container's.
Result<Fd> BuildOther(const Builder& builder, const BuildRequest& request) {
  MountWish wish = WishOf(request);
  const auto& allowed = builder.policy.mounts.other;
  if (wish.type == nullptr || std::ranges::find(allowed, wish.type) == allowed.end()) return Fail(EPERM);
  const auto* const view = std::ranges::find(kViews, wish.type, &View::type);
  const Result<void> joined =
      view != std::end(kViews) ? JoinForView(builder, request, *view) : JoinNetwork(builder, request);
  if (!joined) return tl::unexpected(joined.error());
  // What is in it was not written by anybody who may make devices or programs of the host's root.
  if (builder.crosses) wish.flags |= MS_NOSUID | MS_NODEV;
  return MakeMount(wish);
}

// Who may not make devices can show those that the host has, with the host's owner and mode.
Result<Fd> BorrowDevice(const Builder& builder, bool block, dev_t device) {
  for (size_t i = 0; i < builder.policy.devices.size(); ++i) {
    const std::string name = NameOfDevice(i);
    struct stat info {};
    if (stat(name.c_str(), &info) == 0 && S_ISBLK(info.st_mode) == block && info.st_rdev == device)
      return CopyMount(AT_FDCWD, name.c_str());
  }
  return Fail(EPERM);
}

Result<Fd> BuildDevice(const Builder& builder, const BuildRequest& request) {
  const bool block = S_ISBLK(request.mode);
  const auto device = static_cast<dev_t>(request.device);
  if (!builder.policy.MayMake(block, major(device), minor(device))) return Fail(EPERM);
  const Result<Fd> status = OpenOfCaller(builder, request.tid, "status");
  if (!status) return tl::unexpected(status.error());
  static std::array<char, 16384> text;
  static Identity owner;
  const ssize_t size = read(status->get(), text.data(), text.size());
  if (size <= 0) return Fail(ESRCH);
  if (Result<void> parsed = ParseIdentity({text.data(), static_cast<size_t>(size)}, owner); !parsed)
    return tl::unexpected(parsed.error());
  // Devices work on a filesystem of ours alone, not on one of a user namespace.
  Result<Fd> room =
      MakeMount({.type = "tmpfs", .data = "mode=755,size=4k,nr_inodes=2", .flags = MS_NOSUID | MS_NOEXEC});
  if (!room) return room;
  const Fd place(open(kTree, O_PATH | O_CLOEXEC));
  if (Result<void> put = PutMount(room->get(), place.get()); !put) return tl::unexpected(put.error());
  umask(0);
  const mode_t type = block ? S_IFBLK : S_IFCHR;
  if (mknod(kNode, type | (request.mode & 0777 & ~owner.umask), device) != 0)
    return errno == EPERM ? BorrowDevice(builder, block, device) : Result<Fd>(FailErrno());
  if (fchownat(AT_FDCWD, kNode, owner.user.filesystem, owner.group.filesystem, AT_SYMLINK_NOFOLLOW) != 0)
    return FailErrno();
  return CopyMount(AT_FDCWD, kNode);
}

std::string CgroupOf(const Builder& builder, const char* status) {
  const Fd list(openat(builder.proc.get(), status, O_RDONLY | O_CLOEXEC));
  std::array<char, 4096> text;
  const ssize_t size = list.valid() ? read(list.get(), text.data(), text.size()) : -1;
  return size <= 0 ? "" : CgroupIn({text.data(), static_cast<size_t>(size)}, builder.hierarchy);
}

// By which a cgroup gets members. Not valid: we may not do that, or it is none that we see.
Fd MembersOf(const Builder& builder, const std::string& cgroup) {
  if (cgroup.empty() || cgroup.find("/..") != std::string::npos) return Fd();
  const std::string path = "." + cgroup + "/cgroup.procs";
  return Fd(openat(builder.cgroups.get(), path.c_str(), O_WRONLY | O_CLOEXEC));
}

// Where it cannot be told nothing is said. Back home before the answer: a cgroup with a member cannot be
// removed.
Result<Fd> TryDevice(const Builder& builder, const BuildRequest& request) {
  Result<Fd> node = BuildDevice(builder, request);
  if (!node || !builder.home.valid()) return node;
  const std::string status = std::to_string(request.tid) + "/cgroup";
  const Fd there = MembersOf(builder, CgroupOf(builder, status.c_str()));
  if (!there.valid() || write(there.get(), "0", 1) != 1) return node;
  const Fd opened(open(kNode, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  const bool refused = !opened.valid() && errno == EPERM;
  if (write(builder.home.get(), "0", 1) != 1) _exit(1);
  if (refused) return Fail(BuildRequest::kRefusedThere);
  return node;
}

Result<Fd> Build(const Builder& builder, const BuildRequest& request) {
  if (builder.error != 0) return Fail(builder.error);
  switch (request.kind) {
    case BuildRequest::Kind::kProc:
      return BuildProc(builder, request);
    case BuildRequest::Kind::kSysfs:
      return BuildSysfs(builder, request);
    case BuildRequest::Kind::kOther:
      return BuildOther(builder, request);
    case BuildRequest::Kind::kDevice:
      return BuildDevice(builder, request);
    case BuildRequest::Kind::kTry:
      return TryDevice(builder, request);
  }
  return Fail(EINVAL);
}

// ---- the process

bool Answer(const Builder& builder, const Result<Fd>& mount) {
  const BuildAnswer answer{.error = mount ? 0 : mount.error().code};
  std::array<int, 1> fds{};
  if (mount) fds[0] = mount->get();
  const std::span<const int> sent = mount ? std::span<const int>(fds) : std::span<const int>();
  return SendPacket(builder.link.get(), std::as_bytes(std::span(&answer, 1)), sent).has_value();
}

// Whoever has built is in no state to build anything else, so each builds one thing. It is there, with a
// mount namespace of its own, before anybody asks for it.

// To the CPU where the worker waits; and so will those after this one.
void Follow(int32_t cpu, pid_t parent) {
  cpu_set_t there, here;
  if (cpu < 0 || cpu >= CPU_SETSIZE) return;
  CPU_ZERO(&there);
  CPU_SET(static_cast<size_t>(cpu), &there);
  if (sched_getaffinity(0, sizeof(here), &here) == 0 && CPU_EQUAL(&here, &there)) return;
  sched_setaffinity(0, sizeof(there), &there);  // best effort
  sched_setaffinity(parent, sizeof(there), &there);
}

// The end of our worker need not be ours: the signal of that comes with its rights, and inside of a user
// namespace it may have none over us.
bool LiveNoLongerThanADeed() {
  sigevent by_force{};
  by_force.sigev_notify = SIGEV_SIGNAL;
  by_force.sigev_signo = SIGKILL;
  timer_t timer{};
  itimerspec longest{};
  longest.it_value.tv_sec = kLongestDeed.count();
  return timer_create(CLOCK_MONOTONIC, &by_force, &timer) == 0 &&
         timer_settime(timer, 0, &longest, nullptr) == 0;
}

[[noreturn]] void BuildOne(const Builder& builder, pid_t parent) {
  static BuildRequest request;
  if (builder.error == 0 && unshare(CLONE_NEWNS) != 0) _exit(kBroken);
  pollfd readable{builder.link.get(), POLLIN, 0};
  while (poll(&readable, 1, -1) < 0) {
  }
  const Result<PacketArrival> arrival =
      ReceivePacket(builder.link.get(), std::as_writable_bytes(std::span(&request, 1)), 0);
  if (!arrival) _exit(kNobodyAsks);
  if (!LiveNoLongerThanADeed()) _exit(kBroken);
  Follow(request.cpu, parent);
  request.text.back() = '\0';
  for (uint32_t* const at : {&request.type, &request.source, &request.data}) {
    if (*at >= request.text.size()) *at = BuildRequest::kNone;
  }
  const bool answered = Answer(builder, Build(builder, request));
  sched_yield();  // the worker first: an end takes its time
  _exit(answered ? kBuilt : kBroken);
}

// Before it leaves what the host has mounted.
void FindCgroups(Builder& builder) {
  const Fd file(openat(builder.proc.get(), "self/mountinfo", O_RDONLY | O_CLOEXEC));
  std::string text;
  std::array<char, 4096> piece;
  for (ssize_t size; file.valid() && (size = read(file.get(), piece.data(), piece.size())) > 0;)
    text.append(piece.data(), static_cast<size_t>(size));
  for (const Hierarchy hierarchy : {Hierarchy::kDevices, Hierarchy::kUnified}) {
    const std::string root = DirectoryOf(text, hierarchy, "/");
    if (root.empty()) continue;
    builder.hierarchy = hierarchy;
    builder.cgroups.reset(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    builder.home = MembersOf(builder, CgroupOf(builder, "self/cgroup"));
    return;
  }
}

Result<void> Prepare(Builder& builder, std::string_view orders) {
  const nlohmann::json json = nlohmann::json::parse(orders, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return Fail(EINVAL);
  try {
    builder.policy = PolicyFromJson(json);
  } catch (const nlohmann::json::exception&) {
    return Fail(EINVAL);
  }
  FindCgroups(builder);
  const uint64_t before = InodeOf(Fd(open(kOwnUserNamespace, O_RDONLY | O_CLOEXEC)).get());
  if (Result<void> rights = GetRights(builder); !rights) return rights;
  const uint64_t here = InodeOf(Fd(open(kOwnUserNamespace, O_RDONLY | O_CLOEXEC)).get());
  builder.crosses = here != InodeOf(builder.user.get());
  builder.origin = before;
  builder.sees_host = here != before;
  if (Result<void> entered = EnterScratch(builder); !entered) return entered;
  if (!ConfineMountBuilder().ok()) return Fail(EPERM);
  return {};
}

// On the CPU where its worker is: each waits for the other.
[[noreturn]] void RunMountBuilder(Builder builder, std::string_view orders) {
  prctl(PR_SET_NAME, "shunt-mounts");
  if (Result<void> prepared = Prepare(builder, orders); !prepared) builder.error = prepared.error().code;
  const pid_t self = getpid();
  for (int status = kBuilt; WIFEXITED(status) && WEXITSTATUS(status) == kBuilt;) {
    const pid_t child = fork();
    if (child < 0) break;
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != self) _exit(kBroken);
      BuildOne(builder, self);
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
  }
  _exit(0);  // the worker sees it, and ends as well
}

void KeepOnly(std::initializer_list<int> fds) {
  unsigned from = 3;
  std::vector<int> kept(fds);
  std::ranges::sort(kept);
  for (const int fd : kept) {
    const auto number = static_cast<unsigned>(fd);
    if (number > from) close_range(from, number - 1, 0);
    from = number + 1;
  }
  close_range(from, ~0U, 0);
}

}  // namespace

Result<Fd> StartMountBuilder(const CompanionSetup& setup) {
  Result<std::pair<Fd, Fd>> pair = MakePacketSockets();
  if (!pair) return tl::unexpected(pair.error());
  const pid_t worker = getpid();
  const pid_t pid = fork();
  if (pid < 0) return FailErrno();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != worker) _exit(1);
    KeepOnly({pair->second.get(), setup.proc_fd, setup.user_namespace_fd});
    (void)pair->first.release();
    Builder builder;
    builder.link = std::move(pair->second);
    builder.proc.reset(setup.proc_fd);
    builder.user.reset(setup.user_namespace_fd);
    RunMountBuilder(std::move(builder), setup.orders);
  }
  return std::move(pair->first);
}

Result<Fd> HaveBuilt(int builder_fd, const BuildRequest& request) {
  if (builder_fd < 0) return Fail(EPERM);
  const Result<void> sent = SendPacket(builder_fd, std::as_bytes(std::span(&request, 1)), {});
  if (!sent && sent.error() == Errno{EPIPE}) _exit(1);
  if (!sent) return tl::unexpected(sent.error());
  pollfd readable{builder_fd, POLLIN, 0};
  while (poll(&readable, 1, -1) < 0) {
    if (errno != EINTR) return FailErrno();
  }
  BuildAnswer answer;
  Result<PacketArrival> arrival = ReceivePacket(builder_fd, std::as_writable_bytes(std::span(&answer, 1)), 1);
  if (!arrival && arrival.error() == Errno{EPIPE}) _exit(1);
  if (!arrival) return tl::unexpected(arrival.error());
  if (answer.error != 0) return Fail(answer.error);
  if (arrival->fds.size() != 1) return Fail(EIO);
  return std::move(arrival->fds[0]);
}

}  // namespace shunt
