// SPDX-License-Identifier: Apache-2.0
// The clock's own cost: see clock.h.

#include "bench/clock.h"

#include "bench/histogram.h"

namespace shunt::bench {

int64_t ClockOverhead() {
  constexpr int kPairs = 10'001;
  Histogram pairs;
  for (int i = 0; i < kPairs; ++i) {
    const int64_t begin = Now();
    pairs.Add(Now() - begin);
  }
  return pairs.Percentile(0.5).value();
}

}  // namespace shunt::bench
