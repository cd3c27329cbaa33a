// SPDX-License-Identifier: Apache-2.0
// Reads numbers out of what /proc says of a process or a descriptor: "Tgid:\t4422", "flags:\t0100002"; and
// who shares a mount.
//
// The text is the kernel's, but much in it is the container's choice, and a fixed buffer may cut it anywhere.
// Pure; no heap; any thread.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace shunt {

// The number behind `label` where a line of `text` begins with that, in the given base; blanks and tabs may
// stand in between. The first such line counts. Nothing if there is no such line, or no number in it that
// fits.
std::optional<uint64_t> NumberBehind(std::string_view text, std::string_view label, int base = 10);

// When a task began, out of its /proc/PID/stat: clock ticks since the machine did. Its name, which stands in
// there, may hold blanks and brackets.
std::optional<uint64_t> StartTime(std::string_view stat);

// The lines of a text that comes in pieces: /proc/PID/status has no largest size, for a process can be in
// 65536 groups. A line that there is no room for loses its middle.
class PiecewiseLines {
 public:
  // Where the next piece is to be put; never empty.
  std::span<char> Room();
  // `size` bytes of a piece have been put there. The lines that have become whole by it; good until Room().
  std::string_view Add(size_t size);

 private:
  // Of a line without an end this much is kept, so that it does not pass for another one.
  static constexpr size_t kBeginning = 64;

  std::array<char, 4096> text_;
  size_t size_ = 0;      // of what is kept
  size_t returned_ = 0;  // of that, what the caller has got
};

// Whether one mount is in a peer group, out of /proc/PID/mountinfo, which comes in pieces: what is mounted on
// such a one shows on its peers as well, in other mount namespaces. The paths in a line have any length, and
// who lives there can make them longer, so nothing of a line is left out.
class PeerGroupSearch {
 public:
  explicit PeerGroupSearch(uint64_t mount) : mount_(mount) {}
  void Add(std::string_view piece);
  // Nothing: no whole line was about the mount so far.
  std::optional<bool> is_shared() const { return found_ ? std::optional<bool>(shared_) : std::nullopt; }

 private:
  void EndWord();

  const uint64_t mount_;
  std::array<char, 24> word_;  // its beginning, and longer than any number
  size_t size_ = 0;
  size_t words_ = 0;          // of the line, before this one
  bool is_it_ = false;        // the line is about the mount
  bool tagged_ = false;       // and says that it is shared
  bool behind_dash_ = false;  // what is left of the line is about the filesystem
  bool found_ = false, shared_ = false;
};

}  // namespace shunt
