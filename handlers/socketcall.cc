// SPDX-License-Identifier: Apache-2.0
// socketcall(2): leads i386's one door to all socket calls to the handlers of the single ones.
//
// Its arguments are 32-bit words in the target's memory, read once into our copy. Where a handler says
// CONTINUE the kernel reads them again, and other threads may have changed them: no more than they could do
// between two calls.

#include <array>
#include <cstddef>
#include <optional>
#include <span>

#include "handlers/handlers.h"
#include "handlers/socketcall_block.h"
#include "handlers/traps.h"

namespace shunt {

Reply SocketCall(Call& call) {
  std::array<std::byte, kSocketCallBlock> copy;
  const auto block = std::span(copy).first(SocketCallBlockSize(call.arg(0)));
  const Result<size_t> got = call.target().ReadMemory(call.arg(1), block);
  if (!got) return Reply::Continue();
  const std::optional<SocketCallArguments> arguments = ReadSocketCall(call.arg(0), block.first(*got));
  if (!arguments) return Reply::Continue();
  const auto& [which, words] = *arguments;
  const int fd = arguments->as_int(0);
  switch (which) {
    case kSocketCallConnect:
      return ConnectSocket(call, fd, words[1], arguments->as_int(2));
    case kSocketCallBind:
      return BindSocket(call, fd, words[1], arguments->as_int(2));
    case kSocketCallListen:
      return ListenSocket(call, fd, arguments->as_int(1));
    case kSocketCallGetSockName:
      return NameSocket(call, fd, words[1], words[2]);
    case kSocketCallSetSockOpt:
      return OptionOnSocket(call, fd, arguments->as_int(1), arguments->as_int(2));
    default:
      return Reply::Continue();
  }
}

}  // namespace shunt
