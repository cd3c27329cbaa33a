// SPDX-License-Identifier: Apache-2.0
// A program that a container executes to make directories, as tests want it to be at that moment: each
// argument is a step.
//
//   inside_caller hide /tmp/a user=1 /tmp/b
//
// "hide": nobody may look at it from now on. "user=N": that is its effective user. Anything else: mkdir of
// that. Ends with the errno of the first step that fails, or with 0.

#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string_view>

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view step(argv[i]);
    const int done = step == "hide" ? prctl(PR_SET_DUMPABLE, 0)
                     : step.starts_with("user=")
                         ? seteuid(static_cast<uid_t>(std::atoi(argv[i] + std::string_view("user=").size())))
                         : mkdir(argv[i], 0755);
    if (done != 0) return errno;
  }
  return 0;
}
