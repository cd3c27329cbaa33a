// SPDX-License-Identifier: Apache-2.0
// What a pick of each policy costs, and what it takes to make its table.
//
//   pick/POLICY/N         picks in a row: the table is in the cache as far as it fits
//   cold-pick/POLICY/N    before each pick other memory was walked through, 64 MB of it in turn, so that what
//                         the pick needs is not in the cache; the walk is not counted
//   make/POLICY/N         a table of N backends
//
// Weights are equal, or from 1 to 10 where the name says so. Keys are new ones each time. `16 reactors`: the
// load of a backend is the sum of what that many reactors count.

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/micro/micro.h"
#include "net/balancer/affinity_memory.h"
#include "net/balancer/pick_table.h"
#include "net/balancer/remembered_pick.h"

namespace shunt::net {
namespace {

struct Arm {
  const char* name;
  PickPolicy policy;
  bool by_key;
  uint32_t most_weight;
  size_t reactors;
};

constexpr Arm kArms[] = {
    {"round-robin", PickPolicy::kRoundRobin, false, 1, 1},
    {"round-robin weighted", PickPolicy::kRoundRobin, false, 10, 1},
    {"random", PickPolicy::kRandom, false, 1, 1},
    {"random weighted", PickPolicy::kRandom, false, 10, 1},
    {"least-request", PickPolicy::kLeastRequest, false, 1, 1},
    {"least-request weighted", PickPolicy::kLeastRequest, false, 10, 1},
    {"least-request 16 reactors", PickPolicy::kLeastRequest, false, 1, 16},
    {"least-connections", PickPolicy::kLeastConnections, false, 1, 1},
    {"least-connections 16 reactors", PickPolicy::kLeastConnections, false, 1, 16},
    {"least-rtt", PickPolicy::kLeastRtt, false, 1, 1},
    {"maglev", PickPolicy::kMaglev, true, 1, 1},
    {"maglev weighted", PickPolicy::kMaglev, true, 10, 1},
    {"ring-hash", PickPolicy::kRingHash, true, 1, 1},
    {"ring-hash weighted", PickPolicy::kRingHash, true, 10, 1},
    {"first", PickPolicy::kFirst, false, 1, 1},
};

// A service on a machine.
class Picks {
 public:
  Picks(const Arm& arm, size_t backends)
      : arm_(arm), counts_(arm.reactors), places_(arm.reactors), seat_(0, counts_, 1) {
    counts_.Grow(static_cast<uint32_t>(backends));
    for (uint32_t slot = 0; slot < backends; ++slot) {
      const SockAddr address(IpAddress(0, uint64_t{0xffff0a} << 24 | slot), 8080);
      backends_.push_back({.address = address,
                           .slot = slot,
                           .weight = 1 + Below(Mix64(slot), arm.most_weight),
                           .identity = BackendIdentity(address)});
    }
  }

  std::unique_ptr<const PickTable> Make() {
    std::vector<PickGroup> groups(1);
    groups[0].backends = backends_;
    return PickTable::Make(arm_.policy, arm_.by_key, std::move(groups), places_);
  }
  PickWish Wish(uint64_t number) const { return {.has_key = arm_.by_key, .key = number}; }
  PickSeat& seat() { return seat_; }
  const std::vector<Backend>& backends() const { return backends_; }

