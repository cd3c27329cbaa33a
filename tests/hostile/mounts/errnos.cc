// SPDX-License-Identifier: Apache-2.0
// The errno of odd arguments, one a line.

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "core/fd.h"
#include "tests/hostile/mounts/mounts.h"

namespace shunt {
namespace {

const char* AtPageEnd(const char* text) {
  auto* const pages =
      static_cast<char*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  munmap(pages + 4096, 4096);
  const size_t size = std::strlen(text);  // without its end
  return static_cast<char*>(std::memcpy(pages + 4096 - size, text, size));
}

}  // namespace

void Errnos() {
  static const std::string longest(PATH_MAX - 1, 'a'), too_long(PATH_MAX, 'a'), name(256, 'a');
  Fd(open("/tmp/file", O_CREAT | O_WRONLY, 0644));
  mkdir("/tmp/d", 0755);
  symlink("nowhere", "/tmp/dangling");
  symlink("loop", "/tmp/loop");
  struct Argument {
    const char* name;
    const char* value;
  };
  const auto bad = [](uintptr_t value) { return reinterpret_cast<const char*>(value); };
  const std::vector<Argument> odd = {{"null", nullptr},
                                     {"one", bad(1)},
                                     {"kernel", bad(0xffff888000000000)},
                                     {"last", bad(~uintptr_t{0})},
                                     {"hole", bad(0xdead0000beef)},
                                     {"unended", AtPageEnd("proc")},
                                     {"empty", ""},
                                     {"longest", longest.c_str()},
                                     {"too-long", too_long.c_str()},
                                     {"name", name.c_str()}};
  const auto say = [](const char* call, const char* what, long result) {
    std::printf("%s %s %d\n", call, what, result < 0 ? errno : 0);
    if (result != 0 || std::strncmp(call, "mknod", 5) != 0) return;
    umount2(what, MNT_DETACH);
    unlink(what);
  };
  const auto try_mount = [&](const char* what, const char* source, const char* target, const char* type,
                             unsigned long flags, const void* data) {
    const long result = syscall(SYS_mount, source, target, type, flags, data);
    say("mount", what, result);
    if (result == 0) umount2("/root", MNT_DETACH);
  };
  for (const Argument& one : odd) {
    try_mount((std::string("source=") + one.name).c_str(), one.value, "/root", "proc", 0, nullptr);
    try_mount((std::string("target=") + one.name).c_str(), "proc", one.value, "proc", 0, nullptr);
    try_mount((std::string("type=") + one.name).c_str(), "proc", "/root", one.value, 0, nullptr);
    if (one.value == nullptr || (*one.name != 'l' && *one.name != 't' && *one.name != 'n'))
      try_mount((std::string("data=") + one.name).c_str(), "proc", "/root", "proc", 0, one.value);
    try_mount((std::string("source+target=") + one.name).c_str(), one.value, one.value, "proc", 0, nullptr);
    try_mount((std::string("target+data=") + one.name).c_str(), "proc", one.value, "proc", 0, bad(1));
  }
  for (const char* target :
       {"/tmp/file", "/tmp/file/x", "/tmp/dangling", "/tmp/loop", "/nowhere", "/nowhere/x", "/root/"})
    try_mount((std::string("target=") + target).c_str(), "proc", target, "proc", 0, nullptr);
  for (const unsigned long flags :
       {0xc0ed0000UL, 0xc0edUL << 16 | MS_NOSUID, 1UL << 31, 1UL << 40, MS_SILENT + 0UL, MS_REC + 0UL,
        MS_RDONLY + 0UL, MS_NOEXEC | MS_NODEV | MS_NOSUID | MS_NOATIME + 0UL, MS_REMOUNT + 0UL, MS_MOVE + 0UL,
        MS_PRIVATE | MS_SHARED + 0UL})
    try_mount(("flags=" + std::to_string(flags)).c_str(), "proc", "/root", "proc", flags, nullptr);
  for (const char* data :
       {"nonsense=1", "hidepid=2", "hidepid=77", "hidepid", "gid=0", "gid=x", ",,", "ro", "=", "hidepid="})
    try_mount((std::string("data=") + data).c_str(), "proc", "/root", "proc", 0, data);
  MountProc("/root");  // so that umounts are looked at
  for (const Argument& one : odd) {
    say("umount2", one.name, syscall(SYS_umount2, one.value, 0));
    say("mknod", one.name, syscall(SYS_mknod, one.value, S_IFCHR | 0600, 0x105));
    say("mknodat", one.name, syscall(SYS_mknodat, AT_FDCWD, one.value, S_IFCHR | 0600, 0x105));
    say("mknodat-bad-directory", one.name, syscall(SYS_mknodat, 99, one.value, S_IFCHR | 0600, 0x105));
  }
  for (const char* path : {"/tmp/file", "/tmp/file/x", "/tmp/dangling", "/tmp/loop", "/nowhere", "/nowhere/x",
                           "/tmp/d", "/tmp/d/", "/tmp/new/", "/", ".", "..", "/root/version"}) {
    say("umount2", path, syscall(SYS_umount2, path, 0));
    say("mknod", path, syscall(SYS_mknod, path, S_IFCHR | 0600, 0x105));
    say("mknodat-file", path, syscall(SYS_mknodat, open("/tmp/file", O_RDONLY), path, S_IFCHR | 0600, 0x105));
  }
  for (const int flags : {16, 1 << 30, MNT_EXPIRE | MNT_FORCE, MNT_EXPIRE | MNT_DETACH})
    say("umount2-flags", std::to_string(flags).c_str(), syscall(SYS_umount2, "/root", flags));
  say("umount2", "root", syscall(SYS_umount2, "/root", MNT_DETACH));
}

}  // namespace shunt
