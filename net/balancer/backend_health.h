// SPDX-License-Identifier: Apache-2.0
// BackendHealth: whether one backend is fit to take connections, by what is seen of it: active checks,
// ejection as an outlier, and the slow start of one that comes back.
//
//   active checks   up --`fall` failures in a row--> down --`rise` successes in a row--> up
//   outlier         in --Connected() says so, Eject()--> ejected --at ejected_until(), Return()--> in
//   slow start      StartSlowly() --the window is over, or StopSlowStart()--> full weight
//
// The three do not know of each other. Who holds it decides when one leads to another, and what the operator
// says. Times are nanoseconds of one clock; specs come with each call, since the operator may change them.

#pragma once

#include <cstdint>
#include <optional>

#include "net/balancer/service.h"

namespace shunt::net {

class BackendHealth {
 public:
  // How a check went.
  void Checked(const HealthSpec& spec, bool up);
  // As if it had never been checked: it counts as up.
  void ForgetChecks();
  bool up() const { return up_; }

  // How a program's connect went. True: it has failed so often in a row that it is to be ejected; the count
  // begins at zero again, whether it will be or not. What ends while it is ejected does not count.
  bool Connected(const OutlierSpec& spec, bool well);
  void Eject(const OutlierSpec& spec, int64_t now);
  // The ejection has ended. Intervals without one are counted from `at` on.
  void Return(int64_t at);
  bool ejected() const { return ejected_; }
  int64_t ejected_until() const { return ejected_until_; }  // while it is
  // All since it was listed.
  uint64_t ejections() const { return ejections_; }

  void StartSlowly(int64_t now) { slow_since_ = now; }
  void StopSlowStart() { slow_since_.reset(); }
  // When it has its full weight again. Long ago: it has.
  int64_t SlowUntil(const SlowStartSpec& spec) const;
  bool StartsSlowlyAt(const SlowStartSpec& spec, int64_t now) const { return now < SlowUntil(spec); }
  // Of its weight, at most 1: Envoy's max(min_weight, elapsed / window ^ (1 / aggression)).
  double ShareAt(const SlowStartSpec& spec, int64_t now) const;

 private:
  // By which the next ejection's base time is multiplied, but for one.
  uint64_t EjectionsThatCount(const OutlierSpec& spec, int64_t now) const;

  bool up_ = true;
  bool ejected_ = false;
  uint32_t checks_in_a_row_ = 0;    // that contradict up_
  uint32_t failures_in_a_row_ = 0;  // of connects
  int64_t ejected_until_ = 0;
  int64_t returned_ = 0;
  uint64_t counting_ = 0;  // ejections that counted when the last one began, itself included
  uint64_t ejections_ = 0;
  std::optional<int64_t> slow_since_;
};

}  // namespace shunt::net
