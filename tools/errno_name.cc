// SPDX-License-Identifier: Apache-2.0
#include "tools/errno_name.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace shunt {
namespace {

constexpr int kLargest = 4095;  // what a system call can return as an error

// Second names, which the C library does not tell.
constexpr std::pair<absl::string_view, int> kAliases[] = {
    {"EWOULDBLOCK", EWOULDBLOCK}, {"EDEADLOCK", EDEADLOCK}, {"ENOTSUP", ENOTSUP}};

}  // namespace

absl::StatusOr<int> ParseErrno(absl::string_view text) {
  int number = 0;
  if (absl::SimpleAtoi(text, &number) && number > 0 && number <= kLargest &&
      text.find_first_not_of("0123456789") == absl::string_view::npos) {
    return number;
  }
  for (const auto& [name, error] : kAliases) {
    if (text == name) return error;
  }
  for (int error = 1; error <= kLargest; ++error) {
    if (const char* name = strerrorname_np(error); name != nullptr && text == name) return error;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" should be an errno: its name, for example EACCES, or its number"));
}

std::string ErrnoName(int error) {
  const char* name = strerrorname_np(error);
  return name != nullptr ? std::string(name) : std::to_string(error);
}

}  // namespace shunt
