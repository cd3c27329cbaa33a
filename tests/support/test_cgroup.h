// SPDX-License-Identifier: Apache-2.0
// TestCgroup: a real control group of a test's own, in either hierarchy, to freeze processes by.

#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <string>

#include "core/cgroup.h"

namespace shunt {

// What a file of /proc or a control group says; empty: nothing, or it cannot be read.
std::string Text(const std::string& path);
// False: the kernel does not take it.
bool Write(const std::string& path, const std::string& text);

// Removed at the end, when all that was in it is dead.
class TestCgroup {
 public:
  explicit TestCgroup(Hierarchy hierarchy);
  ~TestCgroup();
  TestCgroup(const TestCgroup&) = delete;
  TestCgroup& operator=(const TestCgroup&) = delete;

  bool made() const { return made_; }
  bool Take(pid_t pid) const;
  // Begins to. A process that waits in a call it cannot be taken out of is frozen when that is over.
  void Freeze() const { Set(true); }
  bool IsFrozen() const;
  void Thaw() const { Set(false); }

 private:
  void Set(bool frozen) const;

  const Hierarchy hierarchy_;
  std::string path_;
  bool made_ = false;
};

#define NEED_CGROUP(cgroup) \
  if (!(cgroup).made())     \
  GTEST_SKIP() << "no cgroup of this hierarchy can be made here: not root, or not mounted"

}  // namespace shunt
