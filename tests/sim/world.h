// SPDX-License-Identifier: Apache-2.0
// World: one simulated run. The seed, the fibers, the scheduler, the faults, the trace, and what is told when
// something is wrong.

#pragma once

#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/chance.h"
#include "tests/sim/fiber.h"
#include "tests/sim/kernel.h"

namespace shunt::sim {

// Something besides the fibers that can go on: containers, the network, a ring, the clock.
class Actor {
 public:
  virtual ~Actor() = default;
  // How likely it is to be the next; 0: nothing to do.
  virtual size_t Weight() = 0;
  virtual void Act() = 0;
};

struct WorldOptions {
  uint64_t seed = 1;
  bool trace = false;   // print each step as it is made
  std::string command;  // repeats this run
};

class World {
 public:
  explicit World(const WorldOptions& options);
  ~World();
  static World& Get();

  Fiber& Spawn(const std::string& name, std::shared_ptr<FdTable> table, std::function<void()> body);
  // All fibers end where they are. Only from the scheduler.
  void KillFibers();
  // Expires when the engine is killed.
  std::weak_ptr<char> EngineLife() const { return life_; }
  void AddActor(Actor& actor) { actors_.push_back(&actor); }
  void RemoveActor(Actor& actor) { std::erase(actors_, &actor); }
  // Makes steps until `done`, or until nothing can go on. Stops the program with a report after `most` steps.
  // True if `done`.
  bool RunUntil(const std::function<bool()>& done, uint64_t most);
  // The earliest time that somebody waits for; 0: nobody does.
  void WaitsUntil(uint64_t time) { deadlines_.push_back(time); }
  void WaitsNoLonger(uint64_t time) {
    const auto found = std::find(deadlines_.begin(), deadlines_.end(), time);
    if (found != deadlines_.end()) deadlines_.erase(found);
  }

  // On a fiber: the start of a system call. Others may run before it goes on.
  void Enter(const char* call, long long first = -1, long long second = -1);
  // 0, or one of these errors: the call that is being made shall fail.
  int Fault(std::initializer_list<int> errors);

  void Trace(const char* format, ...) __attribute__((format(printf, 2, 3)));
  // Tells what is wrong, how to repeat it and what went before, and ends the program.
  [[noreturn]] void Wrong(const char* format, ...) __attribute__((format(printf, 2, 3)));
  void PrintReport(const char* what) const;

  Chance chance;
  bool faults = false;
  bool time_stands_still = false;  // while anything else can go on
  size_t fault_rate = 50;          // one call in so many fails
  size_t preemption_rate = 4;      // others run before one call in so many
  uint64_t steps = 0;

 private:
  bool Step();
  bool AdvanceClock();

  const WorldOptions options_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Actor*> actors_;
  std::vector<uint64_t> deadlines_;
  std::shared_ptr<char> life_ = std::make_shared<char>();
  int next_tid_ = kEnginePid;
  std::vector<std::string> trace_;
  size_t trace_next_ = 0;
};

// What is known of fibers that are no more: who waits for whom, which locks are held.
void ForgetThreads();

}  // namespace shunt::sim
