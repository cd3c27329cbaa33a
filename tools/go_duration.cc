// SPDX-License-Identifier: Apache-2.0
#include "tools/go_duration.h"

#include <cstdint>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace shunt {
namespace {

// Go counts up to here before it looks at the sign.
constexpr uint64_t kMost = uint64_t{1} << 63;

constexpr std::pair<absl::string_view, uint64_t> kUnits[] = {
    {"ns", 1},          {"us", 1'000},        {"\u00b5s", 1'000},  // micro sign
    {"\u03bcs", 1'000},                                            // Greek mu
    {"ms", 1'000'000},  {"s", 1'000'000'000}, {"m", 60'000'000'000}, {"h", 3'600'000'000'000},
};

absl::Status Wrong(absl::string_view text) {
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" should be a duration as Go writes it, for example 1m30s, 2.5s or 100ms"));
}

bool IsDigit(char c) {
  return absl::ascii_isdigit(static_cast<unsigned char>(c));
}

// Takes digits from the front of `text`. False: too many.
bool TakeWhole(absl::string_view& text, uint64_t& whole) {
  for (; !text.empty() && IsDigit(text[0]); text.remove_prefix(1)) {
    if (whole > kMost / 10) return false;
    whole = whole * 10 + static_cast<uint64_t>(text[0] - '0');
    if (whole > kMost) return false;
  }
  return true;
}

// The same behind a point: digits that have no room any more do not count.
void TakeFraction(absl::string_view& text, uint64_t& fraction, double& scale) {
  bool full = false;
  for (; !text.empty() && IsDigit(text[0]); text.remove_prefix(1)) {
    if (full || fraction > (kMost - 1) / 10) {
      full = true;
      continue;
    }
    const uint64_t more = fraction * 10 + static_cast<uint64_t>(text[0] - '0');
    if (more > kMost) {
      full = true;
      continue;
    }
    fraction = more;
    scale *= 10;
  }
}

// The unit at the front of `text`, which reaches to the next digit or point; 0: none that there is.
uint64_t TakeUnit(absl::string_view& text) {
  const absl::string_view name = text.substr(0, text.find_first_of(".0123456789"));
  text.remove_prefix(name.size());
  for (const auto& [unit, nanoseconds] : kUnits) {
    if (name == unit) return nanoseconds;
  }
  return 0;
}

}  // namespace

absl::StatusOr<std::chrono::nanoseconds> ParseGoDuration(absl::string_view text) {
  absl::string_view rest = text;
  const bool negative = !rest.empty() && rest[0] == '-';
  if (!rest.empty() && (rest[0] == '-' || rest[0] == '+')) rest.remove_prefix(1);
  if (rest == "0") return std::chrono::nanoseconds(0);
  if (rest.empty()) return Wrong(text);
  uint64_t sum = 0;
  while (!rest.empty()) {
    uint64_t value = 0;
    uint64_t fraction = 0;
    double scale = 1;
    const size_t before = rest.size();
    if (!TakeWhole(rest, value)) return Wrong(text);
    bool has_digits = rest.size() != before;
    if (!rest.empty() && rest[0] == '.') {
      rest.remove_prefix(1);
      const size_t before_fraction = rest.size();
      TakeFraction(rest, fraction, scale);
      has_digits |= rest.size() != before_fraction;
    }
    if (!has_digits) return Wrong(text);
    const uint64_t unit = TakeUnit(rest);
    if (unit == 0 || value > kMost / unit) return Wrong(text);
    value *= unit;
    // Through floating point, as Go does, so that the last digit is the same.
    if (fraction > 0)
      value += static_cast<uint64_t>(static_cast<double>(fraction) * (static_cast<double>(unit) / scale));
    if (value > kMost || sum > kMost - value) return Wrong(text);
    sum += value;
  }
  if (negative) return std::chrono::nanoseconds(static_cast<int64_t>(~sum + 1));
  if (sum == kMost) return Wrong(text);
  return std::chrono::nanoseconds(static_cast<int64_t>(sum));
}

}  // namespace shunt
