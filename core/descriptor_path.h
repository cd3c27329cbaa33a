// SPDX-License-Identifier: Apache-2.0
// "self/fd/N", to be walked from a directory that is a /proc: the path that means an open descriptor, for
// calls that take no other.

#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

namespace shunt {

class DescriptorPath {
 public:
  explicit DescriptorPath(int fd) {
    constexpr std::string_view kPrefix = "self/fd/";
    char* const number = std::ranges::copy(kPrefix, text_.data()).out;
    *std::to_chars(number, text_.data() + text_.size() - 1, fd).ptr = '\0';
  }
  const char* c_str() const { return text_.data(); }

 private:
  std::array<char, 32> text_;
};

}  // namespace shunt
