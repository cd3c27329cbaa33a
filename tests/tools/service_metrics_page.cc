// SPDX-License-Identifier: Apache-2.0
// Prints what metrics say of two services: tests/tools/service_metrics_test.py reads it.

#include <cstdio>

#include "tests/tools/service_reports.h"
#include "tools/metrics_text.h"

int main() {
  shunt::MetricsReading reading;
  reading.services = shunt::TwoServices();
  std::fputs(shunt::MetricsText(reading).c_str(), stdout);
}
