// SPDX-License-Identifier: Apache-2.0
// Attacks on the workers that do calls inside containers (core/worker.h), by mkdir: each tries to have a
// directory made where the caller could not make one, to get hold of a worker, or to wear workers out.

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "core/fd.h"
#include "handlers/workers.h"
#include "tests/support/fresh_namespace.h"
#include "tests/support/inside_checks.h"
#include "tests/support/shared.h"

namespace shunt {
namespace {

namespace fs = std::filesystem;

constexpr int kTries = 1500;

// mkdir itself is trapped, and renames.
bool MakePlain(const char* name, mode_t mode) {
  const std::string made = std::string(name) + "-made";
  return mkdir(name, mode) == 0 && chmod(made.c_str(), mode) == 0 && rename(made.c_str(), name) == 0;
}

int ErrorOfMaking(const std::string& path) {
  return mkdir(path.c_str(), 0777) == 0 ? 0 : errno;
}

int CountEntries(const std::string& path) {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(path)) ++count;
  return count;
}

// A program that changes its rights without exec may not be looked at from inside; let it be.
bool LetBeSeen() {
  return prctl(PR_SET_DUMPABLE, 1) == 0;
}

// A user namespace within the container's, and a mount namespace.
bool EnterNested(const char* id_map) {
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0 || !LetBeSeen()) return false;
  WriteFile("/proc/self/setgroups", "deny");
  WriteFile("/proc/self/uid_map", id_map);
  WriteFile("/proc/self/gid_map", id_map);
  return true;
}

