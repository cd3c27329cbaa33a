// SPDX-License-Identifier: Apache-2.0
#include "tools/counter_line.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace shunt {

std::string CounterLine(const Accelerator& accelerator) {
  std::vector<std::string> counted;
  for (const Accelerator::CounterValue& one : accelerator.Counters()) {
    if (one.value != 0) counted.push_back(absl::StrCat(std::string(one.text.name), " ", one.value));
  }
  return absl::StrCat("counters: ", counted.empty() ? "none" : absl::StrJoin(counted, ", "));
}

}  // namespace shunt
