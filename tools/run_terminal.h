// SPDX-License-Identifier: Apache-2.0
// Terminal: how `shunt run` and the command behind it stand to the terminal, and the words that its processes
// exchange.
//
// `shunt run` is three processes, all in the caller's session:
//
//   front   what the caller's shell sees and waits for: it mirrors the command (stops when it stops, exits as
//           it exits) and passes on the signals that it is sent. It may stop; nothing else ever does.
//   engine  makes the container, runs the network program and the engine. Deaf to signals but SIGKILL, so
//           that a stopped command does not stop the connects of whatever else runs in the container.
//   init    pid 1 of the container: parent of the command, reaps orphans.
//
// The command's process group. Most of the time the command stays in the group of `shunt run`. Then ^C, ^Z
// and fg work because the kernel and the shell do to the command just what they do without us, also in a
// pipeline or a script. But that group's leader lives outside of the container's pid namespace, so that
// getpgrp() is 0 in there, which interactive shells take badly at their end. So the command gets a group of
// its own where nobody else can miss it: if there is no terminal, or if `shunt run` is alone in its job and
// talks to the terminal directly; in that case the foreground is handed to the command's group.

#pragma once

#include <csignal>
#include <cstdint>

#include "core/fd.h"

namespace shunt {

struct Terminal {
  Fd tty;                   // the controlling terminal; invalid if there is none
  bool own_group = false;   // the command leads a process group of its own
  bool foreground = false;  // `shunt run` was started in the foreground
  sigset_t callers_mask;    // the signal mask to give to the command

  // Looks around and blocks, in the calling thread and all that it makes, the signals that the front passes
  // on. Call it before the first fork.
  static Terminal Open();
};

// The signals that the front listens for: those that it passes on, and SIGCHLD.
sigset_t FrontSignals();

// What front and init tell each other, one to a packet.
struct JobMessage {
  enum class Kind : int32_t {
    kSignal,                // front to init: send signal `value` to the command
    kContinue,              // front to init: the job goes on after the command's stop number `stop`
    kContinueInForeground,  // the same, and the job has the terminal
    kStopped,  // init to front: the command was stopped by signal `value`; this was its stop number `stop`
    kExited,   // init to front: the command is gone; `value` is its status, 128 + the signal if it was killed
  };
  Kind kind;
  int32_t value = 0;
  int32_t stop = 0;
};

}  // namespace shunt