// While it lives, another thread does `step` over and over.
class Meddler {
 public:
  explicit Meddler(const std::function<void()>& step)
      : thread_([this, step] {
          while (!enough_) step();
        }) {}
  ~Meddler() {
    enough_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> enough_ = false;
  std::thread thread_;
};

// ---- paths

TEST(Inside, NoSymlinkThatComesAndGoesLeadsOutOfTheCallersRoot) {
  ExpectInside([] {
    CHECK_INSIDE(MakePlain("outside", 0777) && MakePlain("jail", 0777) && MakePlain("jail/d", 0777));
    CHECK_INSIDE(symlink("/../../outside", "jail/s") == 0 && symlink("../../outside", "jail/t") == 0);
    CHECK_INSIDE(InChild([] {
      CHECK_INSIDE(chroot("jail") == 0 && chdir("/") == 0 && DropCapabilities());
      const Meddler flips([] {
        renameat2(AT_FDCWD, "d", AT_FDCWD, "s", RENAME_EXCHANGE);
        renameat2(AT_FDCWD, "d", AT_FDCWD, "t", RENAME_EXCHANGE);
      });
      int made = 0;
      for (int i = 0; i < kTries; ++i) {
        const std::string name = std::to_string(i);
        for (const std::string& path : {"d/" + name, "/d/../d/" + name, "/../../outside/" + name})
          made += ErrorOfMaking(path) == 0;
      }
      CHECK_INSIDE(made > 0);
      return 0;
    }));
    CHECK_INSIDE(CountEntries("outside") == 0);
    return 0;
  });
}

TEST(Inside, NoFlippedPathOrLinkMakesAnythingInAClosedDirectory) {
  ExpectInside([] {
    CHECK_INSIDE(MakePlain("open", 0777) && MakePlain("shut", 0500));
    CHECK_INSIDE(symlink("shut", "link") == 0 && DropCapabilities());
    std::array<char, 64> path{"open/x"};
    std::array<volatile char*, 4> letters{&path[0], &path[1], &path[2], &path[3]};
    const Meddler flips([&] {
      for (const char* word : {"shut", "open"}) {
        for (size_t i = 0; i < letters.size(); ++i) *letters[i] = word[i];
        renameat2(AT_FDCWD, "open", AT_FDCWD, "link", RENAME_EXCHANGE);
      }
    });
    for (int i = 0; i < kTries; ++i) {
      snprintf(path.data() + 5, path.size() - 5, "%d", i);
      mkdir(path.data(), 0777);
      mkdir(("open/and" + std::to_string(i)).c_str(), 0777);
    }
    CHECK_INSIDE(CountEntries("shut") == 0);
    return 0;
  });
}

TEST(Inside, WorkingDirectoryAndDescriptorThatChangeMeanwhileAreOneOfTheCallersOwn) {
  ExpectInside([] {
    CHECK_INSIDE(MakePlain("a", 0777) && MakePlain("b", 0777));
    const int a = open("a", O_PATH | O_DIRECTORY), b = open("b", O_PATH | O_DIRECTORY);
    const int moving = dup(a);
    CHECK_INSIDE(fchdir(a) == 0);
    int made = 0;
    {
      // Threads share their working directory and their descriptors.
      const Meddler moves([&] {
        for (const int to : {a, b}) dup2(to, moving), fchdir(to), close(moving);
      });
      for (int i = 0; i < kTries; ++i) {
        made += mkdir(("cwd" + std::to_string(i)).c_str(), 0777) == 0;
        made += mkdirat(moving, ("fd" + std::to_string(i)).c_str(), 0777) == 0;
      }
    }
    const int there = CountEntries("/tmp/a") + CountEntries("/tmp/b");
    CHECK_INSIDE(made >= kTries / 2 && there == made);
    CHECK_INSIDE(CountEntries("/tmp") == 2);
    return 0;
  });
}

TEST(Inside, PathsAtTheEdgeOfMemory) {
  ExpectInside([] {
    constexpr size_t kPage = 4096;
    char* const pages = static_cast<char*>(
        mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    CHECK_INSIDE(munmap(pages + kPage, kPage) == 0);
    char* const end = pages + kPage;
    std::memcpy(end - 2, "a", 2);
    CHECK_INSIDE(mkdir(end - 2, 0777) == 0);
    std::memset(pages, 'b', kPage);
    CHECK_INSIDE(mkdir(end - 2, 0777) != 0 && errno == EFAULT);
    CHECK_INSIDE(mkdir(end, 0777) != 0 && errno == EFAULT);
    CHECK_INSIDE(mkdir(reinterpret_cast<char*>(~0UL), 0777) != 0 && errno == EFAULT);
    CHECK_INSIDE(mkdir(pages, 0777) != 0 && errno == ENAMETOOLONG);
    // As long as a path may be; the suffix makes it too long.
    std::string longest;
    while (longest.size() < PATH_MAX - 3) longest += "./";
    CHECK_INSIDE(ErrorOfMaking(longest + "c") == ENAMETOOLONG);
    CHECK_INSIDE(ErrorOfMaking(longest.substr(10) + "c") == 0);
    CHECK_INSIDE(access("a-made", F_OK) == 0 && access("c-made", F_OK) == 0 && CountEntries("/tmp") == 2);
    return 0;
  });
}

// The worker's pid, in the pid namespace that the container shares.
pid_t FindWorker() {
  for (const auto& entry : fs::directory_iterator("/proc")) {
    std::ifstream comm(entry.path() / "comm");
    std::string name;
    std::getline(comm, name);
    if (name == "shunt-worker") return std::atoi(entry.path().filename().c_str());
  }
  return 0;
}

// Its root, working directory and descriptors lead to the host's files and to the engine's memory.
TEST(Inside, NoPathLeadsToWhatTheWorkerHasOpen) {
  ExpectInside([] {
    CHECK_INSIDE(ErrorOfMaking("first") == 0);
    const pid_t worker = FindWorker();
    CHECK_INSIDE(worker > 0);
    std::vector<std::string> places = {"cwd", "root", "task/self/cwd", "../thread-self/cwd", "ns/mnt"};
    for (int fd = 0; fd < 16; ++fd) places.push_back("fd/" + std::to_string(fd));
    for (const std::string& self : {std::string("self"), std::to_string(worker)}) {
      for (const std::string& place : places) {
        const std::string target = "/proc/" + self + "/" + place;
        unlink("link");
        CHECK_INSIDE(symlink(target.c_str(), "link") == 0);
        CHECK_INSIDE(ErrorOfMaking("link/x") != 0 && ErrorOfMaking("link/../x") != 0);
        CHECK_INSIDE(ErrorOfMaking("/tmp/link/tmp/x") != 0);
        CHECK_INSIDE(ErrorOfMaking("/tmp/../" + target + "/x") != 0);
      }
    }
    unlink("link");
    CHECK_INSIDE(symlink("/proc/self", "link") == 0);
    CHECK_INSIDE(ErrorOfMaking("link/cwd/x") != 0 && ErrorOfMaking("link/fd/4/x") != 0);
    CHECK_INSIDE(access("x-made", F_OK) != 0 && CountEntries("/tmp") == 2);
    return 0;
  });
}

// The worker looks at the caller's descriptors with its own rights, in a /proc of its own.
TEST(Inside, NoDotsAmongTheCallersDescriptorsLeadOutOfItsMounts) {
  const std::string name = "/tmp/shunt-escape-" + std::to_string(getpid()) + "-";
  std::vector<std::string> paths;
  for (const char* self : {"self", "thread-self"}) {
    for (const char* folder : {"fd", "fdinfo"}) {
      for (const char* dots : {".", "..", "./..", ".././.", "0/..", "../fd/."}) {
        const std::string below = std::string("/proc/") + self + "/" + folder + "/" + dots;
        paths.push_back(below + "/../../../../../.." + name + std::to_string(paths.size()));
      }
    }
  }
  ExpectInside([&] {
    for (const std::string& path : paths) ErrorOfMaking(path);
    return 0;
  });
  for (size_t i = 0; i < paths.size(); ++i)
    EXPECT_NE(rmdir((name + std::to_string(i) + "-made").c_str()), 0) << paths[i];
}

// ---- rights

TEST(Inside, NobodyInsideGetsHoldOfAWorker) {
  ExpectInside([] {
    CHECK_INSIDE(ErrorOfMaking("first") == 0);
    const pid_t worker = FindWorker();
    CHECK_INSIDE(worker > 0);
    const std::string proc = "/proc/" + std::to_string(worker) + "/";
    CHECK_INSIDE(ptrace(PTRACE_SEIZE, worker, 0, 0) != 0 && errno == EPERM);
    for (const char* file : {"mem", "environ", "root/.", "cwd/.", "fd/3", "ns/user", "maps"})
      CHECK_INSIDE(open((proc + file).c_str(), O_RDONLY) < 0);
    std::array<char, 8> bytes{};
    iovec here{bytes.data(), bytes.size()}, there{reinterpret_cast<void*>(0x400000), bytes.size()};
    CHECK_INSIDE(process_vm_readv(worker, &here, 1, &there, 1, 0) < 0 && errno == EPERM);
    const Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, worker, 0)));
    for (int fd = 0; fd < 16; ++fd) CHECK_INSIDE(syscall(SYS_pidfd_getfd, pidfd.get(), fd, 0) < 0);
    CHECK_INSIDE(ErrorOfMaking("second") == 0);
    return 0;
  });
}

