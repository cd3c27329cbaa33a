// SPDX-License-Identifier: Apache-2.0
#include "core/proc_text.h"

#include <charconv>
#include <cstddef>
#include <cstring>
#include <system_error>
#include <utility>

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

// "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw"
void PeerGroupSearch::EndWord() {
  constexpr size_t kBeforeTags = 6;
  const std::string_view word(word_.data(), std::exchange(size_, 0));
  if (words_ == 0) {
    uint64_t number = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    const bool is_whole = word.size() < word_.size() && end == word.data() + word.size();
    is_it_ = error == std::errc() && is_whole && number == mount_;
  } else if (is_it_ && words_ >= kBeforeTags && !behind_dash_) {
    behind_dash_ = word == "-";
    tagged_ = tagged_ || word.starts_with("shared:");
  }
  ++words_;
}

void PeerGroupSearch::Add(std::string_view piece) {
  for (const char byte : piece) {
    if (byte == ' ' || byte == '\n') {
      EndWord();
    } else if (size_ < word_.size()) {
      word_[size_++] = byte;
    }
    if (byte != '\n') continue;
    found_ = found_ || is_it_;
    shared_ = shared_ || tagged_;
    words_ = 0;
    is_it_ = tagged_ = behind_dash_ = false;
  }
}

}  // namespace shunt
