// SPDX-License-Identifier: Apache-2.0
#include "handlers/new_mount.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <optional>
#include <string_view>

#include "core/proc_text.h"

namespace shunt {
namespace {

constexpr uint64_t kMagic = 0xc0ed0000, kMagicMask = 0xffff0000;
constexpr uint64_t kNoSymlinks =
    256;  // MS_NOSYMFOLLOW, which Debian 12's headers hide behind linux/mount.h's

#ifndef MOUNT_ATTR_NOSYMFOLLOW
#define MOUNT_ATTR_NOSYMFOLLOW 0x00200000
#endif

struct Meaning {
  uint64_t flag;
  uint64_t attribute;
};
constexpr Meaning kAttributes[] = {
    {MS_RDONLY, MOUNT_ATTR_RDONLY},         {MS_NOSUID, MOUNT_ATTR_NOSUID},
    {MS_NODEV, MOUNT_ATTR_NODEV},           {MS_NOEXEC, MOUNT_ATTR_NOEXEC},
    {MS_NODIRATIME, MOUNT_ATTR_NODIRATIME}, {kNoSymlinks, MOUNT_ATTR_NOSYMFOLLOW},
};

// Those that are the filesystem's own.
struct Word {
  uint64_t flag;
  const char* word;
};
constexpr Word kWords[] = {
    {MS_RDONLY, "ro"}, {MS_SYNCHRONOUS, "sync"}, {MS_DIRSYNC, "dirsync"}, {MS_LAZYTIME, "lazytime"}};

bool SetWord(int filesystem, const char* key, const char* value) {
  return fsconfig(filesystem, value == nullptr ? FSCONFIG_SET_FLAG : FSCONFIG_SET_STRING, key, value, 0) == 0;
}

// One of "a=b,c,d=e\,f", where a comma behind a backslash does not separate (overlay's paths have such).
std::string_view TakeOption(std::string_view& rest) {
  size_t end = 0;
  while (end < rest.size() && rest[end] != ',') end += rest[end] == '\\' && end + 1 < rest.size() ? 2 : 1;
  const std::string_view option = rest.substr(0, end);
  rest.remove_prefix(end < rest.size() ? end + 1 : end);
  return option;
}

// Its value is a descriptor's number, and would be taken for one of ours.
bool IsOfDescriptor(std::string_view key) {
  return key == "fd" || key == "rfdno" || key == "wfdno";
}

// The kernel takes no longer text at once here, mount(2) does; where overlay's layers are many they can come
// one by one.
constexpr size_t kLongestText = 255;

Result<void> AddLayers(int filesystem, std::string_view layers) {
  std::array<char, kLongestText + 1> text;
  for (bool more = true; more;) {
    size_t end = 0;
    while (end < layers.size() && layers[end] != ':') end += layers[end] == '\\' ? 2 : 1;
    end = std::min(end, layers.size());
    if (end == 0 || end >= text.size()) return Fail(EINVAL);  // "::" begins layers of another kind
    *std::ranges::remove_copy(layers.substr(0, end), text.data(), '\\').out = '\0';
    if (!SetWord(filesystem, "lowerdir+", text.data())) return FailErrno();
    more = end < layers.size();
    layers.remove_prefix(more ? end + 1 : end);
  }
  return {};
}

Result<void> SetOptions(int filesystem, std::string_view data) {
  std::array<char, PATH_MAX> text;
  while (!data.empty()) {
    const std::string_view option = TakeOption(data);
    if (option.empty()) continue;
    if (option.size() >= text.size()) return Fail(EINVAL);
    *std::copy(option.begin(), option.end(), text.data()) = '\0';
    char* const equals = std::strchr(text.data(), '=');
    if (equals == text.data()) continue;  // so do mount(2)'s own
    if (equals != nullptr) *equals = '\0';
    if (IsOfDescriptor(text.data())) return Fail(EINVAL);
    if (equals != nullptr && std::strcmp(text.data(), "lowerdir") == 0 &&
        std::strlen(equals + 1) > kLongestText) {
      if (Result<void> added = AddLayers(filesystem, equals + 1); !added) return added;
      continue;
    }
    if (!SetWord(filesystem, text.data(), equals == nullptr ? nullptr : equals + 1)) return FailErrno();
  }
  return {};
}

// statmount(2): MS_SHARED and its like, of a mount by its unique id. Nothing: errno says why.
std::optional<uint64_t> AskForPropagation(uint64_t mount) {
  constexpr long kStatMount = 457;  // on every architecture
  constexpr uint64_t kBasics = 2;   // STATMOUNT_MNT_BASIC
  struct {
    uint32_t size, spare;
    uint64_t mount, what;
  } const question = {.size = 24, .spare = 0, .mount = mount, .what = kBasics};
  struct {
    uint32_t size, options;
    uint64_t what;
    std::array<uint64_t, 7> other;
    uint64_t propagation;
    std::array<uint64_t, 118> more;
  } answer{};
  if (syscall(kStatMount, &question, &answer, sizeof(answer), 0) != 0) return std::nullopt;
  if ((answer.what & kBasics) == 0) {
    errno = EOPNOTSUPP;
    return std::nullopt;
  }
  return answer.propagation;
}

// The mount that the descriptor is in is; or that cannot be told. Kernels before 6.8 cannot be asked, nor can
// some later ones about a mount whose root lies outside of our own. There the list says it, in which just
// those are missing. To keep one that was opened before we have the caller's root would be to hold its root:
// a container that makes itself another one could not unmount the old.
bool IsShared(int fd, int proc_fd) {
  if (const std::optional<uint64_t> propagation = AskForPropagation(FindMountOf(fd).id))
    return (*propagation & MS_SHARED) != 0;
  struct statx info {};
  if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &info) != 0 || (info.stx_mask & STATX_MNT_ID) == 0)
    return true;
  const Fd list(openat(proc_fd, "self/mountinfo", O_RDONLY | O_CLOEXEC));
  PeerGroupSearch search(info.stx_mnt_id);
  std::array<char, 4096> piece;
  for (ssize_t size; (size = read(list.get(), piece.data(), piece.size())) > 0;)
    search.Add({piece.data(), static_cast<size_t>(size)});
  return search.is_shared().value_or(true);
}

}  // namespace

