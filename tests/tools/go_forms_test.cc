// SPDX-License-Identifier: Apache-2.0
// Durations and templates mean what they mean to Go: the expectations are those of Go's time and
// text/template.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <utility>

#include "tools/go_duration.h"
#include "tools/pod_template.h"

namespace shunt {
namespace {

using ::testing::HasSubstr;

TEST(GoDurationTest, ReadsWhatGoReads) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  const std::pair<const char*, int64_t> cases[] = {
      {"0", 0},
      {"+0", 0},
      {"-0", 0},
      {"1h2m3.5s", 3'723'500'000'000},
      {"100ms", 100'000'000},
      {"2us", 2'000},
      {"2\u00b5s", 2'000},
      {"2\u03bcs", 2'000},
      {"1.s", 1'000'000'000},
      {".5s", 500'000'000},
      {"-1.5h", -5'400'000'000'000},
      {"+1ns", 1},
      {"1h1h", 7'200'000'000'000},
      {"1.9999999999999999999999s", 2'000'000'000},
      {"0.3333333333333333333h", 1'200'000'000'000},
      {"0.100000000000000000000h", 360'000'000'000},
      {"0.830103483285477580700h", 2'988'372'539'827},
      {"9223372036854775807ns", kMost},
      {"9223372036854775.807us", kMost},
      {"2562047h47m16.854775807s", kMost},
      {"-9223372036854775808ns", std::numeric_limits<int64_t>::min()},
  };
  for (const auto& [text, nanoseconds] : cases) {
    const auto duration = ParseGoDuration(text);
    ASSERT_TRUE(duration.ok()) << duration.status();
    EXPECT_EQ(duration->count(), nanoseconds) << text;
  }
}

TEST(GoDurationTest, RefusesWhatGoRefuses) {
  for (const char* text :
       {"", "1", "s", ".s", "+", "-", "--1s", "1 s", " 1s", "1s ", "1S", "1d", "1s1", "1e3s", "00",
        "9223372036854775808ns", "2562047h47m16.854775808s", "99999999999999999999ns", "3000000h"}) {
    EXPECT_FALSE(ParseGoDuration(text).ok()) << text;
  }
}

TEST(GoDurationTest, ASumThatIsTooLargeForGoToSeeIsTooLarge) {
  EXPECT_FALSE(ParseGoDuration("9223372036854775808ns9223372036854775808ns").ok());
}

PodContext Context() {
  return {.identity = {"ns", "pod", "c"}, .pid = 12, .pid1 = 7};
}

TEST(PodTemplateTest, ExpandsAsGoDoes) {
  const std::pair<const char*, const char*> cases[] = {
      {"", ""},
      {"a", "a"},
      {"-{{.Namespace}}-{{.Pod}}-{{.Container}}", "-ns-pod-c"},
      {"{{ .Pod }}", "pod"},
      {"{{\t.Pid\r\n}}", "12"},
      {"a {{- .Pod -}} b", "apodb"},
      {"a {{-  .Pid1  -}}  b", "a7b"},
      {" {{- .Pod}}{{.Pid -}} ", "pod12"},
      {"a\n{{- .Pod}}", "apod"},
      {"{{.Pod -}}\n {{- .Pid}}", "pod12"},
      {"{{.Pod}}}", "pod}"},
      {"{ {.Pod}}", "{ {.Pod}}"},
      {"}}", "}}"},
  };
  for (const auto& [text, expanded] : cases) {
    const auto result = ExpandPodTemplate(text, Context());
    ASSERT_TRUE(result.ok()) << text << ": " << result.status();
    EXPECT_EQ(*result, expanded) << text;
  }
}

TEST(PodTemplateTest, RefusesWhatGoRefusesAndTheRestOfTheLanguage) {
  for (const char* text :
       {"{{-.Pod}}", "{{.Pod-}}", "{{}}", "{{- -}}", "{{.Pod", "}}x{{", "{{{.Pod}}", "{{.pod}}", "{{.Pod.X}}",
        "{{. Pod}}", "{{.Pod .Pid}}", "{{.Pod | print}}", "{{$.Pod}}", "{{(.Pod)}}", "{{.}}", "{{/* x */}}",
        "{{\"x\"}}", "{{if .Pod}}x{{end}}"}) {
    EXPECT_FALSE(ExpandPodTemplate(text, Context()).ok()) << text;
  }
  EXPECT_THAT(std::string(ExpandPodTemplate("a{{if .Pod}}x{{end}}", Context()).status().message()),
              HasSubstr("\"{{if .Pod}}\" cannot be expanded"));
}

}  // namespace
}  // namespace shunt
