// SPDX-License-Identifier: Apache-2.0
#include "tools/service_metrics.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/metrics_text.h"

namespace shunt {
namespace {

using Reports = std::vector<net::ServiceReport>;

// Appends a line for each backend: the value that `of` makes of its report.
template <typename Of>
void AppendBackends(const Reports& reports, const char* name, Of of, std::string& text) {
  for (const net::ServiceReport& service : reports) {
    for (const net::BackendReport& backend : service.backends) {
      absl::StrAppend(&text, name, "{service=\"", EscapedLabel(service.name), "\",backend=\"",
                      EscapedLabel(backend.address), "\"} ", of(backend), "\n");
    }
  }
}

std::string Seconds(double seconds) {
  return absl::StrFormat("%.9f", seconds);
}

// Whether new connections get there; to one that is full, when others have ended.
int IsUp(const net::BackendReport& backend) {
  return backend.state == "up" || backend.state == "slow-start" || backend.state == "full" ? 1 : 0;
}

// Appends a line for each service that limits its backends' connections.
template <typename Of>
void AppendLimited(const Reports& reports, const char* name, Of of, std::string& text) {
  for (const net::ServiceReport& service : reports) {
    if (!service.limited) continue;
    absl::StrAppend(&text, name, "{service=\"", EscapedLabel(service.name), "\"} ", of(service), "\n");
  }
}

void AppendQueues(const Reports& reports, std::string& text) {
  using Report = net::ServiceReport;
  AppendMetricHead("shunt_service_limit_refusals_total", "counter",
                   "Connects that were refused because every backend was full", text);
  AppendLimited(
      reports, "shunt_service_limit_refusals_total", [](const Report& one) { return one.refused; }, text);
  AppendMetricHead("shunt_service_queued", "gauge", "Connects that wait for a backend that is not full",
                   text);
  AppendLimited(
      reports, "shunt_service_queued", [](const Report& one) { return one.queued; }, text);
  AppendMetricHead("shunt_service_queue_seconds", "summary",
                   "How long connects have waited that found a backend then", text);
  AppendLimited(
      reports, "shunt_service_queue_seconds_sum", [](const Report& one) { return Seconds(one.waited_s); },
      text);
  AppendLimited(
      reports, "shunt_service_queue_seconds_count", [](const Report& one) { return one.waited; }, text);
}

}  // namespace

std::string ServiceMetricsText(const Reports& reports) {
  using Report = net::BackendReport;
  std::string text;
  if (reports.empty()) return text;
  AppendMetricHead("shunt_service_picks_total", "counter", "Connections that were to go to the backend",
                   text);
  AppendBackends(
      reports, "shunt_service_picks_total", [](const Report& one) { return one.picks; }, text);
  AppendMetricHead("shunt_service_connect_failures_total", "counter",
                   "Attempts to connect to the backend that failed", text);
  AppendBackends(
      reports, "shunt_service_connect_failures_total", [](const Report& one) { return one.failed; }, text);
  AppendMetricHead("shunt_service_connect_seconds", "summary",
                   "How long connects to the backend took, of those whose success was seen", text);
  AppendBackends(
      reports, "shunt_service_connect_seconds_sum",
      [](const Report& one) {
        return Seconds(one.mean_connect_us * static_cast<double>(one.connected) / 1e6);
      },
      text);
  AppendBackends(
      reports, "shunt_service_connect_seconds_count", [](const Report& one) { return one.connected; }, text);
  AppendMetricHead("shunt_service_backend_up", "gauge", "1 if the backend gets new connections", text);
  AppendBackends(reports, "shunt_service_backend_up", IsUp, text);
  AppendMetricHead("shunt_service_ejections_total", "counter",
                   "Times that the backend was ejected for failed connects", text);
  AppendBackends(
      reports, "shunt_service_ejections_total", [](const Report& one) { return one.ejections; }, text);
  AppendMetricHead("shunt_service_panic", "gauge", "1 if so few backends are available that all are used",
                   text);
  for (const net::ServiceReport& service : reports) {
    absl::StrAppend(&text, "shunt_service_panic{service=\"", EscapedLabel(service.name), "\"} ",
                    service.panic ? 1 : 0, "\n");
  }
  AppendMetricHead("shunt_service_source_age_seconds", "gauge",
                   "Time since the backends in force came from the service's source", text);
  for (const net::ServiceReport& service : reports) {
    if (service.source.empty()) continue;
    absl::StrAppend(&text, "shunt_service_source_age_seconds{service=\"", EscapedLabel(service.name), "\"} ",
                    Seconds(service.source_age_s), "\n");
  }
  AppendQueues(reports, text);
  return text;
}

}  // namespace shunt
