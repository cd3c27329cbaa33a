// SPDX-License-Identifier: Apache-2.0
// HeldDirectory: a directory on a FUSE mount, in which directories can be made, and whose server holds one
// request back until it is told to let go. So a test knows what a call is at when something happens to it:
// held at FUSE_MKDIR, whoever makes a directory is in the middle of that; at FUSE_LOOKUP, of finding the way.
//
//   const Shared<Hold> hold;                                 // before the container is made
//   hold->at = FUSE_MKDIR;
//   inside: HoldDirectory("/tmp/held", *hold); mkdir("/tmp/held/a", 0777);
//
// Root of a user namespace may mount FUSE, in a mount namespace of its own. The server is a process of its
// own, a child of the caller's.

#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>

namespace shunt {

// In memory that the test and the container share (tests/support/shared.h).
struct Hold {
  std::atomic<uint32_t> at = 0;        // which request is held, the first one of its kind; 0: none
  std::atomic<bool> holding = false;   // it has come
  std::atomic<bool> let_go = false;    // the test's: it may go on
  std::atomic<bool> answered = false;  // it has
  std::atomic<int> made = 0;           // directories, those that are being made included
};

// Inside: mounts it over `directory` and starts its server. The server's pid, or -1 with errno: there is no
// FUSE here. Names that begin with "deep" are directories from the beginning.
pid_t HoldDirectory(const char* directory, Hold& hold);

}  // namespace shunt
