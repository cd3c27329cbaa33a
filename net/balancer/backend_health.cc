// SPDX-License-Identifier: Apache-2.0
// BackendHealth.

#include "net/balancer/backend_health.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "net/balancer/agenda.h"

namespace shunt::net {

void BackendHealth::Checked(const HealthSpec& spec, bool up) {
  if (up == up_) {
    checks_in_a_row_ = 0;
    return;
  }
  if (++checks_in_a_row_ < (up_ ? spec.fall : spec.rise)) return;
  up_ = up;
  checks_in_a_row_ = 0;
}

void BackendHealth::ForgetChecks() {
  up_ = true;
  checks_in_a_row_ = 0;
}

bool BackendHealth::Connected(const OutlierSpec& spec, bool well) {
  if (ejected_) return false;
  if (well || !spec.enabled) {
    failures_in_a_row_ = 0;
    return false;
  }
  if (++failures_in_a_row_ < spec.consecutive) return false;
  failures_in_a_row_ = 0;
  return true;
}

uint64_t BackendHealth::EjectionsThatCount(const OutlierSpec& spec, int64_t now) const {
  const int64_t interval = spec.interval.count();
  if (interval <= 0) return 0;
  const uint64_t quiet = static_cast<uint64_t>(std::max<int64_t>(0, now - returned_) / interval);
  return counting_ - std::min(counting_, quiet);
}

void BackendHealth::Eject(const OutlierSpec& spec, int64_t now) {
  const int64_t base = std::max<int64_t>(1, spec.base_ejection.count()), most = spec.max_ejection.count();
  // How many make the longest ejection. What is beyond is not counted, or a backend that was bad for a day
  // would be taken for bad for as long again.
  const uint64_t longest = static_cast<uint64_t>(most / base + (most % base != 0));
  counting_ = std::min(EjectionsThatCount(spec, now) + 1, std::max<uint64_t>(1, longest));
  ejected_ = true;
  ejected_until_ = After(now, counting_ >= longest ? most : static_cast<int64_t>(counting_) * base);
  ++ejections_;
}

void BackendHealth::Return(int64_t at) {
  ejected_ = false;
  returned_ = at;
  failures_in_a_row_ = 0;
}

int64_t BackendHealth::SlowUntil(const SlowStartSpec& spec) const {
  return slow_since_ ? After(*slow_since_, spec.window.count()) : std::numeric_limits<int64_t>::min();
}

double BackendHealth::ShareAt(const SlowStartSpec& spec, int64_t now) const {
  if (!StartsSlowlyAt(spec, now)) return 1;
  const double elapsed = static_cast<double>(now - *slow_since_);
  const double progress = std::max(0.0, elapsed / static_cast<double>(spec.window.count()));
  return std::min(1.0, std::max(spec.min_weight, std::pow(progress, 1 / spec.aggression)));
}

}  // namespace shunt::net
