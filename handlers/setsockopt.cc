// SPDX-License-Identifier: Apache-2.0
// setsockopt(2) of the options that a swap does not read every time: remembers on which socket one was set,
// and lets the kernel set it.

#include <sys/socket.h>

#include <algorithm>

#include "handlers/container.h"
#include "handlers/handlers.h"
#include "handlers/socket_call.h"
#include "net/socket_options.h"

namespace shunt {

Reply OptionOnSocket(Call& call, int number, int level, int name) {
  const auto option =
      std::find_if(net::kSocketOptions.begin(), net::kSocketOptions.end(),
                   [&](const net::SocketOption& row) { return row.level == level && row.name == name; });
  if (option == net::kSocketOptions.end() || option->use == net::OptionUse::kHot) return Reply::Continue();
  const std::optional<Fd> socket = TakeAnySocket(call, number);
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  if (!socket || getsockopt(socket->get(), SOL_SOCKET, SO_COOKIE, &cookie, &size) != 0)
    return Reply::Continue();
  Container& container = ContainerOf(call);
  (option->use == net::OptionUse::kRare ? container.facts.rare_options : container.facts.stay).Mark(cookie);
  return Reply::Continue();
}

Reply SetSockOpt(Call& call) {
  return OptionOnSocket(call, call.int_arg(0), call.int_arg(1), call.int_arg(2));
}

}  // namespace shunt
