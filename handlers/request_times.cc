// SPDX-License-Identifier: Apache-2.0
#include "handlers/request_times.h"

#include <algorithm>
#include <utility>

#include "core/check.h"
#include "core/filter.h"

namespace shunt {
namespace {

// Kubernetes' names are not longer, and of these characters; others come from whoever writes annotations.
std::string AsLabel(std::string_view text) {
  constexpr size_t kLongest = 63;
  std::string label(text.substr(0, kLongest));
  for (char& one : label) {
    if (one < '!' || one > '~') one = '_';
  }
  return label;
}

uint64_t KeyOf(uint16_t pod_namespace, uint16_t name, int error) {
  return uint64_t{pod_namespace} << 32 | uint64_t{name} << 16 | static_cast<uint16_t>(error);
}

// One writer.
void Raise(std::atomic<uint64_t>& value, uint64_t by) {
  value.store(value.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}

}  // namespace

class RequestTimes::Link final : public Middleware {
 public:
  Link(RequestTimes& times, uint16_t pod_namespace) : times_(times), namespace_(pod_namespace) {}
  void Answered(const AnsweredCall& call) override { times_.Add(namespace_, call); }

 private:
  RequestTimes& times_;
  const uint16_t namespace_;
};

RequestTimes::RequestTimes(size_t reactors) {
  for (size_t i = 0; i < reactors; ++i) tables_.push_back(std::make_unique<Table>());
  std::map<std::string, uint16_t> numbers;
  for (const NamedCall& call : NamedCalls()) {
    const auto [known, is_new] = numbers.try_emplace(call.name, static_cast<uint16_t>(names_.size()));
    if (is_new) names_.push_back(call.name);
    constexpr uint32_t kNumber = std::tuple_size_v<decltype(Names::of)> - 1;
    const uint32_t first = call.number.number & ~kNumber;
    const auto table = std::ranges::find_if(tables_of_names_, [&](const Names& one) {
      return one.arch == 0 || (one.arch == call.number.audit_arch && one.first == first);
    });
    SHUNT_CHECK(table != tables_of_names_.end());
    table->arch = call.number.audit_arch;
    table->first = first;
    table->of[call.number.number & kNumber] = known->second;
  }
}

std::unique_ptr<Middleware> RequestTimes::LinkFor(std::string_view pod_namespace) {
  const std::string label = AsLabel(pod_namespace);
  auto place = std::ranges::find(namespaces_, label);
  if (place == namespaces_.end() && namespaces_.size() < limits::kTimedNamespaces)
    place = namespaces_.insert(namespaces_.end(), label);
  if (place == namespaces_.end()) place = namespaces_.begin();
  return std::make_unique<Link>(*this, static_cast<uint16_t>(place - namespaces_.begin()));
}

uint16_t RequestTimes::NameOf(uint32_t arch, int nr) const {
  for (const Names& names : tables_of_names_) {
    const uint32_t index = static_cast<uint32_t>(nr) - names.first;
    if (names.arch == arch && index < names.of.size()) return names.of[index];
  }
  return 0;
}

void RequestTimes::Add(uint16_t pod_namespace, const AnsweredCall& call) {
  Table& table = *tables_[call.reactor];
  const uint16_t name = NameOf(call.notification.arch, call.notification.nr);
  Series* const series = Find(table, KeyOf(pod_namespace, name, call.error));
  if (series == nullptr) return Raise(table.overflowed, 1);
  const auto bound =
      std::ranges::find_if(kBounds, [&](const Bound& one) { return call.nanoseconds <= one.nanoseconds; });
  Raise(series->counts[static_cast<size_t>(bound - kBounds.begin())], 1);
  Raise(series->nanoseconds, static_cast<uint64_t>(call.nanoseconds));
}

// Makes it if it is new. nullptr: there is no room.
RequestTimes::Series* RequestTimes::Find(Table& table, uint64_t key) {
  static_assert((limits::kTimedSeries & (limits::kTimedSeries - 1)) == 0);
  constexpr size_t kMask = std::tuple_size_v<decltype(Table::places)> - 1;
  size_t place = (key * 0x9e3779b97f4a7c15) >> 40 & kMask;
  for (; table.places[place] != 0; place = (place + 1) & kMask) {
    Series& series = table.series[table.places[place] - 1u];
    if (series.key == key) return &series;
  }
  uint16_t& used_by_namespace = table.used_by[key >> 32];
  const uint32_t used = table.used.load(std::memory_order_relaxed);
  if (used == limits::kTimedSeries || used_by_namespace == limits::kTimedSeriesPerNamespace) return nullptr;
  ++used_by_namespace;
  Series& series = table.series[used];
  series.key = key;
  table.places[place] = static_cast<uint16_t>(used + 1);
  table.used.store(used + 1, std::memory_order_release);
  return &series;
}

std::map<RequestTimes::Labels, RequestTimes::Histogram> RequestTimes::Read() const {
  std::map<uint64_t, Histogram> sums;
  for (const auto& table : tables_) {
    const uint32_t used = table->used.load(std::memory_order_acquire);
    for (uint32_t i = 0; i < used; ++i) {
      const Series& series = table->series[i];
      Histogram& sum = sums[series.key];
      sum.nanoseconds += series.nanoseconds.load(std::memory_order_relaxed);
      for (size_t j = 0; j < sum.counts.size(); ++j)
        sum.counts[j] += series.counts[j].load(std::memory_order_relaxed);
    }
  }
  std::map<Labels, Histogram> read;
  for (const auto& [key, histogram] : sums) {
    read[{.pod_namespace = namespaces_[key >> 32],
          .syscall = names_[key >> 16 & 0xffff],
          .error = static_cast<int>(key & 0xffff)}] = histogram;
  }
  return read;
}

uint64_t RequestTimes::Overflowed() const {
  uint64_t sum = 0;
  for (const auto& table : tables_) sum += table->overflowed.load(std::memory_order_relaxed);
  return sum;
}

}  // namespace shunt
