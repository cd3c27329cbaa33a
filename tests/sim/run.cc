// SPDX-License-Identifier: Apache-2.0
// A run: start the engine, bring and take away containers, let everything come to rest, count.

#include "tests/sim/run.h"

#include <deque>
#include <functional>
#include <string>

#include "core/counters.h"
#include "core/fd.h"
#include "handlers/accelerator.h"
#include "net/subnet_set.h"
#include "tests/sim/containers.h"
#include "tests/sim/kernel.h"
#include "tests/sim/places.h"

namespace shunt::sim {
namespace {

// More than any run needs that does come to rest.
constexpr uint64_t kMostSteps = 2'000'000;

class Run {
 public:
  explicit Run(const WorldOptions& options) : world_(options) {
    world_.fault_rate = world_.chance.OneOf<size_t>({12, 40, 150, 1000});
    world_.preemption_rate = world_.chance.OneOf<size_t>({1, 2, 4, 16});
    kernel_.may_load_programs = !world_.chance.OneIn(3);
    kernel_.ignores = world_.chance.OneIn(2);
  }

  RunResult Make();

 private:
  void Control();
  void ServeNext();
  void BringContainer();
  void Work();
  void CheckCounters();
  void CheckDescriptors();
  uint64_t Read(std::string_view counter) const;

  struct Arrival {
    int listener_fd;
    ContainerSpec spec;
  };