TEST(Inside, AWorkerHasOnlyTheDescriptorsThatItNeeds) {
  if (geteuid() != 0) GTEST_SKIP() << "a user may not see what a process has open that is not dumpable";
  GuestOptions options = Renaming();
  const GuestContainer* running = nullptr;
  std::set<std::string> open_there;
  options.meanwhile = [&](pid_t) {
    for (const pid_t worker : running->workers()) {
      const std::string proc = "/proc/" + std::to_string(worker);
      std::ifstream comm(proc + "/comm");
      std::string name;
      std::getline(comm, name);
      std::error_code ignored;
      if (name != "shunt-worker") continue;
      for (const auto& entry : fs::directory_iterator(proc + "/fd", ignored)) {
        if (std::atoi(entry.path().filename().c_str()) <= STDERR_FILENO) continue;
        const std::string what = fs::read_symlink(entry.path(), ignored).string();
        if (!what.empty()) open_there.insert(what.substr(0, what.find_first_of("[0123456789")));
      }
    }
  };
  GuestContainer container(std::move(options));
  running = &container;
  EXPECT_EQ(container.Run([] {
    if (!EnterTmpfs()) return 255;
    for (int i = 0; i < kTries; ++i) CHECK_INSIDE(ErrorOfMaking("d" + std::to_string(i)) == 0);
    return 0;
  }),
            0);
  for (const std::string& one : open_there) {
    EXPECT_TRUE(one == "socket:" || one == "/proc" || one.starts_with("anon_inode:seccomp notify") ||
                one.starts_with("/memfd:") || one == "user:" || one == "mnt:" || one.starts_with("/tmp") ||
                one.starts_with("/proc/"))
        << one;
  }
  EXPECT_TRUE(open_there.contains("socket:"));
}

