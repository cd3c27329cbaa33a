// SPDX-License-Identifier: Apache-2.0
// The scheduler: picks what goes on next, keeps the last steps for the report.

#include "tests/sim/world.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace shunt::sim {
namespace {

World* the_world = nullptr;
constexpr size_t kTraceLines = 400;
constexpr size_t kFiberWeight = 6;

}  // namespace

World::World(const WorldOptions& options) : chance(options.seed), options_(options), trace_(kTraceLines) {
  the_world = this;
}

World::~World() {
  the_world = nullptr;
}

World& World::Get() {
  return *the_world;
}

Fiber& World::Spawn(const std::string& name, std::shared_ptr<FdTable> table, std::function<void()> body) {
  fibers_.push_back(std::make_unique<Fiber>(name, next_tid_++, std::move(table), std::move(body)));
  return *fibers_.back();
}

void World::KillFibers() {
  Trace("the engine is killed");
  fibers_.clear();
  life_ = std::make_shared<char>();
  next_tid_ = kEnginePid;
  ForgetThreads();
}

bool World::Step() {
  std::vector<std::pair<size_t, Fiber*>> fibers;
  std::vector<std::pair<size_t, Actor*>> actors;
  size_t total = 0;
  for (const auto& fiber : fibers_) {
    if (fiber->ready()) fibers.emplace_back(total += kFiberWeight, fiber.get());
  }
  for (Actor* actor : actors_) {
    if (const size_t weight = actor->Weight(); weight > 0) actors.emplace_back(total += weight, actor);
  }
  if (total == 0 || (!deadlines_.empty() && !time_stands_still && chance.OneIn(40))) return AdvanceClock();
  const size_t picked = chance.Below(total);
  for (const auto& [end, fiber] : fibers) {
    if (picked < end) return fiber->Resume(), true;
  }
  for (const auto& [end, actor] : actors) {
    if (picked < end) return actor->Act(), true;
  }
  return true;
}

// To the next moment that somebody waits for. False: nobody does.
bool World::AdvanceClock() {
  if (deadlines_.empty()) return false;
  const auto next = std::min_element(deadlines_.begin(), deadlines_.end());
  uint64_t& now = Kernel::Get().now;
  now = std::max(now, *next);
  deadlines_.erase(next);
  return true;
}

bool World::RunUntil(const std::function<bool()>& done, uint64_t most) {
  for (uint64_t count = 0; !done(); ++count) {
    if (count == most) Wrong("no rest after %llu steps", static_cast<unsigned long long>(most));
    ++steps;
    if (!Step()) return done();
  }
  return true;
}

void World::Enter(const char* call, long long first, long long second) {
  Trace("%s %lld %lld", call, first, second);
  if (chance.OneIn(preemption_rate)) Fiber::Pause({});
}

int World::Fault(std::initializer_list<int> errors) {
  if (!faults || !chance.OneIn(fault_rate)) return 0;
  const int error = chance.OneOf(errors);
  Trace("  fails: errno %d", error);
  return error;
}

void World::Trace(const char* format, ...) {
  std::array<char, 200> text;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text.data(), text.size(), format, arguments);
  va_end(arguments);
  const Fiber* const fiber = Fiber::Current();
  std::string& line = trace_[trace_next_++ % kTraceLines];
  line = std::to_string(steps) + " " + (fiber != nullptr ? fiber->name : "-") + ": " + text.data();
  if (options_.trace) std::puts(line.c_str());
}

void World::Wrong(const char* format, ...) {
  std::array<char, 300> text;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text.data(), text.size(), format, arguments);
  va_end(arguments);
  PrintReport(text.data());
  std::fflush(stdout);
  _exit(1);
}

void World::PrintReport(const char* what) const {
  if (!options_.trace) {
    for (size_t i = trace_next_ < kTraceLines ? 0 : trace_next_ - kTraceLines; i < trace_next_; ++i) {
      std::puts(trace_[i % kTraceLines].c_str());
    }
  }
  std::printf("seed %llu: %s\nrepeat it with: %s\n", static_cast<unsigned long long>(options_.seed), what,
              options_.command.c_str());
}

}  // namespace shunt::sim
