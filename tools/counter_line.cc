// SPDX-License-Identifier: Apache-2.0
#include "tools/counter_line.h"

#include <fcntl.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/journal.h"

namespace shunt {

std::string CounterLine(const CounterValues& values) {
  std::vector<std::string> counted;
  for (size_t i = 0; i < kCounterCount; ++i) {
    if (values[i] != 0) counted.push_back(absl::StrCat(std::string(kCounterTexts[i].name), " ", values[i]));
  }
  return absl::StrCat("counters: ", counted.empty() ? "none" : absl::StrJoin(counted, ", "));
}

std::string CounterLine(const Accelerator& accelerator) {
  CounterValues values{};
  const std::vector<Accelerator::CounterValue> all = accelerator.Counters();
  for (size_t i = 0; i < kCounterCount; ++i) values[i] = all[i].value;
  return CounterLine(values);
}

void AddJournal(int journal_fd, CounterValues& sum) {
  const absl::StatusOr<std::unique_ptr<Journal>> journal =
      Journal::Open(Fd(fcntl(journal_fd, F_DUPFD_CLOEXEC, 0)));
  if (!journal.ok()) return;
  for (size_t i = 0; i < kCounterCount; ++i) {
    const auto counter = static_cast<Counter>(i);
    sum[i] += (*journal)->inherited().Read(counter);
    for (size_t reactor = 0; reactor < (*journal)->reactors(); ++reactor)
      sum[i] += (*journal)->counters(reactor).Read(counter);
  }
}

}  // namespace shunt
