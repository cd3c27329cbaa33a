// SPDX-License-Identifier: Apache-2.0
#include "tests/support/test_cgroup.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/fd.h"

namespace shunt {

std::string Text(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

bool Write(const std::string& path, const std::string& text) {
  const Fd file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  return write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

TestCgroup::TestCgroup(Hierarchy hierarchy) : hierarchy_(hierarchy) {
  std::string root = DirectoryOf(Text("/proc/self/mountinfo"), hierarchy, "/");
  if (root.empty() && hierarchy == Hierarchy::kUnified) {  // the arena hides it, and is a mount namespace
    root = absl::StrCat(::testing::TempDir(), "unified/");
    mkdir(root.c_str(), 0755);
    if (mount("cgroup2", root.c_str(), "cgroup2", 0, nullptr) != 0) root.clear();
  }
  path_ = absl::StrCat(root, "shunt-test-XXXXXX");  // an arena's pids are small and come again
  made_ = !root.empty() && mkdtemp(path_.data()) != nullptr;
}

TestCgroup::~TestCgroup() {
  if (!made_) return;
  for (int i = 0; i < 1000 && rmdir(path_.c_str()) != 0; ++i) usleep(1000);  // what it held is being reaped
}

bool TestCgroup::Take(pid_t pid) const {
  return Write(path_ + "/cgroup.procs", std::to_string(pid));
}

bool TestCgroup::IsFrozen() const {
  return hierarchy_ == Hierarchy::kUnified ? absl::StrContains(Text(path_ + "/cgroup.events"), "frozen 1")
                                           : absl::StartsWith(Text(path_ + "/freezer.state"), "FROZEN");
}

void TestCgroup::Set(bool frozen) const {
  if (hierarchy_ == Hierarchy::kUnified) {
    Write(path_ + "/cgroup.freeze", frozen ? "1" : "0");
  } else {
    Write(path_ + "/freezer.state", frozen ? "FROZEN" : "THAWED");
  }
}

}  // namespace shunt
