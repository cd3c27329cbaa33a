// SPDX-License-Identifier: Apache-2.0
// What a reactor has timed is what the control thread reads, and no container makes it more than there is
// room for.

#include "handlers/request_times.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <string>

#include "core/filter.h"

namespace shunt {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::SizeIs;

constexpr int64_t kMillisecond = 1'000'000;

struct Request {
  SyscallNumber number;
  int error = 0;
  int64_t nanoseconds = kMillisecond;
  size_t reactor = 0;
};

void Tell(Middleware& link, const Request& request) {
  const Notification notification{.arch = request.number.audit_arch,
                                  .nr = static_cast<int>(request.number.number)};
  link.Answered({.notification = notification,
                 .error = request.error,
                 .nanoseconds = request.nanoseconds,
                 .reactor = request.reactor});
}

SyscallNumber Native(const char* name) {
  return NumbersOf(name).front();
}

uint64_t Total(const RequestTimes::Histogram& histogram) {
  return std::accumulate(histogram.counts.begin(), histogram.counts.end(), uint64_t{0});
}

uint64_t Total(const RequestTimes& times) {
  uint64_t total = 0;
  for (const auto& [labels, histogram] : times.Read()) total += Total(histogram);
  return total;
}

MATCHER_P3(IsSeries, pod_namespace, syscall, error, "") {
  return arg.pod_namespace == pod_namespace && arg.syscall == syscall && arg.error == error;
}

TEST(RequestTimesTest, AddsUpWhatReactorsHaveTimedByNamespaceCallAndOutcome) {
  RequestTimes times(2);
  const auto shop = times.LinkFor("shop"), nobody = times.LinkFor("");
  Tell(*shop, {Native("mkdirat"), 0, 3 * kMillisecond, 0});
  Tell(*shop, {Native("mkdirat"), 0, 4 * kMillisecond, 1});
  Tell(*shop, {Native("mkdirat"), EEXIST, kMillisecond, 1});
  Tell(*nobody, {Native("execve"), 0, kMillisecond, 0});
  const auto read = times.Read();
  EXPECT_THAT(read, ElementsAre(Key(IsSeries("", "execve", 0)), Key(IsSeries("shop", "mkdirat", 0)),
                                Key(IsSeries("shop", "mkdirat", EEXIST))));
  const RequestTimes::Histogram& made = read.at({"shop", "mkdirat", 0});
  EXPECT_EQ(Total(made), 2u);
  EXPECT_EQ(made.nanoseconds, 7u * kMillisecond);
}

TEST(RequestTimesTest, ABucketHoldsWhatTookAsLongAsItsBoundAndTheLastWhatTookLonger) {
  RequestTimes times(1);
  const auto link = times.LinkFor("");
  for (const RequestTimes::Bound& bound : RequestTimes::kBounds)
    Tell(*link, {Native("mkdirat"), 0, bound.nanoseconds});
  Tell(*link, {Native("mkdirat"), 0, RequestTimes::kBounds.back().nanoseconds + 1});
  EXPECT_THAT(times.Read().at({"", "mkdirat", 0}).counts, ::testing::Each(1u));
}

TEST(RequestTimesTest, TheTextOfEachBoundIsItsSeconds) {
  int64_t before = 0;
  for (const RequestTimes::Bound& bound : RequestTimes::kBounds) {
    EXPECT_EQ(std::llround(std::strtod(bound.seconds, nullptr) * 1e9), bound.nanoseconds);
    EXPECT_GT(bound.nanoseconds, before);
    before = bound.nanoseconds;
  }
}

TEST(RequestTimesTest, ACallHasOneNameByWhateverInterfaceItComes) {
  RequestTimes times(1);
  const auto link = times.LinkFor("");
  for (const char* name : {"connect", "mkdirat", "fchmodat2"}) {
    for (const SyscallNumber& number : NumbersOf(name)) Tell(*link, {number});
  }
  EXPECT_THAT(times.Read(), ElementsAre(Key(IsSeries("", "connect", 0)), Key(IsSeries("", "fchmodat2", 0)),
                                        Key(IsSeries("", "mkdirat", 0))));
}

TEST(RequestTimesTest, NumbersAndArchitecturesWithoutANameAreOneSeries) {
  RequestTimes times(1);
  const auto link = times.LinkFor("");
  const uint32_t native = Native("mkdirat").audit_arch;
  for (const uint32_t number : {1023u, 1024u, 0x40000000u + 1023, 0x7fffffffu, 0xffffffffu}) {
    Tell(*link, {{native, number}});
    Tell(*link, {{AUDIT_ARCH_S390X, number}});
  }
  const auto read = times.Read();
  EXPECT_THAT(read, ElementsAre(Key(IsSeries("", "unknown", 0))));
  EXPECT_EQ(Total(times), 10u);
}

TEST(RequestTimesTest, ANamespaceThatMakesEverySeriesThereIsTakesNoneFromOthers) {
  RequestTimes times(1);
  const auto hostile = times.LinkFor("hostile"), calm = times.LinkFor("calm");
  uint64_t told = 0;
  for (const char* name : {"mkdirat", "connect", "execve"}) {
    for (int error = 0; error < 4096; ++error, ++told) Tell(*hostile, {Native(name), error});
  }
  Tell(*calm, {Native("connect")});
  const auto read = times.Read();
  EXPECT_THAT(read, SizeIs(limits::kTimedSeriesPerNamespace + 1));
  EXPECT_TRUE(read.contains({"calm", "connect", 0}));
  EXPECT_EQ(times.Overflowed(), told - limits::kTimedSeriesPerNamespace);
  // What it had is still counted.
  Tell(*hostile, {Native("mkdirat"), 0});
  EXPECT_EQ(Total(times.Read().at({"hostile", "mkdirat", 0})), 2u);
}

TEST(RequestTimesTest, AFullTableCountsWhatItDoesNotTake) {
  RequestTimes times(1);
  constexpr size_t kFilling = limits::kTimedSeries / limits::kTimedSeriesPerNamespace;
  uint64_t told = 0;
  for (size_t i = 0; i < kFilling + 1; ++i) {
    const auto link = times.LinkFor("n" + std::to_string(i));
    for (int error = 0; error < static_cast<int>(limits::kTimedSeriesPerNamespace); ++error, ++told)
      Tell(*link, {Native("mkdirat"), error});
  }
  EXPECT_THAT(times.Read(), SizeIs(limits::kTimedSeries));
  EXPECT_EQ(times.Overflowed(), limits::kTimedSeriesPerNamespace);
  EXPECT_EQ(Total(times) + times.Overflowed(), told);
}

TEST(RequestTimesTest, MoreNamespacesThanThereIsRoomForAreNotKnown) {
  RequestTimes times(1);
  EXPECT_THAT(times.Read(), IsEmpty());
  std::unique_ptr<Middleware> link;
  for (size_t i = 1; i < limits::kTimedNamespaces; ++i) link = times.LinkFor("n" + std::to_string(i));
  Tell(*link, {Native("mkdirat")});
  Tell(*times.LinkFor("one too many"), {Native("mkdirat")});
  Tell(*times.LinkFor("n1"), {Native("mkdirat")});
  EXPECT_THAT(times.Read(), ElementsAre(Key(IsSeries("", "mkdirat", 0)), Key(IsSeries("n1", "mkdirat", 0)),
                                        Key(IsSeries("n511", "mkdirat", 0))));
}

TEST(RequestTimesTest, ANamespaceIsALabelWhateverItHolds) {
  RequestTimes times(1);
  Tell(*times.LinkFor(std::string("a\nb\"\\\xff ") + std::string(100, 'x')), {Native("mkdirat")});
  const std::string label = times.Read().begin()->first.pod_namespace;
  EXPECT_EQ(label, "a_b\"\\__" + std::string(56, 'x'));
}

}  // namespace
}  // namespace shunt
