// SPDX-License-Identifier: Apache-2.0
#include "core/engine.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace shunt {

std::vector<int> AllowedCpus() {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  std::vector<int> allowed;
  if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(static_cast<size_t>(cpu), &cpus)) allowed.push_back(cpu);
    }
  }
  if (allowed.empty()) allowed.push_back(0);
  return allowed;
}

struct Engine::Entry {
  Entry(Engine& its_engine, Listener listener, std::unique_ptr<Guest> guest, uint64_t owner)
      : engine(its_engine), served(std::move(listener), std::move(guest), owner) {}

  Engine& engine;
  ServedListener served;
  size_t reactor_index = 0;
  std::function<void(std::unique_ptr<Guest>)> ended;
};

Engine::Engine(std::span<const Route> routes, Handler other) : dispatch_(routes, other) {}

absl::StatusOr<std::unique_ptr<Engine>> Engine::Start(const EngineOptions& options,
                                                      std::span<const Route> routes, Handler other) {
  const std::vector<int> cpus = AllowedCpus();
  const size_t count = options.reactors > 0 ? static_cast<size_t>(options.reactors) : cpus.size();
  std::unique_ptr<Engine> engine(new Engine(routes, other));
  absl::StatusOr<std::unique_ptr<Journal>> journal = Journal::Create(count);
  if (!journal.ok()) return journal.status();
  engine->journal_ = *std::move(journal);
  for (size_t i = 0; i < count; ++i) {
    auto reactor = std::make_unique<Reactor>(Reactor::Config{
        .index = static_cast<int>(i),
        .cpu = options.pin ? cpus[i % cpus.size()] : -1,
        .dispatch = &engine->dispatch_,
        .control = &engine->control_,
        .journal = engine->journal_.get(),
        .bench = options.make_bench ? options.make_bench() : std::make_unique<Workbench>(),
        .on_thread_start = options.on_reactor_start,
        .on_thread_stop = options.on_reactor_stop,
    });
    if (absl::Status status = reactor->Start(); !status.ok()) return status;
    engine->reactors_.push_back(std::move(reactor));
  }
  engine->load_.assign(count, 0);
  return engine;
}

// Reactors first: nobody may use a listener or a guest any more when they go.
Engine::~Engine() {
  Halt();
  reactors_.clear();
}

// All are told before anybody is waited for: what the next engine waits for is the slowest, and not the sum.
void Engine::Halt() {
  for (const auto& reactor : reactors_) reactor->AskToStop();
  for (const auto& reactor : reactors_) reactor->Stop();
}

ServedListener& Engine::Serve(uint64_t key, Listener listener, std::unique_ptr<Guest> guest, pid_t task,
                              std::function<void(std::unique_ptr<Guest>)> ended) {
  SHUNT_CHECK(key != 0);
  auto entry = std::make_unique<Entry>(*this, std::move(listener), std::move(guest), key);
  entry->ended = std::move(ended);
  const std::vector<size_t> reactors = ReactorsFor(task);
  const size_t place = LeastLoaded(reactors);
  entry->reactor_index = reactors[place];
  ++load_[entry->reactor_index];
  ServedListener& served = entry->served;
  served.gone = {.deliver = OnGone, .context = entry.get()};
  served.resumed = {.deliver = OnResumed, .context = this};
  if (const auto left = left_behind_.extract(key); !left.empty()) {
    served.left_behind = std::move(left.mapped());
    ++resuming_;
  }
  const size_t index = entry->reactor_index;
  served_.insert(std::move(entry));
  // The next one helps.
  Reactor* const helper =
      reactors.size() > 1 ? reactors_[reactors[(place + 1) % reactors.size()]].get() : nullptr;
  reactors_[index]->Add(served, helper);
  return served;
}

// Never none.
std::vector<size_t> Engine::ReactorsFor(pid_t task) const {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  const bool known = task != 0 && sched_getaffinity(task, sizeof(cpus), &cpus) == 0;
  std::vector<size_t> near, all;
  for (size_t i = 0; i < reactors_.size(); ++i) {
    all.push_back(i);
    const int cpu = reactors_[i]->cpu();
    if (known && (cpu < 0 || CPU_ISSET(static_cast<size_t>(cpu), &cpus))) near.push_back(i);
  }
  return near.empty() ? all : near;
}

// Of `reactors`, an index into them. Starts to look somewhere else in each process: engines with one listener
// each (`shunt run`) shall not all use the same CPU.
size_t Engine::LeastLoaded(std::span<const size_t> reactors) const {
  const auto start = static_cast<size_t>(getpid()) % reactors.size();
  size_t best = start;
  for (size_t i = 1; i < reactors.size(); ++i) {
    const size_t candidate = (start + i) % reactors.size();
    if (load_[reactors[candidate]] < load_[reactors[best]]) best = candidate;
  }
  return best;
}

void Engine::OnGone(Message& message) {
  auto& entry = message.about<Entry>();
  Engine& engine = entry.engine;
  --engine.load_[entry.reactor_index];
  if (entry.ended) entry.ended(std::move(entry.served.guest));
  const auto place = std::find_if(engine.served_.begin(), engine.served_.end(),
                                  [&entry](const auto& candidate) { return candidate.get() == &entry; });
  engine.served_.erase(place);
}

void Engine::TakeOver(std::unique_ptr<Journal> left, std::function<void()> finished) {
  journal_->inherited().TakeFrom(left->inherited());
  for (size_t i = 0; i < left->reactors(); ++i) journal_->inherited().TakeFrom(left->counters(i));
  for (JournalRecord* const record : left->Unanswered())
    left_behind_[record->listener.load(std::memory_order_relaxed)].push_back(record);
  inherited_.push_back({.journal = std::move(left), .finished = std::move(finished)});
}

void Engine::NobodyElseIsComing() {
  left_behind_.clear();  // calls of containers that nobody knows any more
  Settle();
}

void Engine::CallRoll(std::function<void()> all_there) {
  if (roll_call_.all_there) return;
  roll_call_.engine = this;
  roll_call_.next = 0;
  roll_call_.all_there = std::move(all_there);
  roll_call_.message = {.deliver = OnCalled, .context = &roll_call_};
  reactors_[0]->Post(roll_call_.message);
}

// On each reactor in turn, and at last on the control thread.
void Engine::OnCalled(Message& message) {
  auto& roll_call = message.about<RollCall>();
  Engine& engine = *roll_call.engine;
  if (++roll_call.next < engine.reactors_.size()) {
    engine.reactors_[roll_call.next]->Post(message);
    return;
  }
  message.deliver = [](Message& back) {
    const std::function<void()> all_there = std::exchange(back.about<RollCall>().all_there, nullptr);
    all_there();
  };
  engine.control_.Push(&message);
}

void Engine::OnResumed(Message& message) {
  auto& engine = message.about<Engine>();
  --engine.resuming_;
  engine.Settle();
}

void Engine::Settle() {
  if (resuming_ != 0 || !left_behind_.empty()) return;
  for (const Inheritance& inheritance : std::exchange(inherited_, {})) inheritance.finished();
}

uint64_t Engine::Sum(Counter counter) const {
  uint64_t sum = journal_->inherited().Read(counter);
  for (const auto& reactor : reactors_) sum += reactor->counters().Read(counter);
  return sum;
}

}  // namespace shunt
