// SPDX-License-Identifier: Apache-2.0
#include "core/proc_text.h"

#include <charconv>
#include <cstddef>
#include <cstring>
#include <system_error>

namespace shunt {

std::optional<uint64_t> NumberBehind(std::string_view text, std::string_view label, int base) {
  while (!text.starts_with(label)) {
    const size_t line_end = text.find('\n');
    if (line_end == std::string_view::npos) return std::nullopt;
    text.remove_prefix(line_end + 1);
  }
  text.remove_prefix(label.size());
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (error != std::errc() || end == text.data() + text.size()) return std::nullopt;
  if (*end != '\n' && *end != ' ' && *end != '\t') return std::nullopt;
  return number;
}

std::optional<uint64_t> StartTime(std::string_view stat) {
  constexpr int kFieldsBetween = 20;  // the name is field 2, the start 22
  size_t at = stat.rfind(')');
  for (int i = 0; i < kFieldsBetween && at != std::string_view::npos; ++i) at = stat.find(' ', at + 1);
  if (at == std::string_view::npos) return std::nullopt;
  stat.remove_prefix(at + 1);
  return NumberBehind(stat, "");
}

std::span<char> PiecewiseLines::Room() {
  size_ -= returned_;
  std::memmove(text_.data(), text_.data() + returned_, size_);
  returned_ = 0;
  if (size_ == text_.size()) size_ = kBeginning;
  return std::span(text_).subspan(size_);
}

std::string_view PiecewiseLines::Add(size_t size) {
  size_ += size;
  const std::string_view text(text_.data(), size_);
  returned_ = text.rfind('\n') + 1;  // 0 if there is none
  return text.substr(0, returned_);
}

}  // namespace shunt
