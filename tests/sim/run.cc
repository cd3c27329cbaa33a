// SPDX-License-Identifier: Apache-2.0
// A run: start the engine, bring and take away containers, let everything come to rest, count.

#include "tests/sim/run.h"

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

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
constexpr uint64_t kMostSteps = 40'000;

// Keeps what has to outlive an engine, as the keeper does.
class Custody final : public Custodian {
 public:
  void HoldContainer(uint64_t key, std::span<const int> fds) override {
    std::vector<FileRef>& held = containers[key];
    held.clear();
    for (const int fd : fds) held.push_back(Kernel::Get().engine_table->Get(fd));
    last_key = std::max(last_key, key);
  }
  void DropContainer(uint64_t key) override {
    if (containers.erase(key) > 0) ++dropped;
  }
  void HoldJournal(int fd) override { journal = Kernel::Get().engine_table->Get(fd); }
  void DropJournal(uint64_t name) override { journals.erase(name); }
  void StartWorker(Fd) override {}  // no worker ever comes: the simulated containers want none
  void EngineDies() {
    if (journal != nullptr) journals[++last_journal] = std::exchange(journal, nullptr);
  }

  std::map<uint64_t, std::vector<FileRef>> containers;
  std::map<uint64_t, FileRef> journals;  // of engines that are dead
  FileRef journal;                       // of this one
  uint64_t last_key = 1, last_journal = 0;
  size_t dropped = 0;
};

class Run {
 public:
  explicit Run(const WorldOptions& options) : world_(options) {
    world_.fault_rate = world_.chance.OneOf<size_t>({12, 40, 150, 1000});
    world_.preemption_rate = world_.chance.OneOf<size_t>({1, 2, 4, 16});
    kernel_.may_load_programs = !world_.chance.OneIn(3);
    with_kills_ = world_.chance.OneIn(3);
    abruptly_ = world_.chance.OneIn(3);
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

  void TakeOver();
  void KillEngine();
  bool IsHeld(const FileRef& listener) const;

  struct Arrival {
    FileRef listener;
    ContainerSpec spec;
  };

  World world_;
  Kernel kernel_;
  Containers containers_;
  Network network_;
  std::unique_ptr<Accelerator> accelerator_;
  std::deque<Arrival> arrivals_;
  Custody custody_;
  size_t brought_ = 0, kills_ = 0;
  bool with_kills_ = false, abruptly_ = false;
  bool started_ = false, failed_to_start_ = false, stop_ = false;
  Fiber* control_ = nullptr;
};

// The control thread.
void Run::Control() {
  const bool first = kills_ == 0;
  world_.faults = first && world_.chance.OneIn(8);
  absl::StatusOr<std::unique_ptr<Accelerator>> made = Accelerator::Start({
      .reactors = world_.chance.OneIn(4) ? 1 : 2,
      .affinity = Affinity::kFloat,
      .custodian = with_kills_ ? &custody_ : nullptr,
      .first_key = custody_.last_key + 1,
      .on_reactor_start = [] { Fiber::Current()->name = "reactor " + std::to_string(Fiber::Current()->tid); },
  });
  if (!made.ok() && !world_.faults)
    world_.Wrong("no start: %s", std::string(made.status().message()).c_str());
  started_ = true;
  failed_to_start_ = !made.ok();
  world_.faults = !world_.chance.OneIn(5);
  if (failed_to_start_) return;
  accelerator_ = std::move(*made);
  TakeOver();
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

// What an engine before this one has left.
void Run::TakeOver() {
  FdTable& table = *kernel_.engine_table;
  for (const auto& [key, files] : std::map(custody_.containers)) {
    std::vector<Fd> held;
    for (const FileRef& file : files) held.emplace_back(table.Add(FileRef(file), true));
    const auto adopted = accelerator_->Adopt(key, std::move(held), [] {});
    if (!adopted.ok())
      world_.Wrong("a container is not adopted: %s", std::string(adopted.status().message()).c_str());
  }
  for (const auto& [name, file] : std::map(custody_.journals)) {
    const absl::Status status = accelerator_->TakeOver(name, Fd(table.Add(FileRef(file), true)));
    if (!status.ok()) world_.Wrong("a journal is refused: %s", std::string(status.message()).c_str());
  }
  accelerator_->Begin();
}

void Run::ServeNext() {
  Arrival& arrival = arrivals_.front();
  const int listener_fd = kernel_.engine_table->Add(FileRef(arrival.listener), true);
  const absl::StatusOr<std::string> served =
      accelerator_->Serve(Fd(listener_fd), arrival.spec, [this] { custody_.dropped += with_kills_ ? 0 : 1; });
  if (!served.ok()) world_.Wrong("a listener is refused: %s", std::string(served.status().message()).c_str());
  arrivals_.pop_front();
}

bool Run::IsHeld(const FileRef& listener) const {
  return std::any_of(custody_.containers.begin(), custody_.containers.end(),
                     [&](const auto& entry) { return entry.second.front() == listener; });
}

// SIGKILL, anywhere; the next engine begins.
void Run::KillEngine() {
  ++kills_;
  world_.KillFibers();
  kernel_.EngineDies();
  custody_.EngineDies();
  // Its memory has gone with it.
  [[maybe_unused]] const Accelerator* const dead = accelerator_.release();
  if (!arrivals_.empty() && IsHeld(arrivals_.front().listener)) arrivals_.pop_front();
  control_ = &world_.Spawn("control", kernel_.engine_table, [this] { Control(); });
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
  arrivals_.push_back({std::move(listener), std::move(spec)});
}

void Run::Work() {
  const size_t containers = 1 + world_.chance.Below(5);
  const uint64_t calls = 20 + world_.chance.Below(200);
  world_.AddActor(containers_);
  if (!abruptly_) world_.AddActor(network_);
  const uint64_t end = world_.steps + 20'000;
  while (containers_.calls() < calls && world_.steps < end) {
    if (brought_ < containers || kernel_.tasks.empty()) BringContainer();
    const uint64_t until = world_.steps + 200 + world_.chance.Below(500);
    world_.RunUntil([&] { return world_.steps >= until || kernel_.tasks.empty(); }, kMostSteps);
    if (with_kills_ && world_.chance.OneIn(2)) KillEngine();
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
    // Sometimes they end in the middle of their calls, and no peer has ever said a word.
    const uint64_t end = kernel_.now;
    if (abruptly_) {
      world_.time_stands_still = true;
      containers_.EndAll();
    }
    containers_.Settle();
    network_.Settle();
    if (!world_.RunUntil([this] { return containers_.Waiting() == nullptr; }, kMostSteps)) {
      const Task& task = *containers_.Waiting();
      world_.Wrong("call %llu of task %d is never answered", static_cast<unsigned long long>(task.inside->id),
                   task.tid);
    }
    containers_.EndAll();
    if (!world_.RunUntil([this] { return custody_.dropped == brought_; }, kMostSteps))
      world_.Wrong("%zu of %zu listeners are never given back", brought_ - custody_.dropped, brought_);
    // Whoever waits for what cannot come any more is told, instead of waiting for its own time to be over.
    if (abruptly_ && kills_ == 0 && kernel_.now - end > 60'000'000'000)
      world_.Wrong("listeners are given back only when the calls' time is over");
    if (kills_ == 0) CheckCounters();
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