  World world_;
  Kernel kernel_;
  Containers containers_;
  Network network_;
  std::unique_ptr<Accelerator> accelerator_;
  std::deque<Arrival> arrivals_;
  size_t brought_ = 0, ended_ = 0;
  bool started_ = false, failed_to_start_ = false, stop_ = false;
  Fiber* control_ = nullptr;
};

// The control thread.
void Run::Control() {
  world_.faults = world_.chance.OneIn(8);
  absl::StatusOr<std::unique_ptr<Accelerator>> made = Accelerator::Start({
      .reactors = world_.chance.OneIn(4) ? 1 : 2,
      .affinity = Affinity::kFloat,
      .on_reactor_start = [] { Fiber::Current()->name = "reactor " + std::to_string(Fiber::Current()->tid); },
  });
  if (!made.ok() && !world_.faults)
    world_.Wrong("no start: %s", std::string(made.status().message()).c_str());
  started_ = true;
  failed_to_start_ = !made.ok();
  world_.faults = !world_.chance.OneIn(5);
  if (failed_to_start_) return;
  accelerator_ = std::move(*made);
  while (!stop_) {
    Fiber::Pause([this] {
      const FileRef events = kernel_.engine_table->Get(accelerator_->event_fd());
      return stop_ || !arrivals_.empty() || (events->Ready() & POLLIN) != 0;
    });
    if (!arrivals_.empty()) ServeNext();
    accelerator_->HandleEvents();
  }
  accelerator_.reset();
}

void Run::ServeNext() {
  Arrival arrival = std::move(arrivals_.front());
  arrivals_.pop_front();
  const absl::StatusOr<std::string> served =
      accelerator_->Serve(Fd(arrival.listener_fd), std::move(arrival.spec), [this] { ++ended_; });
  if (!served.ok()) world_.Wrong("a listener is refused: %s", std::string(served.status().message()).c_str());
}

// A new container, or another listener of one that is there (what is executed in it later has its own).
void Run::BringContainer() {
  Chance& luck = world_.chance;
  const uint64_t netns = 2 + luck.Below(2);
  const bool told = !luck.OneIn(3);
  const std::string name = "container " + std::to_string(++brought_);
  auto listener = std::make_shared<ListenerFile>();
  listener->filter = containers_.Start(netns, name, /*hidden=*/luck.OneIn(3));
  ContainerSpec spec{.name = name, .exact_traps = !luck.OneIn(3)};
  if (told) {
    for (const auto& [tid, task] : kernel_.tasks) {
      if (task->filter == listener->filter) spec.pid = tid;
    }
  }
  if (luck.OneIn(2) && kernel_.may_load_programs)
    spec.publish.push_back({.host_port = kPublishedHostPort, .port = kPublishedPort});
  if (kernel_.ignores && !spec.ignore.Add(*net::ParseSubnet(kIgnored))) world_.Wrong("no room");
  arrivals_.push_back({kernel_.engine_table->Add(std::move(listener), true), std::move(spec)});
}

void Run::Work() {
  const size_t containers = 1 + world_.chance.Below(5);
  const uint64_t calls = 20 + world_.chance.Below(200);
  world_.AddActor(containers_);
  world_.AddActor(network_);
  const uint64_t end = world_.steps + 20'000;
  while (containers_.calls() < calls && world_.steps < end) {
    if (brought_ < containers || kernel_.tasks.empty()) BringContainer();
    const uint64_t until = world_.steps + 200 + world_.chance.Below(500);
    world_.RunUntil([&] { return world_.steps >= until || kernel_.tasks.empty(); }, kMostSteps);
  }
}

uint64_t Run::Read(std::string_view counter) const {
  for (const Accelerator::CounterValue& value : accelerator_->Counters()) {
    if (value.text.name == counter) return value.value;
  }
  return 0;
}

void Run::CheckCounters() {
  const auto must_be = [this](std::string_view counter, uint64_t value) {
    if (Read(counter) == value) return;
    world_.Wrong("the engine counts %llu %s; it is %llu", static_cast<unsigned long long>(Read(counter)),
                 std::string(counter).c_str(), static_cast<unsigned long long>(value));
  };
  must_be("received", kernel_.received);
  must_be("answered", kernel_.answered);
  must_be("gone", kernel_.failed_receives + kernel_.failed_sends);
  must_be("waits_ended", Read("waits_begun"));
}

void Run::CheckDescriptors() {
  if (!kernel_.mappings.empty()) world_.Wrong("%zu mappings are left", kernel_.mappings.size());
  for (const auto& [number, descriptor] : kernel_.engine_table->open) {
    world_.Wrong("%zu descriptors are left open; the first is %d, %s", kernel_.engine_table->open.size(),
                 number, descriptor.file->kind());
  }
}

RunResult Run::Make() {
  control_ = &world_.Spawn("control", kernel_.engine_table, [this] { Control(); });
  if (!world_.RunUntil([this] { return started_; }, kMostSteps))
    world_.Wrong("the engine hangs at its start");
  RunResult result;
  if (!failed_to_start_) {
    Work();
    // Sometimes they end in the middle of their calls, and the network has nothing more to say.
    const bool abruptly = world_.chance.OneIn(3);
    if (abruptly) {
      containers_.EndAll();
      world_.RemoveActor(network_);
    }
    containers_.Settle();
    network_.Settle();
    if (!world_.RunUntil([this] { return containers_.Waiting() == nullptr; }, kMostSteps)) {
      const Task& task = *containers_.Waiting();
      world_.Wrong("call %llu of task %d is never answered", static_cast<unsigned long long>(task.inside->id),
                   task.tid);
    }
    containers_.EndAll();
    if (!world_.RunUntil([this] { return ended_ == brought_; }, kMostSteps))
      world_.Wrong("%zu of %zu listeners are never given back", brought_ - ended_, brought_);
    CheckCounters();
    result.calls = containers_.calls();
    for (size_t i = 0; i < kCounterCount; ++i) result.counters[i] = accelerator_->Counters()[i].value;
    stop_ = true;
  }
  if (!world_.RunUntil([this] { return control_->finished(); }, kMostSteps))
    world_.Wrong("the engine hangs at its end");
  CheckDescriptors();
  result.steps = world_.steps;
  return result;
}

}  // namespace

RunResult RunSeed(const WorldOptions& options) {
  Run run(options);
  return run.Make();
}

}  // namespace shunt::sim
