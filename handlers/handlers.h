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

// The same calls with arguments that did not come in registers (socketcall).
Reply ConnectSocket(Call& call, int number, uint64_t address, int length);
Reply BindSocket(Call& call, int number, uint64_t address, int length);
Reply ListenSocket(Call& call, int number, int backlog);
Reply NameSocket(Call& call, int number, uint64_t address, uint64_t length_address);
Reply OptionOnSocket(Call& call, int number, int level, int name);

}  // namespace shunt