 private:
  const Arm& arm_;
  BackendCountBook counts_;
  RoundRobinPlaces places_;
  PickSeat seat_;
  std::vector<Backend> backends_;
};

void Hot(benchmark::State& state, const Arm& arm) {
  Picks picks(arm, static_cast<size_t>(state.range(0)));
  const auto table = picks.Make();
  uint64_t number = 0;
  const uint64_t before = HeapCalls();
  for (auto _ : state) benchmark::DoNotOptimize(table->Pick(picks.Wish(number++), picks.seat()));
  bench::TellAllocations(state, HeapCalls() - before);
}

void Cold(benchmark::State& state, const Arm& arm) {
  Picks picks(arm, static_cast<size_t>(state.range(0)));
  const auto table = picks.Make();
  constexpr size_t kLine = 64, kOther = size_t{64} << 20, kWalk = size_t{2} << 20;
  std::vector<char> other(kOther);
  size_t at = 0;
  uint64_t number = 0, heap_calls = 0;
  for (auto _ : state) {
    for (const size_t end = at + kWalk; at < end; at += kLine) ++other[at];
    at %= kOther;
    const uint64_t before = HeapCalls();
    const auto begin = std::chrono::steady_clock::now();
    benchmark::DoNotOptimize(table->Pick(picks.Wish(number++), picks.seat()));
    state.SetIterationTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    heap_calls += HeapCalls() - before;
  }
  bench::TellAllocations(state, heap_calls);
}

// Of a whole service, as connects ask for one. With `keys`, so many that take turns, it remembers whom each
// has got: with few each of them is known, with very many most are new.
void OfService(benchmark::State& state, uint64_t keys) {
  constexpr Arm kLeastRequest{"least-request", PickPolicy::kLeastRequest, false, 1, 1};
  Picks picks(kLeastRequest, static_cast<size_t>(state.range(0)));
  Service service;
  service.v4 = picks.Make();
  auto index = std::make_shared<BackendIndex>();
  for (const Backend& backend : picks.backends()) index->Add(backend);
  service.v4_index = std::move(index);
  service.name_hash = HashOfName("orders");
  if (keys != 0) service.remembers_ns = int64_t{3600} * 1'000'000'000;
  const auto memory = AffinityMemory::Create();
  if (!memory.ok()) return state.SkipWithError("no memory of affinities");
  uint64_t number = 0;
  const uint64_t before = HeapCalls();
  for (auto _ : state) {
    const Connecting connecting{.to_v4 = true,
                                .wish = {.has_key = keys != 0, .key = keys == 0 ? 0 : ++number % keys},
                                .owner = number};
    benchmark::DoNotOptimize(PickFor(service, connecting, picks.seat(), memory->get()));
  }
  bench::TellAllocations(state, HeapCalls() - before);
}

// What the two looks at the clock cost of what cold-pick measures.
void Clock(benchmark::State& state) {
  for (auto _ : state) {
    const auto begin = std::chrono::steady_clock::now();
    state.SetIterationTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
}

void Make(benchmark::State& state, const Arm& arm) {
  Picks picks(arm, static_cast<size_t>(state.range(0)));
  const uint64_t before = HeapCalls();
  for (auto _ : state) benchmark::DoNotOptimize(picks.Make());
  bench::TellAllocations(state, HeapCalls() - before);
}

void Register() {
  benchmark::RegisterBenchmark("cold-pick/clock", Clock)->UseManualTime();
  for (const int64_t backends : {10, 1000, 10'000}) {
    benchmark::RegisterBenchmark("pick/of a service", OfService, 0)->Arg(backends);
    benchmark::RegisterBenchmark("pick/remembered", OfService, 64)->Arg(backends);
    benchmark::RegisterBenchmark("pick/remembered new keys", OfService, ~uint64_t{0})->Arg(backends);
    for (const Arm& arm : kArms) {
      const auto add = [&](const char* what, void (*run)(benchmark::State&, const Arm&)) {
        return benchmark::RegisterBenchmark((std::string(what) + "/" + arm.name).c_str(),
                                            [run, &arm](benchmark::State& state) { run(state, arm); })
            ->Arg(backends);
      };
      add("pick", Hot);
      add("cold-pick", Cold)->UseManualTime();
      if (arm.reactors == 1) add("make", Make)->Unit(benchmark::kMicrosecond);
    }
  }
}

}  // namespace
}  // namespace shunt::net

void shunt::bench::RegisterPicks() {
  net::Register();
}