TEST(Inside, CapabilitiesOfANestedUserNamespaceEndThere) {
  ExpectInside([] {
    CHECK_INSIDE(MakePlain("shut", 0500));
    CHECK_INSIDE(InChild([] {
      CHECK_INSIDE(DropCapabilities() && ErrorOfMaking("shut/a") == EACCES);
      // All capabilities, over nothing: not even its own number is known there.
      CHECK_INSIDE(unshare(CLONE_NEWUSER) == 0 && LetBeSeen());
      CHECK_INSIDE(ErrorOfMaking("shut/b") != 0 && ErrorOfMaking("/tmp/shut/b") != 0);
      return 0;
    }));
    CHECK_INSIDE(CountEntries("shut") == 0);
    CHECK_INSIDE(ErrorOfMaking("shut/c") == 0);
    return 0;
  });
}

// What a process in a nested namespace does takes nothing from those outside.
TEST(Inside, CallsFromNestedNamespacesLeaveOthersAlone) {
  ExpectInside([] {
    CHECK_INSIDE(ErrorOfMaking("before") == 0);
    for (int i = 0; i < 3; ++i) {
      const std::string name = std::to_string(i);
      CHECK_INSIDE(InChild([&] {
        CHECK_INSIDE(EnterNested("5 0 1"));
        CHECK_INSIDE(ErrorOfMaking("nested" + name) == 0);
        return 0;
      }));
      CHECK_INSIDE(ErrorOfMaking("after" + name) == 0);
    }
    return 0;
  });
}

TEST(Inside, WhoCannotBeLookedAtGainsNothingAndHoldsUpNobody) {
  ExpectInside([] {
    CHECK_INSIDE(MakePlain("shut", 0500));
    CHECK_INSIDE(InChild([] {
      CHECK_INSIDE(DropCapabilities() && prctl(PR_SET_DUMPABLE, 0) == 0);
      CHECK_INSIDE(ErrorOfMaking("shut/a") != 0);
      return 0;
    }));
    CHECK_INSIDE(CountEntries("shut") == 0 && ErrorOfMaking("shut/b") == 0);
    return 0;
  });
}

// ---- groups

constexpr gid_t kForeignGroup = 4242;

// This process, which plays the agent, has a group that the container's namespace does not know; there is a
// directory for that group.
class Groups : public testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "takes root: groups are to be set, and a range of ids mapped";
    ASSERT_NE(mkdtemp(foreign_.data()), nullptr);
    ASSERT_EQ(chown(foreign_.c_str(), 0, kForeignGroup), 0);
    ASSERT_EQ(chmod(foreign_.c_str(), 0770), 0);
    ASSERT_EQ(setgroups(1, &kForeignGroup), 0);
    options_.id_map = "0 700000 65536";
  }
  void TearDown() override {
    setgroups(0, nullptr);
    fs::remove_all(foreign_);
  }

  std::string foreign_ = "/tmp/shunt-foreign-XXXXXX";
  GuestOptions options_ = Renaming();
};

bool BecomeRootInside() {
  return setresgid(0, 0, 0) == 0 && setresuid(0, 0, 0) == 0 && LetBeSeen();
}

