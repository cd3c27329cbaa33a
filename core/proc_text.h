// SPDX-License-Identifier: Apache-2.0
// Reads numbers out of what /proc says of a process or a descriptor: "Tgid:\t4422", "flags:\t0100002".
//
// The text is the kernel's, but much in it is the container's choice, and a fixed buffer may cut it anywhere.
// Pure; no heap; any thread.

#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace shunt {

// The number behind `label` where a line of `text` begins with that, in the given base; blanks and tabs may
// stand in between. The first such line counts. Nothing if there is no such line, or no number in it that
// fits.
std::optional<uint64_t> NumberBehind(std::string_view text, std::string_view label, int base = 10);

// When a task began, out of its /proc/PID/stat: clock ticks since the machine did. Its name, which stands in
// there, may hold blanks and brackets.
std::optional<uint64_t> StartTime(std::string_view stat);

}  // namespace shunt
