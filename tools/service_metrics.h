// SPDX-License-Identifier: Apache-2.0
// How services and their backends do, in Prometheus' text format: what tools/metrics_text.h has no part in.

#pragma once

#include <string>
#include <vector>

#include "net/balancer/balancer.h"

namespace shunt {

// Empty if there are no services.
std::string ServiceMetricsText(const std::vector<net::ServiceReport>& reports);

}  // namespace shunt
