// SPDX-License-Identifier: Apache-2.0
// What an agent has counted and timed, in Prometheus' text format (version 0.0.4).

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "handlers/accelerator.h"
#include "handlers/request_times.h"
#include "net/balancer/balancer.h"

namespace shunt {

inline constexpr char kMetricsType[] = "text/plain; version=0.0.4; charset=utf-8";

struct MetricsReading {
  std::vector<Accelerator::CounterValue> counters;
  size_t reactors = 0;
  size_t listeners = 0;
  uint64_t waiting = 0;        // calls, inside the engine
  int64_t engine_started = 0;  // seconds since 1970
  std::map<RequestTimes::Labels, RequestTimes::Histogram> requests;
  uint64_t overflowed = 0;
  std::vector<net::ServiceReport> services;
};

MetricsReading ReadMetrics(const Accelerator& accelerator);
std::string MetricsText(const MetricsReading& reading);

// Its parts: a label's value, and what stands before the lines of a metric.
std::string EscapedLabel(std::string_view value);
void AppendMetricHead(std::string_view name, std::string_view type, std::string_view help, std::string& text);

}  // namespace shunt
