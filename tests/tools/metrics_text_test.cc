// SPDX-License-Identifier: Apache-2.0
// The text form, line by line; tests/tools/metrics_server_test.py has a reader that is not ours read it.

#include "tools/metrics_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace shunt {
namespace {

using ::testing::HasSubstr;

TEST(MetricsTextTest, AHistogramsBucketsHoldAllThatTookNoLonger) {
  MetricsReading reading;
  RequestTimes::Histogram& histogram = reading.requests[{"shop", "mkdir", 17}];
  histogram.counts.front() = 2;
  histogram.counts[histogram.counts.size() - 2] = 3;
  histogram.counts.back() = 4;
  histogram.nanoseconds = 12'000'000'034;
  const std::string text = MetricsText(reading);
  const auto line = [](const char* what, const char* le, const char* value) {
    return absl::StrCat("\nseccompagent_request_duration_seconds", what,
                        "{namespace=\"shop\",syscall=\"mkdir\",status=\"17\"", le, "} ", value, "\n");
  };
  EXPECT_THAT(text, HasSubstr(line("_bucket", ",le=\"5e-06\"", "2")));
  EXPECT_THAT(text, HasSubstr(line("_bucket", ",le=\"0.2\"", "2")));
  EXPECT_THAT(text, HasSubstr(line("_bucket", ",le=\"1\"", "5")));
  EXPECT_THAT(text, HasSubstr(line("_bucket", ",le=\"+Inf\"", "9")));
  EXPECT_THAT(text, HasSubstr(line("_sum", "", "12.000000034")));
  EXPECT_THAT(text, HasSubstr(line("_count", "", "9")));
}

TEST(MetricsTextTest, ALabelCannotEndItsLine) {
  MetricsReading reading;
  reading.requests[{"a\"} 1\nb\\", "mkdir", 0}] = {};
  EXPECT_THAT(MetricsText(reading), HasSubstr("_count{namespace=\"a\\\"} 1\\nb\\\\\",syscall="));
}

}  // namespace
}  // namespace shunt
