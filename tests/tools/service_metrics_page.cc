// SPDX-License-Identifier: Apache-2.0
// Prints what metrics say of two services: tests/tools/service_metrics_test.py reads it.

#include <cstdio>

#include "tests/tools/service_reports.h"
#include "tools/metrics_text.h"

int main() {
  shunt::MetricsReading reading;
  reading.services = shunt::TwoServices();
  shunt::net::ServiceReport& orders = reading.services[0];
  orders.limited = true;
  orders.queued = 2;
  orders.refused = 17;
  orders.waited = 4;
  orders.waited_s = 0.05;
  std::fputs(shunt::MetricsText(reading).c_str(), stdout);
}
