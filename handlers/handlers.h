// SPDX-License-Identifier: Apache-2.0
// The handlers, one for each line of routes.h, and the few that another handler calls with its own arguments.

#pragma once

#include <cstdint>

#include "core/call.h"
#include "handlers/routes.h"

namespace shunt {

#define SHUNT_DECLARE_HANDLER(syscall, handler, condition) Reply handler(Call& call);
SHUNT_ROUTES(SHUNT_DECLARE_HANDLER)
#undef SHUNT_DECLARE_HANDLER

#define SHUNT_ROUTE(syscall, handler, condition) {#syscall, handler},
inline constexpr Route kRoutes[] = {SHUNT_ROUTES(SHUNT_ROUTE)};
#undef SHUNT_ROUTE

// What no route is for, and what a route is not used for in this container: the policy's default action.
Reply Default(Call& call);
// A call that the policy wants to fail: with Policy::refuse, or its own of Policy::errors.
Reply FixedError(Call& call);

// The same calls with arguments that did not come in registers (socketcall).
Reply ConnectSocket(Call& call, int number, uint64_t address, int length);
Reply BindSocket(Call& call, int number, uint64_t address, int length);
Reply ListenSocket(Call& call, int number, int backlog);
Reply NameSocket(Call& call, int number, uint64_t address, uint64_t length_address);
Reply OptionOnSocket(Call& call, int number, int level, int name);

}  // namespace shunt
