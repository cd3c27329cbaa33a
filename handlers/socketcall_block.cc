// SPDX-License-Identifier: Apache-2.0
// ReadSocketCall: see socketcall_block.h.

#include "handlers/socketcall_block.h"

#include <cstring>

#include "handlers/traps.h"

namespace shunt {

size_t SocketCallBlockSize(uint64_t which) {
  switch (static_cast<uint32_t>(which)) {
    case kSocketCallListen:
      return 2 * sizeof(uint32_t);
    case kSocketCallConnect:
    case kSocketCallBind:
    case kSocketCallGetSockName:
    case kSocketCallSetSockOpt:  // it has five; what is decided on are the first three
      return 3 * sizeof(uint32_t);
    default:
      return 0;
  }
}

std::optional<SocketCallArguments> ReadSocketCall(uint64_t which, std::span<const std::byte> block) {
  const size_t size = SocketCallBlockSize(which);
  if (size == 0 || block.size() < size) return std::nullopt;
  SocketCallArguments arguments{.which = static_cast<uint32_t>(which)};
  std::memcpy(arguments.words.data(), block.data(), size);
  return arguments;
}

}  // namespace shunt
