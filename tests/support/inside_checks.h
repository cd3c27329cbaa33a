// SPDX-License-Identifier: Apache-2.0
// What tests of calls that workers do have in common: a container whose mkdirs rename, and checks that are
// made in it, where GoogleTest's cannot be.
//
//   ExpectInside([] {
//     CHECK_INSIDE(mkdir("a", 0777) == 0);
//     CHECK_INSIDE(access("/tmp/a-made", F_OK) == 0);
//     return 0;
//   });

#pragma once

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <functional>
#include <utility>

#include "tests/support/guest_container.h"

namespace shunt {

// mkdir and mkdirat add "-made" to every name.
inline GuestOptions Renaming() {
  GuestOptions options;
  options.policy.mkdir_suffix = "-made";
  options.traps = {{"mkdir", {}}, {"mkdirat", {}}};
  options.more_namespaces = CLONE_NEWNS;
  return options;
}

// Inside: a tmpfs of the container's own, in which all of this happens.
inline bool EnterTmpfs() {
  return mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         mount("tmpfs", "/tmp", "tmpfs", 0, "mode=0777") == 0 && chdir("/tmp") == 0;
}

// Inside: the calling thread has none from here on.
inline bool DropCapabilities() {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, 2> none{};
  return syscall(SYS_capset, &header, none.data()) == 0;
}

// Inside: in a process of its own, which must end with 0.
inline bool InChild(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  return waitpid(child, &status, 0) == child && status == 0;
}

// In a container of its own; `body` returns 0, or the line that is wrong.
inline void ExpectInside(const std::function<int()>& body, GuestOptions options = Renaming()) {
  GuestContainer container(std::move(options));
  EXPECT_EQ(container.Run([&] { return EnterTmpfs() ? body() : 255; }), 0) << container.error();
}

#define CHECK_INSIDE(condition) \
  if (!(condition)) return fprintf(stderr, "line %d: errno %d\n", __LINE__, errno), __LINE__ % 250 + 1

}  // namespace shunt
