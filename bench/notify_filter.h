// SPDX-License-Identifier: Apache-2.0
// The smallest filter that there is for a supervisor: some calls are notified, all others allowed.

#pragma once

#include <initializer_list>

namespace shunt::bench {

// Puts it around the calling thread, and what it makes from now on. `calls`: numbers of x86-64's; those of
// other interfaces are allowed. Returns the listener; -1: errno says why not.
int NotifyOf(std::initializer_list<int> calls);

// From now on whom this listener's kernel wakes runs where the one ran who wakes it. False: errno says why
// not; kernels before 6.6 cannot.
bool WakeSynchronously(int listener);

}  // namespace shunt::bench
