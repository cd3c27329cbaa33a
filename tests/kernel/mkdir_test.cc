// SPDX-License-Identifier: Apache-2.0
// mkdir and mkdirat under a policy that adds to every name: real calls, real workers.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "core/filter.h"
#include "tests/support/fresh_namespace.h"
#include "tests/support/inside_checks.h"

namespace shunt {
namespace {

bool IsDirectory(const char* path, mode_t mode) {
  struct stat info {};
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode) && (info.st_mode & 07777) == mode;
}

int CountEntries(const char* path) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path)) count += entry.is_directory() ? 1 : 0;
  return count;
}

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

// Sends a descriptor, and returns the one that has come; -1: none.
int PassOn(int socket, int fd) {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(fd))> control{};
  char byte = 0;
  iovec data{.iov_base = &byte, .iov_len = 1};
  msghdr message{
      .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.data(), .msg_controllen = control.size()};
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  if (fd >= 0) {
    *header = {.cmsg_len = CMSG_LEN(sizeof(fd)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    return sendmsg(socket, &message, 0) == 1 ? fd : -1;
  }
  if (recvmsg(socket, &message, 0) != 1 || CMSG_FIRSTHDR(&message) == nullptr) return -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
  return fd;
}

TEST(Mkdir, BeginsAtADirectoryThatAnotherProcessHasPassedOn) {
  ExpectInside([] {
    CHECK_INSIDE(mkdir("jail", 0777) == 0 && mkdir("theirs", 0777) == 0);
    std::array<int, 2> pair;
    CHECK_INSIDE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair.data()) == 0);
    const pid_t other = fork();
    if (other == 0) _exit(PassOn(pair[1], open("/tmp/theirs-made", O_RDONLY | O_DIRECTORY)) >= 0 ? 0 : 1);
    int status = 0;
    CHECK_INSIDE(waitpid(other, &status, 0) == other && status == 0);
    const int theirs = PassOn(pair[0], -1);
    CHECK_INSIDE(theirs >= 0);
    // Beyond the caller's root no path leads there; the descriptor does, natively as well.
    CHECK_INSIDE(chroot("jail-made") == 0 && chdir("/") == 0);
    CHECK_INSIDE(mkdirat(theirs, "a", 0777) == 0);
    CHECK_INSIDE(mkdirat(theirs, "../beside", 0777) == 0);
    CHECK_INSIDE(faccessat(theirs, "a-made", F_OK, 0) == 0 &&
                 faccessat(theirs, "../beside-made", F_OK, 0) == 0);
    CHECK_INSIDE(mkdirat(theirs, "/rooted", 0777) == 0);
    CHECK_INSIDE(IsDirectory("/rooted-made", 0755));
    return 0;
  });
}

TEST(Mkdir, BeginsAtADescriptorThatCanOnlyBeAPlace) {
  ExpectInside([] {
    CHECK_INSIDE(mkdir("here", 0777) == 0);
    const int place = open("here-made", O_PATH | O_DIRECTORY);
    CHECK_INSIDE(mkdirat(place, "a", 0777) == 0);
    CHECK_INSIDE(IsDirectory("here-made/a-made", 0755));
    CHECK_INSIDE(symlink("here-made", "link") == 0 && close(open("file", O_CREAT | O_RDWR, 0600)) == 0);
    for (const char* none : {"link", "file"}) {
      const int fd = open(none, O_PATH | O_NOFOLLOW);
      CHECK_INSIDE(mkdirat(fd, "b", 0777) != 0 && errno == ENOTDIR);
    }
    // Removed, but still held.
    CHECK_INSIDE(rmdir("here-made/a-made") == 0 && rmdir("here-made") == 0);
    CHECK_INSIDE(mkdirat(place, "c", 0777) != 0 && errno == ENOENT);
    CHECK_INSIDE(close(place) == 0 && mkdirat(place, "d", 0777) != 0 && errno == EBADF);
    return 0;
  });
}