uint64_t WithoutMagic(uint64_t flags) {
  return (flags & kMagicMask) == kMagic ? flags & 0xffff : flags;
}

uint64_t AttributesOf(uint64_t flags) {
  uint64_t attributes = 0;
  for (const Meaning& meaning : kAttributes) {
    if (flags & meaning.flag) attributes |= meaning.attribute;
  }
  if (flags & MS_STRICTATIME) return attributes | MOUNT_ATTR_STRICTATIME;
  return attributes | (flags & MS_NOATIME ? MOUNT_ATTR_NOATIME : MOUNT_ATTR_RELATIME);
}

Result<Fd> MakeMount(const MountWish& wish, int pid_namespace_fd) {
  const Fd filesystem(fsopen(wish.type, FSOPEN_CLOEXEC));
  if (!filesystem.valid()) return FailErrno();
  if (pid_namespace_fd >= 0 &&
      fsconfig(filesystem.get(), FSCONFIG_SET_FD, "pidns", nullptr, pid_namespace_fd) != 0)
    return errno == EINVAL ? Result<Fd>(Fail(EOPNOTSUPP)) : FailErrno();
  if (wish.source != nullptr && !SetWord(filesystem.get(), "source", wish.source)) return FailErrno();
  for (const Word& word : kWords) {
    if ((wish.flags & word.flag) != 0 && !SetWord(filesystem.get(), word.word, nullptr)) return FailErrno();
  }
  if (wish.data != nullptr) {
    if (Result<void> set = SetOptions(filesystem.get(), wish.data); !set) return tl::unexpected(set.error());
  }
  if (fsconfig(filesystem.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) return FailErrno();
  Fd mount(fsmount(filesystem.get(), FSMOUNT_CLOEXEC, static_cast<unsigned>(AttributesOf(wish.flags))));
  if (!mount.valid()) return FailErrno();
  return mount;
}

Result<Fd> CopyMount(int from_fd, const char* path, unsigned flags) {
  Fd copy(open_tree(from_fd, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags));
  if (!copy.valid()) return FailErrno();
  return copy;
}

Result<void> PutMount(int mount_fd, int place_fd) {
  if (move_mount(mount_fd, "", place_fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0)
    return FailErrno();
  return {};
}

MountOf FindMountOf(int fd) {
  constexpr unsigned kUniqueId = 0x4000;  // STATX_MNT_ID_UNIQUE
  struct statx info {};
  if (statx(fd, "", AT_EMPTY_PATH, kUniqueId | STATX_MNT_ID, &info) != 0) return {};
  if ((info.stx_mask & (kUniqueId | STATX_MNT_ID)) == 0) return {};
  return {.id = info.stx_mnt_id, .is_root = (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0};
}

bool MountExists(uint64_t id) {
  // What cannot be told counts as there: it may be forgotten only once it is gone.
  return AskForPropagation(id) || errno != ENOENT;
}

bool MayMountOn(Inside& inside, int place_fd) {
  if ((inside.caller().capabilities >> CAP_SYS_ADMIN & 1) != 0) return true;
  return inside.TakeOwnRights() && !IsShared(place_fd, inside.proc_fd()) && inside.AddRights(0);
}

MountTable::Place* NoteMount(MountTable& mounts, uint64_t id, const WorkRequest& request) {
  MountTable::Place* const place = mounts.Add(id, request.tid, request.fingerprint);
  if (place != nullptr) return place;
  mounts.Forget([](uint64_t mount) { return !MountExists(mount); });
  return mounts.Add(id, request.tid, request.fingerprint);
}

}  // namespace shunt