TEST_F(Groups, OneThatOnlyLooksTheSameIsNotTheCallers) {
  GuestContainer container(std::move(options_));
  EXPECT_EQ(container.Run([this] {
    CHECK_INSIDE(BecomeRootInside());
    // Has workers started, which come by this process's groups.
    for (int i = 0; i < 20; ++i) ErrorOfMaking(foreign_ + "/a" + std::to_string(i));
    // In the container's numbers the foreign group looks like this one.
    const gid_t overflow = 65534;
    CHECK_INSIDE(setgroups(1, &overflow) == 0);
    for (int i = 0; i < 20; ++i) CHECK_INSIDE(ErrorOfMaking(foreign_ + "/b") == EACCES);
    return 0;
  }),
            0)
      << container.error();
  EXPECT_FALSE(fs::exists(foreign_ + "/b-made"));
}

TEST_F(Groups, ThoseOfTheAgentAreNotTheWorkers) {
  GuestContainer container(std::move(options_));
  EXPECT_EQ(container.Run([this] {
    CHECK_INSIDE(BecomeRootInside());
    std::vector<gid_t> many(Identity::kGroups + 1);
    for (size_t i = 0; i < many.size(); ++i) many[i] = static_cast<gid_t>(i);
    CHECK_INSIDE(setgroups(many.size(), many.data()) == 0);
    CHECK_INSIDE(ErrorOfMaking(foreign_ + "/a") == EPERM);
    const gid_t overflow = 65534;
    CHECK_INSIDE(setgroups(1, &overflow) == 0);
    CHECK_INSIDE(ErrorOfMaking(foreign_ + "/b") == EACCES);
    many.resize(Identity::kGroups);
    CHECK_INSIDE(setgroups(many.size(), many.data()) == 0);
    CHECK_INSIDE(ErrorOfMaking(foreign_ + "/c") == EACCES);
    return 0;
  }),
            0)
      << container.error();
  EXPECT_EQ(CountEntries(foreign_), 0);
}

// A user of the container with a user namespace of its own, in which it is root: over its own files only.
TEST_F(Groups, RootOfANestedNamespaceIsNotTheContainersRoot) {
  GuestContainer container(std::move(options_));
  EXPECT_EQ(container.Run([] {
    CHECK_INSIDE(BecomeRootInside() && setgroups(0, nullptr) == 0 && EnterTmpfs());
    CHECK_INSIDE(MakePlain("shut", 0700) && MakePlain("own", 0777));
    CHECK_INSIDE(InChild([] {
      CHECK_INSIDE(setresgid(1, 1, 1) == 0 && setresuid(1, 1, 1) == 0 && LetBeSeen());
      CHECK_INSIDE(ErrorOfMaking("shut/a") == EACCES);
      CHECK_INSIDE(EnterNested("0 1 1"));
      CHECK_INSIDE(ErrorOfMaking("own/a") == 0);
      CHECK_INSIDE(ErrorOfMaking("shut/b") == EACCES);
      return 0;
    }));
    CHECK_INSIDE(CountEntries("shut") == 0 && ErrorOfMaking("shut/c") == 0);
    return 0;
  }),
            0)
      << container.error();
}

// ---- wearing out

TEST(Inside, ManyNestedNamespacesStartWorkersAtABoundedRate) {
  GuestContainer container(Renaming());
  constexpr int kNested = 100;
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(container.Run([] {
    if (!EnterTmpfs()) return 255;
    for (int i = 0; i < kNested; ++i) {
      CHECK_INSIDE(InChild([i] {
        CHECK_INSIDE(EnterNested("0 0 1"));
        CHECK_INSIDE(ErrorOfMaking("n" + std::to_string(i)) == 0);
        return 0;
      }));
    }
    return CountEntries("/tmp") == kNested ? 0 : 254;
  }),
            0)
      << container.error() << container.warnings();
  const auto took = std::chrono::steady_clock::now() - begin;
  EXPECT_GE(container.workers().size(), static_cast<size_t>(kNested));
  // A container is at home on one reactor.
  const int64_t late = static_cast<int64_t>(container.workers().size()) - Workers::kStartsAtOnce;
  const std::chrono::nanoseconds least(late * Workers::kBetweenStarts);
  EXPECT_GE(took, least);
}

