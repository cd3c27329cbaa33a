// SPDX-License-Identifier: Apache-2.0
// mknod(2), mknodat(2): devices that the policy names, for a caller that may not make them.
//
// Where the container has a user namespace of its own, no device works on a filesystem of that; there the
// name is a file with a device mounted on it, which lies on a filesystem of the agent's (mount_builder.h).
// Elsewhere the node is made in its place, unless the container's mount forbids devices.

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>

#include "handlers/container.h"
#include "handlers/handlers.h"
#include "handlers/mount_builder.h"
#include "handlers/new_mount.h"
#include "handlers/workers.h"

namespace shunt {
namespace {

// WorkRequest::values.
enum Value : size_t { kMode, kDevice };

// As the kernel takes them from the register.
dev_t DeviceOf(uint64_t argument) {
  const auto device = static_cast<uint32_t>(argument);
  return makedev((device & 0xfff00) >> 8, (device & 0xff) | ((device >> 12) & 0xfff00));
}

bool IsDevice(uint64_t mode) {
  return S_ISCHR(mode) || S_ISBLK(mode);
}

Reply MakeIfAllowed(Call& call, uint64_t mode, uint64_t argument, Prepare prepare) {
  const dev_t device = DeviceOf(argument);
  if (!IsDevice(mode) || !ContainerOf(call).policy.MayMake(S_ISBLK(mode), major(device), minor(device)))
    return Default(call);
  // What overlay filesystems mark deletions with is no device, and anybody may make it.
  if (S_ISCHR(mode) && device == makedev(0, 0)) return Reply::Continue();
  return DoInside(call, DeedName::kMakeNode, prepare);
}

std::optional<Reply> PrepareNode(Call& call, WorkRequest& request, uint64_t path, int directory,
                                 uint64_t mode, uint64_t device) {
  const Result<size_t> size = ReadPath(call, path, request.text);
  if (!size) return Reply::Fail(size.error());
  request.text_size = static_cast<uint32_t>(*size);
  request.offsets[0] = 0;
  request.directory = directory;
  request.values = {mode & 0xffff, DeviceOf(device)};
  return {};
}

// ---- inside

// Who has mounted it so wants none, of whatever kind.
bool ForbidsDevices(const Inside::Place& place) {
  struct statvfs filesystem {};
  return fstatvfs(place.directory(), &filesystem) == 0 && (filesystem.f_flag & ST_NODEV) != 0;
}

// What a worker before us may have left: the device, or the file for it to be mounted on.
enum class Left { kNothing, kFile, kDevice };

Left LookForLeft(const WorkRequest& request, const Identity& caller, const Inside::Place& place) {
  struct stat info {};
  if (!request.may_be_done || fstatat(place.directory(), place.last, &info, AT_SYMLINK_NOFOLLOW) != 0)
    return Left::kNothing;
  const bool same = (info.st_mode & S_IFMT) == (request.values[kMode] & S_IFMT);
  if (same && info.st_rdev == request.values[kDevice]) return Left::kDevice;
  // By now the path may lead to another one: at least the caller shall have made it.
  const bool own = info.st_uid == caller.user.filesystem;
  return S_ISREG(info.st_mode) && info.st_size == 0 && own ? Left::kFile : Left::kNothing;
}

int64_t MakeInPlace(Inside& inside, const Inside::Place& place) {
  const WorkRequest& request = inside.request();
  if (!inside.AddRights(uint64_t{1} << CAP_MKNOD)) return -EPERM;
  if (!inside.Begin()) return -ENOENT;
  const int made = mknodat(place.directory(), place.last, static_cast<mode_t>(request.values[kMode]),
                           static_cast<dev_t>(request.values[kDevice]));
  if (made == 0) return 0;
  const int error = errno;
  return error == EEXIST && LookForLeft(request, inside.caller(), place) == Left::kDevice ? 0 : -error;
}

Result<Fd> HaveBuilt(const Inside& inside, BuildRequest::Kind kind) {
  static BuildRequest wish;
  wish.kind = kind;
  wish.tid = inside.request().tid;
  wish.cpu = inside.cpu();
  wish.mode = static_cast<uint32_t>(inside.request().values[kMode]);
  wish.device = inside.request().values[kDevice];
  return HaveBuilt(inside.companion_fd(), wish);
}

// As policies have it, "c 10:229".
std::array<char, 32> NameOfDevice(const WorkRequest& request) {
  const auto device = static_cast<dev_t>(request.values[kDevice]);
  std::array<char, 32> name;
  snprintf(name.data(), name.size(), "%c %u:%u", S_ISBLK(request.values[kMode]) ? 'b' : 'c', major(device),
           minor(device));
  return name;
}

// Opening a device can do things: those where it does not. What the cgroup says of them it says, as a rule,
// of others as well.
bool IsHarmless(const WorkRequest& request) {
  constexpr unsigned kMemory = 1, kMisc = 10, kTun = 200, kFuse = 229;
  const auto device = static_cast<dev_t>(request.values[kDevice]);
  if (S_ISBLK(request.values[kMode])) return false;
  if (major(device) == kMemory) return minor(device) == 3 || minor(device) == 5 || minor(device) >= 7;
  return major(device) == kMisc && (minor(device) == kTun || minor(device) == kFuse);
}

// The node will be there, but of no use: better said now than found out later. Once for each device, as it
// takes longer than the making.
void LookForUse(Inside& inside) {
  static std::array<dev_t, 16> known;
  static size_t known_count = 0;
  const WorkRequest& request = inside.request();
  const auto device = static_cast<dev_t>(request.values[kDevice]);
  const auto end = known.begin() + known_count;
  if (std::find(known.begin(), end, device) != end || known_count == known.size()) return;
  known[known_count++] = device;
  const bool is_tun = S_ISCHR(request.values[kMode]) && device == makedev(10, 200);
  if (is_tun && (inside.caller().capabilities >> CAP_NET_ADMIN & 1) == 0) inside.Say(Remark::kNoNetAdmin);
  if (!IsHarmless(request)) return;
  const Result<Fd> tried = HaveBuilt(inside, BuildRequest::Kind::kTry);
  if (tried || tried.error() != Errno{BuildRequest::kRefusedThere}) return;
  inside.Say(Remark::kDeviceRefused, NameOfDevice(request).data());
}

// On a file of the caller's own, which is made for it.
int64_t PutNode(Inside& inside, const Inside::Place& place, Left left, int node) {
  if (!inside.Begin()) return -ENOENT;
  const int create = left == Left::kFile ? 0 : O_CREAT | O_EXCL;
  Fd file(
      openat(place.directory(), place.last, create | O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600));
  if (!file.valid()) return -errno;
  const bool may = MayMountOn(inside, file.get());
  if (!may) inside.Say(Remark::kSharedPlace, NameOfDevice(inside.request()).data());
  Result<void> put = may ? inside.TakeOwnRights() : Result<void>(Fail(EPERM));
  if (put) put = PutMount(node, file.get());
  if (put) return 0;
  // By now it may be another's, so with no more rights than the caller has.
  if (inside.AddRights(0)) unlinkat(place.directory(), place.last, 0);
  return -put.error().code;
}

int64_t MakeByMount(Inside& inside, const Inside::Place& place) {
  const WorkRequest& request = inside.request();
  const Left left = LookForLeft(request, inside.caller(), place);
  if (left == Left::kDevice) return 0;
  struct stat info {};
  if (left == Left::kNothing && fstatat(place.directory(), place.last, &info, AT_SYMLINK_NOFOLLOW) == 0)
    return -EEXIST;
  if (std::strchr(place.last, '/') != nullptr) return -ENOENT;  // that is for directories

  const Result<Fd> node = HaveBuilt(inside, BuildRequest::Kind::kDevice);
  if (!node) return -node.error().code;

  MountTable::Place* const noted = NoteMount(inside.mounts(), FindMountOf(node->get()).id, request);
  if (noted == nullptr) return -ENOSPC;
  const int64_t made = PutNode(inside, place, left, node->get());
  if (made != 0) noted->mount = 0;
  return made;
}

}  // namespace

Reply Mknod(Call& call) {
  return MakeIfAllowed(call, call.arg(1), call.arg(2), [](Call& of, WorkRequest& request) {
    return PrepareNode(of, request, of.arg(0), AT_FDCWD, of.arg(1), of.arg(2));
  });
}

Reply MknodAt(Call& call) {
  return MakeIfAllowed(call, call.arg(2), call.arg(3), [](Call& of, WorkRequest& request) {
    return PrepareNode(of, request, of.arg(1), of.int_arg(0), of.arg(2), of.arg(3));
  });
}

int64_t MakeNode(Inside& inside) {
  const WorkRequest& request = inside.request();
  const Result<Inside::Place> place = inside.Find(request.string(0));
  if (!place) return -place.error().code;
  if (!place->owned.valid()) return -EEXIST;  // the root
  if (ForbidsDevices(*place)) return -EPERM;
  LookForUse(inside);
  return inside.in_own_user_namespace() ? MakeByMount(inside, *place) : MakeInPlace(inside, *place);
}

}  // namespace shunt
