// SPDX-License-Identifier: Apache-2.0
// mkdir and mkdirat under a policy that adds to every name: real calls, real workers.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <csignal>
#include <string>

#include "tests/support/fresh_namespace.h"
#include "tests/support/guest_container.h"

namespace shunt {
namespace {

constexpr char kSuffix[] = "-made";

GuestOptions Renaming() {
  GuestOptions options;
  options.policy.mkdir_suffix = kSuffix;
  options.traps = {{"mkdir", {}}, {"mkdirat", {}}};
  options.more_namespaces = CLONE_NEWNS;
  return options;
}

// Inside: a tmpfs of the container's own, in which all of this happens.
bool EnterTmpfs() {
  return mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         mount("tmpfs", "/tmp", "tmpfs", 0, "mode=0777") == 0 && chdir("/tmp") == 0;
}

bool IsDirectory(const char* path, mode_t mode) {
  struct stat info {};
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode) && (info.st_mode & 07777) == mode;
}

// In a container of its own; `body` returns 0, or the line that is wrong.
void ExpectInside(const std::function<int()>& body, GuestOptions options = Renaming()) {
  GuestContainer container(std::move(options));
  EXPECT_EQ(container.Run([&] { return EnterTmpfs() ? body() : 255; }), 0) << container.error();
}

#define CHECK_INSIDE(condition) \
  if (!(condition)) return __LINE__ % 250 + 1

TEST(Mkdir, AddsToTheNameAndObeysModeAndUmask) {
  ExpectInside([] {
    umask(027);
    CHECK_INSIDE(mkdir("/tmp/absolute", 0777) == 0);
    CHECK_INSIDE(IsDirectory("/tmp/absolute-made", 0750));
    umask(0);
    CHECK_INSIDE(mkdir("relative/", 0755) == 0);
    CHECK_INSIDE(IsDirectory("/tmp/relative-made", 0755));
    CHECK_INSIDE(access("/tmp/relative", F_OK) != 0);
    const int directory = open("/tmp/relative-made", O_RDONLY | O_DIRECTORY);
    CHECK_INSIDE(mkdirat(directory, "below", 01777) == 0);
    CHECK_INSIDE(IsDirectory("/tmp/relative-made/below-made", 01777));
    return 0;
  });
}

TEST(Mkdir, FailsAsTheKernelWould) {
  ExpectInside([] {
    const auto error_of = [](const char* path) { return mkdir(path, 0777) == 0 ? 0 : errno; };
    CHECK_INSIDE(error_of("a") == 0);
    CHECK_INSIDE(error_of("a") == EEXIST);
    CHECK_INSIDE(error_of("") == ENOENT);
    CHECK_INSIDE(error_of("/") == EEXIST);
    CHECK_INSIDE(error_of("a-made/.") == EEXIST);
    CHECK_INSIDE(error_of("a-made/..") == EEXIST);
    CHECK_INSIDE(error_of("nowhere/b") == ENOENT);
    CHECK_INSIDE(error_of(std::string(300, 'x').c_str()) == ENAMETOOLONG);
    CHECK_INSIDE(error_of(std::string(PATH_MAX, 'x').c_str()) == ENAMETOOLONG);
    CHECK_INSIDE(mkdir(reinterpret_cast<const char*>(8), 0777) != 0 && errno == EFAULT);
    CHECK_INSIDE(mkdirat(99, "b", 0777) != 0 && errno == EBADF);
    const int file = open("file", O_CREAT | O_RDWR, 0600);
    CHECK_INSIDE(mkdirat(file, "b", 0777) != 0 && errno == ENOTDIR);
    CHECK_INSIDE(error_of("file/b") == ENOTDIR);
    CHECK_INSIDE(symlink("loop", "loop") == 0);
    CHECK_INSIDE(error_of("loop/b") == ELOOP);
    return 0;
  });
}

TEST(Mkdir, StaysInsideTheCallersRoot) {
  ExpectInside([] {
    CHECK_INSIDE(mkdir("jail", 0777) == 0);
    CHECK_INSIDE(symlink("/", "jail-made/up") == 0);
    CHECK_INSIDE(chroot("jail-made") == 0 && chdir("/") == 0);
    CHECK_INSIDE(mkdir("/../../up/../inside", 0777) == 0);
    CHECK_INSIDE(IsDirectory("/inside-made", 0755));
    return 0;
  });
}

TEST(Mkdir, SeesTheCallerInProcSelf) {
  ExpectInside([] {
    CHECK_INSIDE(mkdir("here", 0777) == 0 && chdir("here-made") == 0);
    CHECK_INSIDE(mkdir("/proc/self/cwd/a", 0777) == 0);
    CHECK_INSIDE(IsDirectory("/tmp/here-made/a-made", 0755));
    CHECK_INSIDE(mkdir("/proc/thread-self/root/tmp/b", 0777) == 0);
    CHECK_INSIDE(IsDirectory("/tmp/b-made", 0755));
    const std::string by_number = "/proc/self/fd/" + std::to_string(open("/tmp", O_PATH)) + "/c";
    CHECK_INSIDE(mkdir(by_number.c_str(), 0777) == 0);
    CHECK_INSIDE(IsDirectory("/tmp/c-made", 0755));
    // By a link to there nobody but the caller itself could follow.
    CHECK_INSIDE(symlink("/proc/self/root", "link") == 0);
    CHECK_INSIDE(mkdir("link/tmp/d", 0777) != 0);
    CHECK_INSIDE(access("/tmp/d-made", F_OK) != 0);
    return 0;
  });
}

TEST(Mkdir, ActsInTheNamespacesThatTheCallerHasEntered) {
  ExpectInside([] {
    CHECK_INSIDE(mkdir("first", 0777) == 0);
    CHECK_INSIDE(unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0);
    WriteFile("/proc/self/setgroups", "deny");
    WriteFile("/proc/self/uid_map", "5 0 1");
    WriteFile("/proc/self/gid_map", "5 0 1");
    CHECK_INSIDE(mount("tmpfs", "/tmp/first-made", "tmpfs", 0, nullptr) == 0);
    CHECK_INSIDE(mkdir("/tmp/first-made/second", 0777) == 0);
    CHECK_INSIDE(access("/tmp/first-made/second-made", F_OK) == 0);
    return 0;
  });
}

TEST(Mkdir, WithoutASuffixTheKernelMakesIt) {
  GuestOptions options = Renaming();
  options.policy.mkdir_suffix.reset();
  ExpectInside(
      [] {
        CHECK_INSIDE(mkdir("plain", 0777) == 0);
        CHECK_INSIDE(IsDirectory("/tmp/plain", 0755));
        return 0;
      },
      std::move(options));
}

}  // namespace
}  // namespace shunt
