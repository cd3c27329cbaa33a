// SPDX-License-Identifier: Apache-2.0
// socketcall(2): leads i386's one door to all socket calls to the handlers of the single ones.
//
// Its arguments are 32-bit words in the target's memory, read once into our copy. Where a handler says
// CONTINUE the kernel reads them again, and other threads may have changed them: no more than they could do
// between two calls.

#include <array>

#include "handlers/handlers.h"
#include "handlers/traps.h"

namespace shunt {

Reply SocketCall(Call& call) {
  std::array<uint32_t, 3> args{};
  const auto which = static_cast<uint32_t>(call.arg(0));
  const size_t count = which == kSocketCallListen ? 2 : 3;
  const auto bytes = std::as_writable_bytes(std::span(args).first(count));
  const Result<size_t> got = call.target().ReadMemory(call.arg(1), bytes);
  if (!got || *got != bytes.size()) return Reply::Continue();
  const int first = static_cast<int>(args[0]);
  const int second = static_cast<int>(args[1]);
  const int third = static_cast<int>(args[2]);
  switch (which) {
    case kSocketCallConnect:
      return ConnectSocket(call, first, args[1], third);
    case kSocketCallBind:
      return BindSocket(call, first, args[1], third);
    case kSocketCallListen:
      return ListenSocket(call, first, second);
    case kSocketCallGetSockName:
      return NameSocket(call, first, args[1], args[2]);
    case kSocketCallSetSockOpt:
      return OptionOnSocket(call, first, second, third);
    default:
      return Reply::Continue();
  }
}

}  // namespace shunt
