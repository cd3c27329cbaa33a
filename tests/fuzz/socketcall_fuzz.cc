// SPDX-License-Identifier: Apache-2.0
// The block of arguments of socketcall(2), as far as it could be read: 8 bytes of register, then any bytes.
// What is read must be what stands there, no matter what the register's upper half holds.

#include <cstring>
#include <span>

#include "core/check.h"
#include "handlers/socketcall_block.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using shunt::ReadSocketCall;
  uint64_t which = 0;
  if (size < sizeof(which)) return 0;
  memcpy(&which, data, sizeof(which));
  const std::span<const std::byte> block = std::as_bytes(std::span(data, size)).subspan(sizeof(which));
  const size_t wanted = shunt::SocketCallBlockSize(which);
  SHUNT_CHECK(wanted <= shunt::kSocketCallBlock);
  const auto arguments = ReadSocketCall(which, block);
  SHUNT_CHECK(arguments.has_value() == (wanted != 0 && block.size() >= wanted));
  if (!arguments) return 0;
  SHUNT_CHECK(memcmp(arguments->words.data(), block.data(), wanted) == 0);
  SHUNT_CHECK(wanted == shunt::kSocketCallBlock || arguments->words[2] == 0);
  const auto narrow = ReadSocketCall(static_cast<uint32_t>(which), block);
  SHUNT_CHECK(narrow && narrow->which == arguments->which && narrow->words == arguments->words);
  return 0;
}