// Whose descriptor another thread closes or exchanges all the time gets what the kernel could have given it.
TEST(Mkdir, OfADescriptorThatComesAndGoesSeesOneOfItsFilesOrNone) {
  ExpectInside([] {
    CHECK_INSIDE(mkdir("one", 0777) == 0 && mkdir("two", 0777) == 0);
    const int one = open("one-made", O_RDONLY | O_DIRECTORY), two = open("two-made", O_RDONLY | O_DIRECTORY);
    const int file = open("file", O_CREAT | O_RDWR, 0600), moving = dup(one);
    std::atomic<bool> enough = false;
    std::thread mover([&] {
      while (!enough) {
        for (const int to : {one, file, two}) dup2(to, moving);
        close(moving);
      }
    });
    int made = 0, missed = 0, wrong = 0;
    for (int i = 0; i < 1500; ++i) {
      const bool ok = mkdirat(moving, std::to_string(i).c_str(), 0777) == 0;
      ok ? ++made : errno == EBADF || errno == ENOTDIR ? ++missed : ++wrong;
    }
    enough = true;
    mover.join();
    CHECK_INSIDE(wrong == 0 && made > 0 && missed > 0);
    CHECK_INSIDE(CountEntries("one-made") + CountEntries("two-made") == made);
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

// Inside: `count` directories, each by a call of its own that must succeed. 0, or the errno of the first that
// did not.
int MakeMany(const std::string& prefix, int count) {
  for (int i = 0; i < count; ++i) {
    if (mkdir((prefix + std::to_string(i)).c_str(), 0700) != 0) return errno;
  }
  return 0;
}

constexpr int kThreads = 4;

// Several threads at once; `each` directories of each.
int MakeInThreads(int each) {
  std::vector<std::thread> threads;
  std::array<int, kThreads> errors{};
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&errors, i, each] {
      errors[static_cast<size_t>(i)] = MakeMany("t" + std::to_string(i) + "-", each);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const int error : errors) {
    if (error != 0) return error;
  }
  return CountEntries("/tmp") == kThreads * each ? 0 : 254;
}

TEST(Mkdir, ServesThreadsAtOnce) {
  ExpectInside([] { return MakeInThreads(500); });
}

TEST(Mkdir, HappensOnceWhateverBecomesOfTheEngine) {
  for (int die_after = 0; die_after < 20; die_after += 2) {
    GuestOptions options = Renaming();
    int looks = 0;
    options.engine_dies = [&looks, die_after] { return looks++ == die_after; };
    ExpectInside([] { return MakeInThreads(300); }, std::move(options));
  }
}

TEST(Mkdir, HappensOnceWhateverBecomesOfTheWorkers) {
  GuestOptions options = Renaming();
  const GuestContainer* running = nullptr;
  size_t killed = 0;
  int looks = 0;
  options.meanwhile = [&](pid_t) {
    // Not each at once: somebody has to get something done.
    if (++looks % 8 != 0 || killed >= 12 || killed >= running->workers().size()) return;
    kill(running->workers()[killed++], SIGKILL);
  };
  GuestContainer container(std::move(options));
  running = &container;
  EXPECT_EQ(container.Run([] { return EnterTmpfs() ? MakeInThreads(2000) : 255; }), 0) << container.error();
  EXPECT_GT(killed, 1u);
}

// Inside, with a signal every so many microseconds: makes `count` new names. Counts EEXIST; any other errno
// is returned.
int MakeUnderSignals(int count, int every, int& exist) {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  action.sa_flags = SA_RESTART;
  sigaction(SIGALRM, &action, nullptr);
  const itimerval often{.it_interval = {0, every}, .it_value = {0, every}}, never{};
  setitimer(ITIMER_REAL, &often, nullptr);
  int wrong = 0;
  for (int i = 0; i < count; ++i) {
    if (mkdir(("s" + std::to_string(i)).c_str(), 0700) == 0) continue;
    errno == EEXIST ? void(++exist) : void(wrong = errno);
  }
  setitimer(ITIMER_REAL, &never, nullptr);
  return wrong;
}

TEST(Mkdir, HappensOnceWhateverSignalsCome) {
  if (!HasWaitKillable()) GTEST_SKIP() << "the kernel has no SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (5.19)";
  GuestOptions options = Renaming();
  options.wait_killable = true;
  ExpectInside(
      [] {
        int exist = 0;
        if (const int wrong = MakeUnderSignals(3000, 150, exist); wrong != 0) return wrong;
        CHECK_INSIDE(exist == 0);
        return CountEntries("/tmp") == 3000 ? 0 : 254;
      },
      std::move(options));
}

// A signal that comes in the same instant as the answer makes the kernel restart the call and throw the
// answer away, and nobody is told: SEND has succeeded. That is rare, and the price of a filter without
// WAIT_KILLABLE.
TEST(Mkdir, OfAnInterruptedCallsAnswersAlmostNoneIsLostWithoutWaitKillable) {
  ExpectInside([] {
    int exist = 0;
    // No faster: a call that is never let finish is restarted for ever.
    if (const int wrong = MakeUnderSignals(3000, 1000, exist); wrong != 0) return wrong;
    CHECK_INSIDE(exist < 30);
    return CountEntries("/tmp") == 3000 ? 0 : 254;
  });
}

// A worker takes longer to start than the signals are apart: it is started once, and not for a call that
// lasts.
TEST(Mkdir, TheFirstOneHappensOnceHoweverOftenSignalsInterruptIt) {
  for (const bool tell_pid : {true, false, true, false}) {
    GuestOptions options = Renaming();
    options.tell_pid = tell_pid;
    GuestContainer container(std::move(options));
    EXPECT_EQ(container.Run([] {
      int exist = 0;  // as above
      if (!EnterTmpfs()) return 255;
      if (const int wrong = MakeUnderSignals(1, 1000, exist); wrong != 0) return wrong;
      return CountEntries("/tmp") == 1 ? 0 : 254;
    }),
              0)
        << container.error();
    EXPECT_EQ(container.workers().size(), 1u);
  }
}

TEST(Mkdir, FindsAWorkerThatWasStartedBeforeTheFirstCall) {
  for (const bool wanted : {true, false}) {
    GuestOptions options = Renaming();
    if (!wanted) options.policy.mkdir_suffix.reset();
    GuestContainer container(std::move(options));
    EXPECT_EQ(container.Run([] { return 0; }), 0) << container.error();
    EXPECT_EQ(container.workers().size(), wanted ? 1u : 0u);
  }
  GuestContainer container(Renaming());
  EXPECT_EQ(container.Run([] { return EnterTmpfs() && mkdir("a", 0777) == 0 ? 0 : 255; }), 0)
      << container.error();
  EXPECT_EQ(container.workers().size(), 1u);
}

// What a worker may reach is what the caller may.
TEST(Mkdir, GivesNoRightThatTheCallerHasNot) {
  std::string foreign = "/tmp/shunt-foreign-XXXXXX";
  ASSERT_NE(mkdtemp(foreign.data()), nullptr);
  const bool root = geteuid() == 0;
  ASSERT_TRUE(!root || chown(foreign.c_str(), 12345, 12345) == 0);
  GuestContainer container(Renaming());
  EXPECT_EQ(container.Run([&] {
    if (root) {
      // Of a user that the container's namespace does not have: its root's capabilities end there.
      CHECK_INSIDE(mkdir((foreign + "/a").c_str(), 0777) != 0 && errno == EACCES);
    }
    CHECK_INSIDE(EnterTmpfs());
    CHECK_INSIDE(syscall(SYS_mkdirat, AT_FDCWD, "own", 0500) == 0);
    CHECK_INSIDE(mkdir("own-made/b", 0777) == 0);  // by CAP_DAC_OVERRIDE
    __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    std::array<__user_cap_data_struct, 2> none{};
    CHECK_INSIDE(syscall(SYS_capset, &header, none.data()) == 0);
    CHECK_INSIDE(mkdir("own-made/c", 0777) != 0 && errno == EACCES);
    return 0;
  }),
            0)
      << container.error();
  EXPECT_EQ(rmdir(foreign.c_str()), 0);
}

}  // namespace
}  // namespace shunt
