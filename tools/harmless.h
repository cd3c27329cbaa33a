// SPDX-License-Identifier: Apache-2.0
// Harmless: text of any origin in a form that a log and a terminal can be given.
//
// Container ids, paths and process names are chosen by those whom we do not trust. Whatever they hold, a line
// stays one line, a terminal hears no commands, nobody can pretend that we escaped what he wrote himself, and
// nothing that is too long hides what follows. log.h does this to everything that is logged; whoever writes
// to standard error without it, does it by hand.

#pragma once

#include <string>
#include <string_view>

namespace shunt {

// At most this many bytes of one text from outside, and of one line, come through.
inline constexpr size_t kLongestText = 800;
inline constexpr size_t kLongestLine = 2000;

// `text` cut after `longest` bytes, which "..." shows.
inline std::string Shortened(std::string_view text, size_t longest) {
  std::string result(text.substr(0, longest));
  if (text.size() > longest) result += "...";
  return result;
}

// `text` with everything but printable ASCII as \xNN and each backslash doubled, and cut if it is very long.
inline std::string Harmless(std::string_view text) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string result;
  for (const char byte : Shortened(text, kLongestLine)) {
    if (byte == '\\') {
      result += "\\\\";
    } else if (byte >= ' ' && byte <= '~') {
      result += byte;
    } else {
      const auto bits = static_cast<unsigned char>(byte);
      result += {'\\', 'x', kDigits[bits >> 4], kDigits[bits & 15]};
    }
  }
  return result;
}

}  // namespace shunt