TEST(Inside, ACallWaitsForTheDeskOfAWorkerThatIsSlowToLeave) {
  // Longer than it takes to look at the desk a thousand times.
  constexpr auto kSlow = std::chrono::seconds(3);
  const Shared<std::atomic<bool>> all_are_there, oldest_stopped;
  GuestOptions options = Renaming();
  GuestContainer* running = nullptr;
  std::chrono::steady_clock::time_point let_go;
  options.meanwhile = [&](pid_t) {
    if (!*all_are_there) return;
    const pid_t oldest = running->workers().at(0);
    if (!*oldest_stopped) {
      kill(oldest, SIGSTOP);
      let_go = std::chrono::steady_clock::now() + kSlow;
      *oldest_stopped = true;
    } else if (std::chrono::steady_clock::now() > let_go) {
      kill(oldest, SIGCONT);
    }
  };
  GuestContainer container(std::move(options));
  running = &container;
  EXPECT_EQ(container.Run([&] {
    if (!EnterTmpfs()) return 255;
    CHECK_INSIDE(ErrorOfMaking("first") == 0);
    // Each of the others gives way to nobody before the first one does.
    for (size_t i = 1; i <= Workers::kMost; ++i) {
      if (i == Workers::kMost) {
        *all_are_there = true;
        while (!*oldest_stopped) sched_yield();
      }
      CHECK_INSIDE(InChild([i] {
        CHECK_INSIDE(EnterNested("0 0 1"));
        CHECK_INSIDE(ErrorOfMaking("n" + std::to_string(i)) == 0);
        return 0;
      }));
    }
    return 0;
  }),
            0)
      << container.error() << container.warnings();
  EXPECT_GT(std::chrono::steady_clock::now(), let_go) << "nobody has waited for it";
}

// Has it ended? It stays to be collected by whoever has started it.
bool HasEnded(pid_t pid) {
  siginfo_t info{};
  return waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

TEST(Inside, NoWorkerOutlivesItsContainer) {
  GuestContainer container(Renaming());
  EXPECT_EQ(container.Run([] {
    if (!EnterTmpfs()) return 255;
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 4; ++thread) {
      threads.emplace_back([thread] {
        for (int i = 0; i < 200; ++i) ErrorOfMaking(std::to_string(thread) + "-" + std::to_string(i));
      });
    }
    for (std::thread& thread : threads) thread.join();
    return 0;
  }),
            0);
  ASSERT_FALSE(container.workers().empty());
  const auto late = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  for (const pid_t worker : container.workers()) {
    while (!HasEnded(worker) && std::chrono::steady_clock::now() < late) std::this_thread::yield();
    EXPECT_TRUE(HasEnded(worker)) << worker;
  }
}

TEST(Inside, AFilesystemThatNeverAnswersHoldsUpOnlyItsOwnCalls) {
  const Fd device(open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!device.valid()) GTEST_SKIP() << "no /dev/fuse: " << strerror(errno);
  ExpectInside([&device] {
    CHECK_INSIDE(MakePlain("silent", 0777));
    // Opened in this namespace: else it may not be mounted here.
    const int fuse = open("/dev/fuse", O_RDWR);
    CHECK_INSIDE(fuse >= 0);
    const std::string how = "rootmode=40000,user_id=0,group_id=0,fd=" + std::to_string(fuse);
    CHECK_INSIDE(mount("silent", "silent", "fuse", MS_NOSUID | MS_NODEV, how.c_str()) == 0);
    std::array<pid_t, Workers::kMost - 1> stuck{};
    for (pid_t& one : stuck) {
      one = fork();
      if (one == 0) {
        close(fuse);
        _exit(mkdir("silent/a/b", 0777) == 0 ? 1 : 0);
      }
    }
    for (int i = 0; i < 300; ++i) CHECK_INSIDE(ErrorOfMaking("d" + std::to_string(i)) == 0);
    for (const pid_t one : stuck) CHECK_INSIDE(waitpid(one, nullptr, WNOHANG) == 0);
    close(fuse);  // ends the filesystem, and with it their waits
    for (const pid_t one : stuck) {
      int status = 0;
      CHECK_INSIDE(waitpid(one, &status, 0) == one && status == 0);
    }
    return 0;
  });
}

}  // namespace
}  // namespace shunt
