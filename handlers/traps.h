// SPDX-License-Identifier: Apache-2.0
// What the filter of a container traps and refuses, derived from handlers/routes.h and net/socket_options.h.
//
// A trap costs some microseconds, so there is none for anything that a container does often: no close, fcntl,
// exit, no common setsockopt, no ordinary send.

#pragma once

#include <string>
#include <vector>

#include "core/filter.h"

namespace shunt {

// What depends on the container. The defaults suit a container of which nothing is known yet.
struct TrapNeeds {
  bool renumbered = false;  // a port is published under another number: getsockname is trapped
  // Handlers whose routes are used where somebody asks for them (kIfAsked), of AskableHandlers().
  std::vector<std::string> handlers;
  // Calls about which the agent's policy decides although there is no handler: that they fail, or its default
  // action. With their other forms.
  std::vector<std::string> calls;
};

// What a handler of routes.h is called where it is asked for: its function's name in small letters, without
// the "At" of the form with a directory. mkdir stands for Mkdir and MkdirAt.
std::vector<std::string> AskableHandlers();

// The call and every other one that does the same, so that whoever traps or refuses one has to mean all:
// chmod -> chmod, fchmod, fchmodat, fchmodat2. Some may be unknown to a machine or its libseccomp.
std::vector<std::string> FormsOf(const std::string& syscall);

// socketcall(2)'s first argument. The others are in memory, where a filter cannot look: a setsockopt that
// comes this way is always trapped, a send with MSG_FASTOPEN never (it then meets the ordinary path, or the
// lock of a twin).
inline constexpr uint32_t kSocketCallBind = 2;
inline constexpr uint32_t kSocketCallConnect = 3;
inline constexpr uint32_t kSocketCallListen = 4;
inline constexpr uint32_t kSocketCallGetSockName = 6;
inline constexpr uint32_t kSocketCallSetSockOpt = 14;

std::vector<Trap> Traps(const TrapNeeds& needs);

// io_uring_setup: an operation in a ring passes no filter, so a connect in it would miss us. ENOSYS is what a
// kernel without io_uring answers, and programs fall back. Where mount is handled, so is the newer way to
// mount, which tells nothing that a filter could see: without it mount(8) and others use mount(2).
std::vector<Deny> Denies(const TrapNeeds& needs);

}  // namespace shunt
