// SPDX-License-Identifier: Apache-2.0

#include "handlers/traps.h"

#include <sys/socket.h>

#include <cerrno>

#include "handlers/routes.h"
#include "net/socket_options.h"

namespace shunt {
namespace {

void AddOptionTraps(const char* syscall, std::vector<Trap>& traps) {
  for (const net::SocketOption& option : net::kSocketOptions) {
    if (!net::IsTrapped(option)) continue;
    traps.push_back({syscall,
                     {ArgCondition::IntEquals(1, static_cast<uint32_t>(option.level)),
                      ArgCondition::IntEquals(2, static_cast<uint32_t>(option.name))}});
  }
}

void AddSocketCallTraps(const char* syscall, const TrapNeeds& needs, std::vector<Trap>& traps) {
  const auto add = [&](uint32_t call) { traps.push_back({syscall, {ArgCondition::IntEquals(0, call)}}); };
  add(kSocketCallBind);
  add(kSocketCallConnect);
  add(kSocketCallListen);
  add(kSocketCallSetSockOpt);
  if (needs.renumbered) add(kSocketCallGetSockName);
}

void AddTraps(const char* syscall, RouteCondition condition, const TrapNeeds& needs,
              std::vector<Trap>& traps) {
  switch (condition) {
    case RouteCondition::kAlways:
      traps.push_back({syscall, {}});
      return;
    case RouteCondition::kIfAsked:
      return;
    case RouteCondition::kIfRenumbered:
      if (needs.renumbered) traps.push_back({syscall, {}});
      return;
    case RouteCondition::kFastOpenInArg2:
      traps.push_back({syscall, {ArgCondition::FlagSet(2, MSG_FASTOPEN)}});
      return;
    case RouteCondition::kFastOpenInArg3:
      traps.push_back({syscall, {ArgCondition::FlagSet(3, MSG_FASTOPEN)}});
      return;
    case RouteCondition::kTrappedOption:
      AddOptionTraps(syscall, traps);
      return;
    case RouteCondition::kSocketCall:
      AddSocketCallTraps(syscall, needs, traps);
      return;
  }
}

}  // namespace

std::vector<Trap> Traps(const TrapNeeds& needs) {
  std::vector<Trap> traps;
#define SHUNT_ADD_ROUTE(syscall, handler, condition) \
  AddTraps(#syscall, RouteCondition::condition, needs, traps);
  SHUNT_ROUTES(SHUNT_ADD_ROUTE)
#undef SHUNT_ADD_ROUTE
  return traps;
}

std::vector<Deny> Denies() {
  return {{"io_uring_setup", ENOSYS}};
}

}  // namespace shunt
