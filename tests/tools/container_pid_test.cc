// SPDX-License-Identifier: Apache-2.0
// Which pid of a runtime's message is believed.

#include "tools/container_pid.h"

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/str_cat.h"

namespace shunt {
namespace {

constexpr uid_t kStranger = 7331;

struct ChildOptions {
  bool filtered = true;
  // As root only: the child is in a user namespace of kStranger, and runs as neither of us.
  bool in_namespace_of_stranger = false;
};

// A child that has made itself so, and then does nothing until it is killed.
class Child {
 public:
  explicit Child(const ChildOptions& options) {
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends_), 0);
    pid_ = fork();
    if (pid_ == 0) {
      Say(1, (!options.in_namespace_of_stranger || EnterNamespaceOfStranger()) &&
                 (!options.filtered || Filter()));
      pause();
      _exit(0);
    }
    if (options.in_namespace_of_stranger) Say(0, Heard(0) && MapUser());
    made_ = Heard(0);
  }
  ~Child() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    for (int end : ends_) close(end);
  }
  pid_t pid() const { return pid_; }
  bool made() const { return made_; }

 private:
  void Say(int end, bool yes) { EXPECT_EQ(write(ends_[end], yes ? "y" : "n", 1), 1); }
  bool Heard(int end) {
    char byte = 'n';
    return read(ends_[end], &byte, 1) == 1 && byte == 'y';
  }

  bool EnterNamespaceOfStranger() {
    const bool entered = setresuid(kStranger, kStranger, kStranger) == 0 && unshare(CLONE_NEWUSER) == 0;
    Say(1, entered);
    return Heard(1) && setresuid(0, 0, 0) == 0;
  }
  bool MapUser() {
    std::ofstream map(absl::StrCat("/proc/", pid_, "/uid_map"));
    map << "0 700000 1\n" << std::flush;
    return map.good();
  }
  static bool Filter() {
    sock_filter allow{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
    const sock_fprog program{1, &allow};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
  }

  int ends_[2] = {-1, -1};
  pid_t pid_ = 0;
  bool made_ = false;
};

TEST(TrustedPidTest, BelievesAFilteredProcessOfThePeersUser) {
  const Child child({});
  ASSERT_TRUE(child.made());
  EXPECT_EQ(TrustedPid(child.pid(), {getuid(), getpid()}), child.pid());
}

TEST(TrustedPidTest, DoesNotBelieveAProcessWithoutAFilter) {
  const Child child({.filtered = false});
  ASSERT_TRUE(child.made());
  EXPECT_EQ(TrustedPid(child.pid(), {getuid(), getpid()}), 0);
}

TEST(TrustedPidTest, DoesNotBelieveInAStrangersProcess) {
  if (getuid() != 0) GTEST_SKIP() << "only root can be several users";
  const Child child({});
  ASSERT_TRUE(child.made());
  EXPECT_EQ(TrustedPid(child.pid(), {kStranger, getpid()}), 0);
}

TEST(TrustedPidTest, BelievesAProcessInAUserNamespaceOfThePeersUser) {
  if (getuid() != 0) GTEST_SKIP() << "only root can be several users";
  const Child child({.in_namespace_of_stranger = true});
  if (!child.made()) GTEST_SKIP() << "user " << kStranger << " may not make user namespaces here";
  EXPECT_EQ(TrustedPid(child.pid(), {kStranger, getpid()}), child.pid());
  EXPECT_EQ(TrustedPid(child.pid(), {kStranger + 1, getpid()}), 0);
}

TEST(TrustedPidTest, DoesNotBelieveInPidsThatAreNotThere) {
  pid_t gone = 0;
  {
    const Child child({});
    gone = child.pid();
  }
  EXPECT_EQ(TrustedPid(gone, {getuid(), getpid()}), 0);
  EXPECT_EQ(TrustedPid(0, {getuid(), getpid()}), 0);
  EXPECT_EQ(TrustedPid(-1, {getuid(), getpid()}), 0);
}

TEST(TrustedPidTest, BelievesNothingOfAPeerInAnotherPidNamespace) {
  const Child child({});
  ASSERT_TRUE(child.made());
  EXPECT_EQ(TrustedPid(child.pid(), {getuid(), 0}), 0);
}

}  // namespace
}  // namespace shunt
