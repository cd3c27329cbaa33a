// SPDX-License-Identifier: Apache-2.0
// ParseEpollEntry: see epoll_fdinfo.h.

#include "net/epoll_fdinfo.h"

#include <charconv>
#include <system_error>

namespace shunt::net {
namespace {

// Takes `label`, blanks and a number off the front of `text`.
template <typename Number>
bool Take(std::string_view& text, std::string_view label, int base, Number& number) {
  if (!text.starts_with(label)) return false;
  text.remove_prefix(label.size());
  while (text.starts_with(' ')) text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (error != std::errc()) return false;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  while (text.starts_with(' ')) text.remove_prefix(1);
  return true;
}

}  // namespace

std::optional<EpollEntry> ParseEpollEntry(std::string_view line) {
  EpollEntry entry;
  int64_t position = 0;
  const bool complete = Take(line, "tfd:", 10, entry.number) && Take(line, "events:", 16, entry.events) &&
                        Take(line, "data:", 16, entry.data) && Take(line, "pos:", 10, position) &&
                        Take(line, "ino:", 16, entry.inode) && Take(line, "sdev:", 16, entry.device);
  if (!complete || entry.number < 0) return std::nullopt;
  return entry;
}

}  // namespace shunt::net
