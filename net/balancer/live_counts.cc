// SPDX-License-Identifier: Apache-2.0
#include "net/balancer/live_counts.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "core/clock.h"
#include "net/balancer/service_record.h"

namespace shunt::net {

void LiveCounts::Watch(const std::vector<Balancer::Counted>& backends) {
  absl::flat_hash_map<uint32_t, Watched> before;
  for (const Watched& watched : backends_) before.emplace(watched.backend.slot, watched);
  backends_.clear();
  tallies_.clear();
  ports_.clear();
  for (const Balancer::Counted& backend : backends) {
    Watched watched{.backend = backend};
    if (const auto old = before.find(backend.slot);
        old != before.end() && old->second.backend.address == backend.address) {
      watched = old->second;
      watched.backend = backend;
      if (backend.limited && !old->second.backend.limited) NotSeenYet(backend);
    } else {
      const CountTotals totals = TotalsOf(counts_, backend.slot);
      watched.connected = totals.connected;
      watched.connect_ns = totals.connect_ns;
      NotSeenYet(backend);
    }
    backends_.push_back(watched);
    tallies_[PlaceOf(backend.address.ip(), backend.address.port())] = {};
    ports_.push_back(backend.address.port());
  }
  std::ranges::sort(ports_);
  ports_.erase(std::unique(ports_.begin(), ports_.end()), ports_.end());
}

// It is looked for at once, and has no place before.
void LiveCounts::NotSeenYet(const Balancer::Counted& backend) {
  due_ = std::min(due_, rest_until_);
  if (backend.limited) counts_.PlacesOf(backend.slot).Forget();
}

void LiveCounts::Hurry(bool on) {
  const int64_t interval = on ? kHurriedInterval : kInterval;
  if (std::exchange(interval_, interval) != interval && looked_ != 0)
    due_ = std::max(on ? std::min(due_, looked_ + interval) : looked_ + interval, rest_until_);
}

bool LiveCounts::Advance(int64_t now) {
  if (backends_.empty() || now < due_) return false;
  const bool with_rtt =
      std::ranges::any_of(backends_, [](const Watched& watched) { return watched.backend.by_rtt; });
  for (auto& [place, tally] : tallies_) tally = {};
  for (Watched& watched : backends_) watched.begun = counts_.PlacesOf(watched.backend.slot).BeginLook();
  const int64_t begin = NowOn(CLOCK_THREAD_CPUTIME_ID);  // others may have the CPU meanwhile
  const Result<void> counted = Count(with_rtt);
  rest_until_ = now + (NowOn(CLOCK_THREAD_CPUTIME_ID) - begin) * kShare;
  if (!counted) {
    for (auto& [place, tally] : tallies_) tally = {};
    census_.reset();
    if (std::exchange(failed_with_, counted.error().code) != counted.error().code) {
      failure_ = absl::StrCat(
          "the kernel does not tell which connections there are (", std::strerror(counted.error().code),
          "; CONFIG_INET_DIAG): least-connections, least-rtt and limits go by the connects of "
          "the last ",
          kInterval / 1'000'000, " ms");
    }
  } else {
    failed_with_ = 0;
  }
  constexpr double kMemory = 10e9;  // ns
  const double weight = looked_ == 0 ? 1 : 1 - std::exp(-static_cast<double>(now - looked_) / kMemory);
  for (Watched& watched : backends_) {
    const SockAddr& address = watched.backend.address;
    const Tally& tally = tallies_[PlaceOf(address.ip(), address.port())];
    counts_.SetOpen(watched.backend.slot, tally.open);
    if (watched.backend.limited) counts_.PlacesOf(watched.backend.slot).EndLook(tally.open, watched.begun);
    if (watched.backend.by_rtt) NoteRtt(watched, tally, weight);
  }
  looked_ = now;
  due_ = std::max(now + interval_, rest_until_);
  return true;
}

Result<void> LiveCounts::Count(bool with_rtt) {
  if (!census_) {
    Result<ConnectionCensus> opened = ConnectionCensus::Open();
    if (!opened) return tl::unexpected(opened.error());
    census_ = *std::move(opened);
  }
  return census_->Visit(with_rtt, ports_, [this](const OpenConnection& connection) {
    const auto tally = tallies_.find(PlaceOf(connection.peer, connection.port));
    if (tally == tallies_.end()) return;
    ++tally->second.open;
    if (connection.min_rtt_us == 0) return;
    tally->second.min_rtts += connection.min_rtt_us;
    ++tally->second.with_rtt;
  });
}

void LiveCounts::NoteRtt(Watched& watched, const Tally& tally, double weight) {
  const CountTotals totals = TotalsOf(counts_, watched.backend.slot);
  const uint64_t connects = totals.connected - std::exchange(watched.connected, totals.connected);
  const uint64_t ns = totals.connect_ns - std::exchange(watched.connect_ns, totals.connect_ns);
  double sample = 0;
  if (connects > 0) {
    sample = static_cast<double>(ns) / static_cast<double>(connects) / 1e3;
  } else if (tally.with_rtt > 0) {
    sample = static_cast<double>(tally.min_rtts) / tally.with_rtt;
  } else {
    return;
  }
  watched.rtt_us = watched.rtt_us == 0 ? sample : watched.rtt_us + (sample - watched.rtt_us) * weight;
  counts_.SetRtt(watched.backend.slot, static_cast<uint32_t>(std::clamp(watched.rtt_us, 1.0, 4e9)));
}

}  // namespace shunt::net
