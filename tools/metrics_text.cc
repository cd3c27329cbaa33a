// SPDX-License-Identifier: Apache-2.0
#include "tools/metrics_text.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "tools/service_metrics.h"

namespace shunt {
namespace {

void AppendOne(std::string_view name, std::string_view type, std::string_view help, uint64_t value,
               std::string& text) {
  AppendMetricHead(name, type, help, text);
  absl::StrAppendFormat(&text, "%s %d\n", name, value);
}

// The name, the labels and the buckets are the Kinvolk agent's, and more buckets.
void AppendRequests(const MetricsReading& reading, std::string& text) {
  constexpr std::string_view kName = "seccompagent_request_duration_seconds";
  AppendMetricHead(kName, "histogram", "Time from the receipt of a trapped call to its answer", text);
  for (const auto& [labels, histogram] : reading.requests) {
    const std::string series =
        absl::StrFormat("namespace=\"%s\",syscall=\"%s\",status=\"%d\"", EscapedLabel(labels.pod_namespace),
                        labels.syscall, labels.error);
    uint64_t count = 0;
    for (size_t i = 0; i < histogram.counts.size(); ++i) {
      count += histogram.counts[i];
      const bool last = i == RequestTimes::kBounds.size();
      absl::StrAppendFormat(&text, "%s_bucket{%s,le=\"%s\"} %d\n", kName, series,
                            last ? "+Inf" : RequestTimes::kBounds[i].seconds, count);
    }
    absl::StrAppendFormat(&text, "%s_sum{%s} %d.%09d\n", kName, series, histogram.nanoseconds / 1'000'000'000,
                          histogram.nanoseconds % 1'000'000'000);
    absl::StrAppendFormat(&text, "%s_count{%s} %d\n", kName, series, count);
  }
}

}  // namespace

std::string EscapedLabel(std::string_view value) {
  return absl::StrReplaceAll(absl::string_view(value.data(), value.size()),
                             {{"\\", "\\\\"}, {"\"", "\\\""}, {"\n", "\\n"}});
}

void AppendMetricHead(std::string_view name, std::string_view type, std::string_view help,
                      std::string& text) {
  absl::StrAppendFormat(&text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

MetricsReading ReadMetrics(const Accelerator& accelerator) {
  MetricsReading reading{.counters = accelerator.Counters()};
  for (const Accelerator::ReactorStatus& reactor : accelerator.Reactors()) {
    ++reading.reactors;
    reading.waiting += reactor.waiting;
  }
  if (const RequestTimes* times = accelerator.request_times(); times != nullptr) {
    reading.requests = times->Read();
    reading.overflowed = times->Overflowed();
  }
  return reading;
}

std::string MetricsText(const MetricsReading& reading) {
  std::string text;
  AppendMetricHead("shunt_build_info", "gauge", "Which shunt this is", text);
  absl::StrAppendFormat(&text, "shunt_build_info{version=\"%s\"} 1\n", EscapedLabel(SHUNT_VERSION));
  AppendOne("shunt_engine_start_time_seconds", "gauge",
            "When the engine began that answers; request durations began at 0 then", reading.engine_started,
            text);
  AppendOne("shunt_reactors", "gauge", "Threads that serve calls", reading.reactors, text);
  AppendOne("shunt_listeners", "gauge", "Seccomp listeners that are being served", reading.listeners, text);
  AppendOne("shunt_calls_waiting", "gauge", "Calls that wait inside the engine", reading.waiting, text);
  for (const Accelerator::CounterValue& counter : reading.counters) {
    AppendOne(absl::StrCat("shunt_", std::string(counter.text.name), "_total"), "counter", counter.text.help,
              counter.value, text);
  }
  AppendOne("shunt_requests_without_series_total", "counter",
            "Requests that are in no series of request durations, because there were too many",
            reading.overflowed, text);
  AppendRequests(reading, text);
  text += ServiceMetricsText(reading.services);
  return text;
}

}  // namespace shunt
