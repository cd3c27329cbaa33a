// SPDX-License-Identifier: Apache-2.0
// What /proc says of processes and descriptors, with any bytes: the fast reader must find what a slow and
// plain one finds, and never a number that the end of the text has cut.

#include <algorithm>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/check.h"
#include "core/proc_text.h"

namespace {

using shunt::NumberBehind;

// `text` cut into lines and words by the standard library.
std::optional<uint64_t> Plainly(const std::string& text, const std::string& label, int base) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind(label, 0) != 0) continue;
    line.erase(0, label.size());
    const size_t begin = line.find_first_not_of(" \t");
    if (begin == std::string::npos) return std::nullopt;
    const size_t end = line.find_first_of(" \t", begin);
    if (lines.eof() && end == std::string::npos) return std::nullopt;  // it may be cut
    const std::string word = line.substr(begin, end - begin);
    if (word.find_first_not_of(base == 8 ? "01234567" : "0123456789") != std::string::npos)
      return std::nullopt;
    try {
      return std::stoull(word, nullptr, base);
    } catch (const std::out_of_range&) {
      return std::nullopt;
    }
  }
  return std::nullopt;
}

// The whole lines of `text`, as they come out when it comes in pieces of at most so many bytes.
std::string InPieces(std::string_view text, size_t piece) {
  shunt::PiecewiseLines lines;
  std::string all;
  while (!text.empty()) {
    const std::span<char> room = lines.Room();
    const size_t size = std::min({piece, room.size(), text.size()});
    std::copy_n(text.data(), size, room.data());
    text.remove_prefix(size);
    all += lines.Add(size);
  }
  return all;
}

// Words of all whole lines about the mount that come before their "-", cut by hand.
std::optional<bool> IsSharedPlainly(const std::string& text, const std::string& mount) {
  std::optional<bool> shared;
  std::istringstream lines(text.substr(0, text.rfind('\n') + 1));
  for (std::string line; std::getline(lines, line);) {
    std::vector<std::string> words(1);
    for (const char byte : line) {
      if (byte == ' ') {
        words.emplace_back();
      } else {
        words.back() += byte;
      }
    }
    // As a number, so that "036" is the same; none has so many digits.
    const size_t begin = words[0].find_first_not_of('0');
    if (begin == std::string::npos || words[0].substr(begin) != mount || words[0].size() >= 24) continue;
    shared = shared.value_or(false);
    for (size_t i = 6; i < words.size() && words[i] != "-"; ++i)
      shared = *shared || words[i].starts_with("shared:");
  }
  return shared;
}

std::optional<bool> IsShared(std::string_view text, uint64_t mount, size_t piece) {
  shunt::PeerGroupSearch search(mount);
  for (; !text.empty(); text.remove_prefix(std::min(piece, text.size()))) search.Add(text.substr(0, piece));
  return search.is_shared();
}

size_t LongestLine(std::string_view text) {
  size_t longest = 0;
  for (size_t end; !text.empty(); text.remove_prefix(std::min(end + 1, text.size()))) {
    end = std::min(text.find('\n'), text.size());
    longest = std::max(longest, end + 1);
  }
  return longest;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  for (const char* const label : {"ino:", "mnt_id:", "Tgid:", "PPid:", "Uid:", "Seccomp:"}) {
    SHUNT_CHECK(NumberBehind(text, label) == Plainly(text, label, 10));
  }
  SHUNT_CHECK(NumberBehind(text, "flags:", 8) == Plainly(text, "flags:", 8));
  for (const size_t piece : {size_t{1}, size_t{100}, size_t{4096}}) {
    const std::string all = InPieces(text, piece);
    SHUNT_CHECK(all.empty() || all.back() == '\n');
    if (LongestLine(text) < 4096) SHUNT_CHECK(all == text.substr(0, text.rfind('\n') + 1));
    SHUNT_CHECK(IsShared(text, 36, piece) == IsSharedPlainly(text, "36"));
  }
  return 0;
}
