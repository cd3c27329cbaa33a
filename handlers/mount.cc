// SPDX-License-Identifier: Apache-2.0
// mount(2), umount(2), umount2(2): new filesystems that the policy names, for a caller that may not mount
// them, and their end.
//
// The mount is made first and put in its place last, in one step that either happens or not. Whatever is not
// about a new filesystem of the policy's is left to the policy's default action, as a rule the kernel, and so
// is the umount of what was not mounted here: it decides by the container's own rights, of which none were
// added.

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <string_view>

#include "core/descriptor_path.h"
#include "handlers/container.h"
#include "handlers/handlers.h"
#include "handlers/mount_builder.h"
#include "handlers/new_mount.h"
#include "handlers/workers.h"

namespace shunt {
namespace {

// Where a deed finds what: WorkRequest::values, and its strings.
enum Value : size_t { kFlags, kNeedsAdmin, kPresent, kIfNotOurs };
enum String : size_t { kType, kTarget, kSource, kData };
constexpr uint64_t kHasSource = 1, kHasData = 2;

constexpr uint64_t kAdmin = uint64_t{1} << CAP_SYS_ADMIN;

// Of these every user namespace may have its own, and nothing comes into them from elsewhere.
constexpr std::string_view kMadeInside[] = {"tmpfs", "ramfs", "devpts", "overlay"};

bool IsAllowed(const MountPolicy& policy, std::string_view type) {
  if (type == "proc") return policy.proc;
  if (type == "sysfs") return policy.sysfs;
  // Its connection is a descriptor of the caller's, named by number: nobody else can make this mount. Who may
  // is let by the kernel.
  if (type == "fuse" || type.starts_with("fuse.")) return false;
  return std::ranges::find(policy.other, type) != policy.other.end();
}

// Appends the caller's string to the request's. Errors as ReadPath().
Result<std::string_view> ReadString(const Call& call, uint64_t address, WorkRequest& request, String which) {
  const std::span<char> room = std::span(request.text).subspan(request.text_size);
  const Result<size_t> size = ReadPath(call, address, room);
  if (!size) return tl::unexpected(size.error());
  request.offsets[which] = request.text_size;
  request.text_size += static_cast<uint32_t>(*size + 1);
  return std::string_view(room.data(), *size);
}

// The kernel takes what there is of a page, up to the first byte that it cannot read.
Result<void> ReadData(const Call& call, uint64_t address, WorkRequest& request) {
  const std::span<char> room = std::span(request.text).subspan(request.text_size, PATH_MAX);
  const size_t to_page_end = PATH_MAX - address % PATH_MAX;
  size_t size = 0;
  for (const size_t piece : {to_page_end, PATH_MAX - to_page_end}) {
    const Result<size_t> got =
        call.target().ReadMemory(address + size, std::as_writable_bytes(room.subspan(size, piece)));
    if (!got || *got == 0) break;
    size += *got;
  }
  if (size == 0) return Fail(EFAULT);
  room[std::min<size_t>(size, PATH_MAX - 1)] = '\0';
  request.offsets[kData] = request.text_size;
  request.text_size += static_cast<uint32_t>(std::strlen(room.data()) + 1);
  return {};
}

Errno AsOfArgument(Errno error) {
  return error == Errno{ENAMETOOLONG} ? Errno{EINVAL} : error;
}

// In the kernel's order, for the sake of the errno.
std::optional<Reply> PrepareMount(Call& call, WorkRequest& request) {
  const MountPolicy& policy = ContainerOf(call).policy.mounts;
  request.text_size = 0;
  request.directory = AT_FDCWD;
  request.values = {WithoutMagic(call.arg(3)), policy.need_cap_admin, 0};
  const Result<std::string_view> type = ReadString(call, call.arg(2), request, kType);
  if (!type) return Reply::Fail(AsOfArgument(type.error()));
  if (!IsAllowed(policy, *type)) return Reply::Fail(EPERM);  // it was something else when we looked first
  if (call.arg(0) != 0) {
    const Result<std::string_view> source = ReadString(call, call.arg(0), request, kSource);
    if (!source) return Reply::Fail(AsOfArgument(source.error()));
    request.values[kPresent] |= kHasSource;
  }
  if (call.arg(4) != 0) {
    if (Result<void> data = ReadData(call, call.arg(4), request); !data) return Reply::Fail(data.error());
    request.values[kPresent] |= kHasData;
  }
  const Result<std::string_view> target = ReadString(call, call.arg(1), request, kTarget);
  if (!target) return Reply::Fail(target.error());
  return {};
}

// The errno of an umount that is not about a mount of ours; 0: the kernel runs it. A worker kills and freezes
// nobody, so where that is the default action the call fails without.
uint64_t IfNotOurs(const Policy& policy) {
  switch (policy.default_action) {
    case DefaultAction::kContinue:
      return 0;
    case DefaultAction::kFail:
      return static_cast<uint64_t>(policy.default_error);
    case DefaultAction::kKillContainer:
    case DefaultAction::kFreezeContainer:
      break;
  }
  return EPERM;
}

std::optional<Reply> PrepareUmount(Call& call, WorkRequest& request, uint64_t flags) {
  request.text_size = 0;
  request.directory = AT_FDCWD;
  const Policy& policy = ContainerOf(call).policy;
  request.values = {flags & 0xffffffff, policy.mounts.need_cap_admin, 0, IfNotOurs(policy)};
  const Result<std::string_view> target = ReadString(call, call.arg(0), request, kTarget);
  if (!target) return Reply::Fail(target.error());
  return {};
}

// ---- inside

bool MayMount(const Inside& inside) {
  return inside.request().values[kNeedsAdmin] == 0 || (inside.caller().capabilities & kAdmin) != 0;
}

int64_t Refuse(Inside& inside, Remark why) {
  inside.Say(why, inside.request().string(kType));
  return -EPERM;
}

int64_t NotOurs(const WorkRequest& request) {
  const uint64_t error = request.values[kIfNotOurs];
  return error == 0 ? kLeaveToKernel : -static_cast<int64_t>(error);
}

const char* StringIf(const WorkRequest& request, uint64_t present, String which) {
  return (request.values[kPresent] & present) != 0 ? request.string(which) : nullptr;
}

void Append(const char* text, BuildRequest& request, uint32_t& at, uint32_t& end) {
  if (text == nullptr) return;
  const size_t size = std::min(std::strlen(text), request.text.size() - end - 1);
  std::memcpy(request.text.data() + end, text, size);
  request.text[end + size] = '\0';
  at = end;
  end += static_cast<uint32_t>(size + 1);
}

Result<Fd> HaveBuilt(const Inside& inside, BuildRequest::Kind kind) {
  static BuildRequest request;
  const WorkRequest& work = inside.request();
  request.kind = kind;
  request.tid = work.tid;
  request.cpu = inside.cpu();
  request.flags = work.values[kFlags];
  request.type = request.source = request.data = BuildRequest::kNone;
  uint32_t end = 0;
  Append(work.string(kType), request, request.type, end);
  Append(StringIf(work, kHasSource, kSource), request, request.source, end);
  Append(StringIf(work, kHasData, kData), request, request.data, end);
  return HaveBuilt(inside.companion_fd(), request);
}

// With no rights but the caller's and the one that it lacks: it could not have reached more by the paths
// among overlay's options, which are seen from where it is.
Result<Fd> MakeInside(Inside& inside, const MountWish& wish) {
  const bool has_paths = wish.type == std::string_view("overlay");
  const Result<Fd> directory = has_paths ? inside.Open(".", O_DIRECTORY) : Fd();
  if (!directory) return tl::unexpected(directory.error());
  if (has_paths && fchdir(directory->get()) != 0) return FailErrno();
  if (Result<void> rights = inside.AddRights(kAdmin); !rights) return tl::unexpected(rights.error());
  Result<Fd> made = MakeMount(wish);
  if (has_paths && chdir("/") != 0) return FailErrno();  // or it could not be unmounted
  return made;
}

// What shows something of the machine's is made outside: we are in the caller's user and mount namespace, but
// in no other one of its, nor in its control group. Where the container has no user namespace of its own, we
// would mount the host's control groups for it, and any disk that it has made a node of.
Result<Fd> Make(Inside& inside) {
  const WorkRequest& work = inside.request();
  const std::string_view type = work.string(kType);
  if (type == "proc") return HaveBuilt(inside, BuildRequest::Kind::kProc);
  if (type == "sysfs") return HaveBuilt(inside, BuildRequest::Kind::kSysfs);
  if (std::ranges::find(kMadeInside, type) == std::end(kMadeInside))
    return HaveBuilt(inside, BuildRequest::Kind::kOther);
  return MakeInside(inside, {.type = work.string(kType),
                             .source = StringIf(work, kHasSource, kSource),
                             .data = StringIf(work, kHasData, kData),
                             .flags = work.values[kFlags]});
}

}  // namespace

Reply Mount(Call& call) {
  const MountPolicy& policy = ContainerOf(call).policy.mounts;
  constexpr uint64_t kNotOurs = kOtherMountActions | kForbiddenMountFlags;
  if (!policy.any() || (WithoutMagic(call.arg(3)) & kNotOurs) != 0) return Default(call);
  std::array<char, 64> type;  // longer than any
  const Result<size_t> size = ReadPath(call, call.arg(2), type);
  if (!size || !IsAllowed(policy, {type.data(), *size})) return Default(call);
  return DoInside(call, DeedName::kMountFilesystem, PrepareMount);
}

Reply Umount(Call& call) {
  if (ContainerOf(call).facts.mounts.empty()) return Default(call);
  return DoInside(call, DeedName::kUnmountFilesystem,
                  [](Call& of, WorkRequest& request) { return PrepareUmount(of, request, 0); });
}

Reply Umount2(Call& call) {
  if (ContainerOf(call).facts.mounts.empty()) return Default(call);
  return DoInside(call, DeedName::kUnmountFilesystem,
                  [](Call& of, WorkRequest& request) { return PrepareUmount(of, request, of.arg(1)); });
}

int64_t MountFilesystem(Inside& inside) {
  const WorkRequest& request = inside.request();
  MountTable& mounts = inside.mounts();
  MountTable::Place* const earlier = mounts.FindFor(request.tid, request.fingerprint);
  if (earlier != nullptr && request.may_be_done && MountExists(earlier->mount)) return 0;
  if (earlier != nullptr) earlier->tid = 0;

  const Result<Fd> target = inside.Open(request.string(kTarget), O_DIRECTORY);
  if (!target) return -target.error().code;
  if (!MayMount(inside)) return Refuse(inside, Remark::kMayNotMount);
  if (!MayMountOn(inside, target->get())) return Refuse(inside, Remark::kSharedPlace);
  const Result<Fd> made = Make(inside);
  if (!made) return -made.error().code;

  MountTable::Place* const place = NoteMount(mounts, FindMountOf(made->get()).id, request);
  if (place == nullptr) return -ENOSPC;
  const Result<void> own = inside.TakeOwnRights();
  if (own && inside.Begin()) {
    const Result<void> put = PutMount(made->get(), target->get());
    if (put) return 0;
    place->mount = 0;
    return -put.error().code;
  }
  place->mount = 0;
  return own ? -ENOENT : -EPERM;
}

// What lies on it is locked there, which umount(2) takes for a mount in use: so it goes as a whole, at once
// or as soon as nobody uses it.
int64_t UnmountFilesystem(Inside& inside) {
  constexpr uint64_t kKnown = MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW;
  const WorkRequest& request = inside.request();
  MountTable::Place* const earlier = inside.mounts().FindFor(request.tid, request.fingerprint);
  if (request.may_be_done && earlier != nullptr && !MountExists(earlier->mount)) {
    inside.Forget(earlier->mount);
    return 0;
  }
  const uint64_t flags = request.values[kFlags];
  const bool contradicts = (flags & MNT_EXPIRE) != 0 && (flags & (MNT_FORCE | MNT_DETACH)) != 0;
  if ((flags & ~kKnown) != 0 || contradicts) return NotOurs(request);
  const Result<Fd> target =
      inside.Open(request.string(kTarget), (flags & UMOUNT_NOFOLLOW) != 0 ? O_NOFOLLOW : 0);
  if (!target) return NotOurs(request);
  const MountOf mount = FindMountOf(target->get());
  MountTable::Place* const place = inside.mounts().Find(mount.id);
  if (!mount.is_root || place == nullptr) return NotOurs(request);
  if (!MayMount(inside)) return -EPERM;
  if ((flags & MNT_EXPIRE) != 0) return -EAGAIN;  // as the first time; nobody counts for us
  if (!inside.TakeOwnRights() || fchdir(inside.proc_fd()) != 0) return -EPERM;
  place->fingerprint = request.fingerprint;
  place->tid = request.tid;
  if (!inside.Begin()) return -ENOENT;
  if (umount2(DescriptorPath(target->get()).c_str(), MNT_DETACH) != 0) return -errno;
  inside.Forget(mount.id);
  return 0;
}

}  // namespace shunt
