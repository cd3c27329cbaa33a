// SPDX-License-Identifier: Apache-2.0
// With whose rights a mkdir is done whose caller has changed them by executing a program, or hides.

#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_split.h"
#include "core/fd.h"
#include "tests/support/inside_checks.h"

namespace shunt {
namespace {

// Opened before the container hides the place where it lies.
Fd Program() {
  Fd program(open(INSIDE_CALLER, O_RDONLY));
  EXPECT_TRUE(program.valid()) << INSIDE_CALLER;
  return program;
}

// Inside: the program, as user 0's, with these mode bits, where everybody may execute it.
bool Place(const Fd& program, const char* as, mode_t mode) {
  std::error_code error;
  std::filesystem::copy_file("/proc/self/fd/" + std::to_string(program.get()), as, error);
  return !error && chown(as, 0, 0) == 0 && chmod(as, mode) == 0;
}

// Inside: executes it as this user. What it ends with.
int RunAs(uid_t user, const char* program, const std::vector<std::string>& steps) {
  const pid_t child = fork();
  if (child == 0) {
    if (user != 0 &&
        (setgroups(0, nullptr) != 0 || setresgid(user, user, user) != 0 || setresuid(user, user, user) != 0))
      _exit(254);
    std::vector<char*> argv{const_cast<char*>(program)};
    for (const std::string& step : steps) argv.push_back(const_cast<char*>(step.c_str()));
    argv.push_back(nullptr);
    execv(program, argv.data());
    _exit(253);
  }
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

bool IsOf(const char* path, uid_t user) {
  struct stat info {};
  return stat(path, &info) == 0 && info.st_uid == user;
}

bool BecomeRootInside() {
  return setresgid(0, 0, 0) == 0 && setresuid(0, 0, 0) == 0;
}

TEST(MkdirIdentity, OfASetuidProgramIsTheUsersThatItIsOf) {
  if (geteuid() != 0) GTEST_SKIP() << "takes root: a range of ids is to be mapped";
  GuestOptions options = Renaming();
  options.id_map = "0 700000 65536";
  GuestContainer container(std::move(options));
  const Fd program = Program();
  EXPECT_EQ(container.Run([&program] {
    CHECK_INSIDE(BecomeRootInside() && EnterTmpfs() && Place(program, "/tmp/plain", 0755) &&
                 Place(program, "/tmp/setuid", 04755));
    // Executed, so that it may be looked at.
    CHECK_INSIDE(RunAs(0, "/tmp/plain", {"/tmp/shut"}) == 0 && rename("/tmp/shut-made", "/tmp/shut") == 0);
    CHECK_INSIDE(chmod("/tmp/shut", 0700) == 0);
    CHECK_INSIDE(RunAs(1, "/tmp/plain", {"/tmp/shut/a"}) == EACCES);
    CHECK_INSIDE(RunAs(1, "/tmp/setuid", {"/tmp/shut/a"}) == 0);
    CHECK_INSIDE(IsOf("/tmp/shut/a-made", 0));
    // The rights are those of the moment.
    CHECK_INSIDE(RunAs(1, "/tmp/setuid", {"user=1", "/tmp/b", "user=0", "/tmp/shut/c"}) == 0);
    CHECK_INSIDE(IsOf("/tmp/b-made", 1) && IsOf("/tmp/shut/c-made", 0));
    CHECK_INSIDE(RunAs(1, "/tmp/setuid", {"user=1", "/tmp/shut/d"}) == EACCES);
    return 0;
  }),
            0)
      << container.error();
}

TEST(MkdirIdentity, OfAProgramThatHidesIsItsOwn) {
  const Fd program = Program();
  ExpectInside([&program] {
    CHECK_INSIDE(Place(program, "/tmp/plain", 0755));
    CHECK_INSIDE(RunAs(0, "/tmp/plain", {"hide", "/tmp/a"}) == 0);
    CHECK_INSIDE(IsOf("/tmp/a-made", 0));
    CHECK_INSIDE(RunAs(0, "/tmp/plain", {"hide", "/tmp/a"}) == EEXIST);
    CHECK_INSIDE(RunAs(0, "/tmp/plain", {"hide", "/tmp/nowhere/b"}) == ENOENT);
    return 0;
  });
}

// What becomes of a mkdir of each by a program at which nobody but this user's betters may look.
std::vector<int> ErrorsOfOneThatHides(uid_t user, const char* program,
                                      const std::vector<std::string>& paths) {
  std::vector<int> errors;
  for (const std::string& path : paths) errors.push_back(RunAs(user, program, {"hide", path}));
  return errors;
}

TEST(MkdirIdentity, OfAProgramThatHidesFailsAmongItsDescriptorsAsTheKernelWould) {
  if (geteuid() != 0) GTEST_SKIP() << "takes root: a range of ids is to be mapped";
  std::vector<std::string> paths;
  for (const std::string self : {"/proc/self/", "//proc//thread-self/"}) {
    for (const std::string& below : std::vector<std::string>(
             absl::StrSplit("fd fd/ fd/0 fd/0/ fd//0// fd/0/x fd/0/. fd/99 fd/99/ fd/99/x fd/word fd/word/ "
                            "fd/word/x fd/word/.. fd/00 "
                            "fd/12345678901234 fdinfo/0 fdinfo/0/ fdinfo/0/x fdinfo/99 fdinfo/word/x word/x",
                            ' ')))
      paths.push_back(self + below);
  }
  const Fd program = Program();
  const std::vector<int> natively = ErrorsOfOneThatHides(0, INSIDE_CALLER, paths);
  GuestOptions options = Renaming();
  options.policy.mkdir_suffix = "";  // a worker makes it all the same
  options.id_map = "0 700000 65536";
  GuestContainer container(std::move(options));
  EXPECT_EQ(container.Run([&] {
    CHECK_INSIDE(BecomeRootInside() && EnterTmpfs() && Place(program, "/tmp/plain", 0755));
    const std::vector<int> inside = ErrorsOfOneThatHides(1, "/tmp/plain", paths);
    int wrong = 0;
    for (size_t i = 0; i < paths.size(); ++i) {
      if (inside[i] == natively[i]) continue;
      fprintf(stderr, "%s: %s, natively %s\n", paths[i].c_str(), strerrorname_np(inside[i]),
              strerrorname_np(natively[i]));
      ++wrong;
    }
    return wrong;
  }),
            0)
      << container.error();
}

}  // namespace
}  // namespace shunt
