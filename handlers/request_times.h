// SPDX-License-Identifier: Apache-2.0
// RequestTimes: how long calls take, by pod namespace, system call and outcome: the middleware "prometheus".
//
// Each reactor has a table of a fixed size, in which it alone writes; the control thread reads all of them at
// any time and adds them up. A series is one (namespace, call, outcome) with its histogram, and stays: a
// counter that goes away would be taken for one that began anew. Containers can make many, by calls that fail
// in many ways, so a namespace has its share of a table; what does not fit is counted as overflowed.

#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "core/limits.h"
#include "core/middleware.h"

namespace shunt {

class RequestTimes {
 public:
  // What a request took at most to be counted in a bucket; one that took longer is counted behind the last.
  // 0.05, 0.2 and 1 are the Kinvolk agent's.
  struct Bound {
    int64_t nanoseconds;
    const char* seconds;
  };
  static constexpr std::array<Bound, 13> kBounds = {{{5'000, "5e-06"},
                                                     {10'000, "1e-05"},
                                                     {20'000, "2e-05"},
                                                     {50'000, "5e-05"},
                                                     {100'000, "0.0001"},
                                                     {200'000, "0.0002"},
                                                     {500'000, "0.0005"},
                                                     {1'000'000, "0.001"},
                                                     {2'000'000, "0.002"},
                                                     {10'000'000, "0.01"},
                                                     {50'000'000, "0.05"},
                                                     {200'000'000, "0.2"},
                                                     {1'000'000'000, "1"}}};
  using Counts = std::array<uint64_t, kBounds.size() + 1>;  // not cumulated

  explicit RequestTimes(size_t reactors);

  // Control thread. A link that counts under this namespace; more of them than limits::kTimedNamespaces are
  // counted as if it were not known.
  std::unique_ptr<Middleware> LinkFor(std::string_view pod_namespace);

  // The rest of the interface is for the control thread, too.
  struct Labels {
    std::string pod_namespace;  // "": not known
    std::string syscall;        // "unknown": no call of this machine
    int error = 0;
    friend bool operator<(const Labels& a, const Labels& b) {
      return std::tie(a.pod_namespace, a.syscall, a.error) < std::tie(b.pod_namespace, b.syscall, b.error);
    }
  };
  struct Histogram {
    Counts counts{};
    uint64_t nanoseconds = 0;  // the sum
  };
  std::map<Labels, Histogram> Read() const;
  // Requests that are in no series, because there was no room for one.
  uint64_t Overflowed() const;

 private:
  class Link;

  // One series. `key` is written before the table counts it.
  struct Series {
    uint64_t key = 0;
    std::atomic<uint64_t> nanoseconds = 0;
    std::array<std::atomic<uint64_t>, kBounds.size() + 1> counts{};
  };
  struct alignas(64) Table {
    std::atomic<uint32_t> used = 0;
    std::atomic<uint64_t> overflowed = 0;
    // The rest but `series` is its reactor's. Twice as many places as series, so that a search is short.
    std::array<uint16_t, 2 * limits::kTimedSeries> places{};  // 0: free; else the number of a series, plus 1
    std::array<uint16_t, limits::kTimedNamespaces> used_by{};
    std::array<Series, limits::kTimedSeries> series;
  };
  // The names of one interface's calls, by number; 0: unknown.
  struct Names {
    uint32_t arch = 0;
    uint32_t first = 0;
    std::array<uint16_t, 1024> of{};
  };

  uint16_t NameOf(uint32_t arch, int nr) const;
  void Add(uint16_t pod_namespace, const AnsweredCall& call);
  static Series* Find(Table& table, uint64_t key);

  std::vector<std::string> namespaces_{""};
  std::vector<std::string> names_{"unknown"};
  std::array<Names, 3> tables_of_names_{};  // arch 0: unused
  std::vector<std::unique_ptr<Table>> tables_;
};

}  // namespace shunt
