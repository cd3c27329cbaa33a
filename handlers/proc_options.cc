// SPDX-License-Identifier: Apache-2.0
#include "handlers/proc_options.h"

#include <algorithm>
#include <charconv>
#include <cstdint>

namespace shunt {
namespace {

bool TakeNumber(std::string_view& line, uint64_t& into) {
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), into);
  if (error != std::errc()) return false;
  line.remove_prefix(static_cast<size_t>(end - line.data()));
  return true;
}

// "0 700000 65536": inside, outside, how many.
std::optional<uint64_t> Outside(uint64_t group, std::string_view gid_map) {
  while (!gid_map.empty()) {
    std::string_view line = gid_map.substr(0, gid_map.find('\n'));
    gid_map.remove_prefix(std::min(line.size() + 1, gid_map.size()));
    uint64_t inner = 0, outer = 0, count = 0;
    if (!TakeNumber(line, inner) || !TakeNumber(line, outer) || !TakeNumber(line, count)) return {};
    if (group >= inner && group - inner < count) return outer + group - inner;
  }
  return {};
}

}  // namespace

std::optional<std::string> ProcOptions(std::string_view options, std::string_view gid_map) {
  std::string ours;
  for (bool first = true; !options.empty(); first = false) {
    const std::string_view option = options.substr(0, options.find(','));
    options.remove_prefix(std::min(option.size() + 1, options.size()));
    const std::string_view key = option.substr(0, option.find('='));
    const bool has_value = key.size() < option.size() && !key.empty();
    if (has_value && key != "hidepid" && key != "gid") return {};
    if (!first) ours += ',';
    if (has_value && key == "gid") {
      std::string_view number = option.substr(key.size() + 1);
      uint64_t group = 0;
      if (!TakeNumber(number, group) || !number.empty()) return {};
      const std::optional<uint64_t> outside = Outside(group, gid_map);
      if (!outside) return {};
      ours += "gid=" + std::to_string(*outside);
    } else {
      ours += option;
    }
  }
  return ours;
}

}  // namespace shunt
