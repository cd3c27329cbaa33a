// SPDX-License-Identifier: Apache-2.0
#include "tests/hostile/mounts/mounts.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "core/fd.h"

namespace shunt {

const dev_t kZero = makedev(1, 5);
const char* type_attacked = "proc";
std::array<const char*, 3> masks = {"/version", "/tty", "/sys"};
Tally* tally;

bool IsSysfs() {
  return *type_attacked == 's';
}

namespace {

void BeRootOfNew(int namespaces) {
  const uid_t uid = geteuid();
  const gid_t gid = getegid();
  if (unshare(CLONE_NEWUSER | namespaces) != 0) return Fail("unshare");
  Write("/proc/self/setgroups", "deny");
  Write("/proc/self/uid_map", "0 " + std::to_string(uid) + " 1");
  Write("/proc/self/gid_map", "0 " + std::to_string(gid) + " 1");
}

void LookAtSysfs(int sysfs) {
  struct statfs info {};
  const bool is_it = fstatfs(sysfs, &info) == 0 && info.f_type == SYSFS_MAGIC;
  const bool lists =
      faccessat(sysfs, "kernel/mm", F_OK, 0) == 0 || faccessat(sysfs, "fs/cgroup", F_OK, 0) == 0;
  const bool writable = is_it && (info.f_flags & ST_RDONLY) == 0;
  if (!lists && !writable) return;
  ++tally->through;
  std::fprintf(stderr, "mount_attacks: seen of sysfs:%s%s\n", lists ? " directory" : "",
               writable ? " writable" : "");
}

// Below 4 GiB, for 32-bit calls.
char* Low(const char* text) {
  static char* const page = static_cast<char*>(
      mmap(nullptr, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0));
  static size_t used = 0;
  if (text == nullptr) return nullptr;
  const size_t size = std::strlen(text) + 1;
  if (used + size > 1 << 16) used = 0;
  char* const at = page + used;
  std::memcpy(at, text, size);
  used += size;
  return at;
}

}  // namespace

void Fail(const char* what) {
  std::fprintf(stderr, "mount_attacks: %s: %s\n", what, std::strerror(errno));
  ++tally->failures;
}

void Write(const char* path, const std::string& text) {
  const Fd file(open(path, O_WRONLY | O_CLOEXEC));
  if (write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) Fail(path);
}

int InChild(const std::function<void()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    body();
    _exit(0);
  }
  int status = -1;
  if (waitpid(child, &status, 0) != child || status != 0) Fail("a child");
  return status;
}

void InNest(const std::function<void()>& body, int namespaces, const char* root) {
  InChild([&] {
    BeRootOfNew(namespaces);
    InChild([&] {
      if ((namespaces & CLONE_NEWNS) != 0) {
        if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) Fail("private mounts");
        if (chroot(root) != 0 || chdir("/") != 0) Fail("chroot");
        if (mount("tmpfs", "/tmp", "tmpfs", 0, nullptr) != 0) Fail("a tmpfs");
      }
      body();
    });
  });
}

void Report(const char* name) {
  std::printf("%s %ld %ld\n", name, tally->tries.exchange(0), tally->through.exchange(0));
  std::fflush(stdout);
}

void DropCapabilities() {
  __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, 2> none = {};
  if (syscall(SYS_capset, &header, none.data()) != 0) Fail("capset");
}

void LookAt(int proc) {
  ++tally->tries;
  if (IsSysfs()) return LookAtSysfs(proc);
  std::array<char, 5> text{};
  const Fd file(openat(proc, "version", O_RDONLY | O_CLOEXEC));
  // Not kernel/version in /proc/sys, where an attack may have brought us.
  const bool reads = file.valid() && read(file.get(), text.data(), text.size()) > 0 &&
                     std::memcmp(text.data(), "Linux", 5) == 0;
  const bool lists = faccessat(proc, "tty/drivers", F_OK, 0) == 0;
  // The place is asked before the rights are.
  const Fd writable(openat(proc, "sys/kernel/ostype", O_WRONLY | O_TRUNC | O_CLOEXEC));
  const bool writes = writable.valid() || errno == EACCES || errno == EPERM;
  if (reads || lists || writes) {
    ++tally->through;
    std::fprintf(stderr, "mount_attacks: seen:%s%s%s\n", reads ? " file" : "", lists ? " directory" : "",
                 writes ? " writable" : "");
  }
}

void Look(const std::string& path) {
  const Fd directory(open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (directory.valid()) LookAt(directory.get());
}

bool IsProc(int fd) {
  struct statfs info {};
  return fstatfs(fd, &info) == 0 && info.f_type == PROC_SUPER_MAGIC;
}

bool IsProc(const std::string& path) {
  struct statfs info {};
  return statfs(path.c_str(), &info) == 0 && info.f_type == PROC_SUPER_MAGIC;
}

long Int80(long number, uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d, uintptr_t e) {
  if (!HasInt80()) return errno = ENOSYS, -1;
#ifdef __x86_64__
  long result = 0;
  asm volatile("int $0x80"
               : "=a"(result)
               : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
               : "memory", "r8", "r9", "r10", "r11");
  const auto small = static_cast<int>(result);
  if (small < 0 && small > -4096) return errno = -small, -1;
  return small;
#else
  return -1;
#endif
}

uintptr_t LowNumber(const char* text) {
  return reinterpret_cast<uintptr_t>(Low(text));
}

int Mount32(const char* source, const char* target, const char* type, unsigned flags) {
  return static_cast<int>(Int80(21, LowNumber(source), LowNumber(target), LowNumber(type), flags, 0));
}

int MountProc(const std::string& at, const char* data) {
  return mount("none", at.c_str(), type_attacked, IsSysfs() ? MS_RDONLY : 0, data);
}

}  // namespace shunt
