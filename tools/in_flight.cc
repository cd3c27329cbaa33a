// SPDX-License-Identifier: Apache-2.0
#include "tools/in_flight.h"

#include <fcntl.h>

#include "core/journal.h"
#include "tools/stranded_calls.h"

namespace shunt {

void FailInFlight(int journal_fd, const FindListener& find_listener) {
  absl::StatusOr<std::unique_ptr<Journal>> journal = Journal::Open(Fd(fcntl(journal_fd, F_DUPFD_CLOEXEC, 0)));
  if (!journal.ok()) return;
  for (JournalRecord* const record : (*journal)->Unanswered()) {
    const int listener = find_listener(record->listener.load(std::memory_order_relaxed));
    if (listener >= 0) FailCall(listener, record->id());
    record->Clear();
  }
}

}  // namespace shunt
