// SPDX-License-Identifier: Apache-2.0
// Reads what an epoll watches from its fdinfo, which comes in pieces.
//
// The numbers are the kernel's, what they say is the container's choice: it registers what it likes, as often
// as its limits let it. No heap; one thread.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>

namespace shunt::net {

// One line:
//   tfd:        4 events: c0000019 data: 1122334455667788  pos:0 ino:694f sdev:9
struct EpollEntry {
  int number = -1;  // the descriptor's, never negative in what ParseEpollEntry returns
  uint32_t events = 0;
  uint64_t data = 0;
  uint64_t inode = 0;
  uint64_t device = 0;  // as the kernel has it: 12 bits of major, 20 of minor

  friend bool operator==(const EpollEntry&, const EpollEntry&) = default;
};

// Nothing for any other line. `line` is without its end.
std::optional<EpollEntry> ParseEpollEntry(std::string_view line);

// Cuts the text into lines, wherever the pieces end.
class EpollFdinfo {
 public:
  // Where the next piece goes; never empty.
  std::span<char> room() { return std::span(text_).subspan(kept_); }

  // `length` bytes have been put there. Calls `see(entry)` for every entry that is complete now.
  template <typename See>
  void Take(size_t length, See see) {
    kept_ += length;
    size_t start = 0;
    while (const void* found = std::memchr(text_.data() + start, '\n', kept_ - start)) {
      const auto end = static_cast<size_t>(static_cast<const char*>(found) - text_.data());
      const std::optional<EpollEntry> entry = ParseEpollEntry({text_.data() + start, end - start});
      if (entry && !overlong_) see(*entry);
      overlong_ = false;
      start = end + 1;
    }
    std::memmove(text_.data(), text_.data() + start, kept_ - start);
    kept_ -= start;
    if (kept_ < text_.size()) return;
    overlong_ = true;  // no line of the kernel's is that long: all of it is skipped
    kept_ = 0;
  }

 private:
  std::array<char, 16384> text_;
  size_t kept_ = 0;  // bytes of a line that has not ended yet
  bool overlong_ = false;
};

}  // namespace shunt::net
