// SPDX-License-Identifier: Apache-2.0
// Reads the arguments of socketcall(2), which i386 keeps in a block of 32-bit words in the program's memory.
//
// A 64-bit program that enters by int 0x80 passes its registers' lower halves only, as does the kernel. Pure.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace shunt {

// The most bytes that any call handled here has in its block.
inline constexpr size_t kSocketCallBlock = 3 * sizeof(uint32_t);

struct SocketCallArguments {
  uint32_t which = 0;               // kSocketCall...
  std::array<uint32_t, 3> words{};  // a call with two leaves the third 0

  int as_int(size_t index) const { return static_cast<int>(words[index]); }
};

// How many bytes of the block the call that `which` (the first register) names needs. 0: it is none of ours.
size_t SocketCallBlockSize(uint64_t which);

// `block`: our copy of the block, from its beginning. Nothing if it is none of our calls, or the block is too
// short for it.
std::optional<SocketCallArguments> ReadSocketCall(uint64_t which, std::span<const std::byte> block);

}  // namespace shunt
