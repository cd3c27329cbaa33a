// SPDX-License-Identifier: Apache-2.0
// FailInFlight: the keeper's last resort for calls that an engine has received and that none will finish.

#pragma once

#include "tools/keeper.h"

namespace shunt {

// Fails every call that the journal names as unanswered (FailCall), by the listener of its container.
void FailInFlight(int journal_fd, const FindListener& find_listener);

}  // namespace shunt
