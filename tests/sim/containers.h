// SPDX-License-Identifier: Apache-2.0
// Containers: the programs under the filters, and what the outside does to them.
//
// Each step one of their tasks makes a system call, trapped or not, takes an answer, carries out what ADDFD
// asks of it, is interrupted by a signal, or dies. Other threads change the memory and the descriptors that a
// waiting call is about.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/world.h"

namespace shunt::sim {

class Containers final : public Actor {
 public:
  // A filter with its first process. `hidden`: nobody may look into it before its first call.
  std::shared_ptr<Filter> Start(uint64_t netns, const std::string& name, bool hidden);

  size_t Weight() override;
  void Act() override;

  // No more calls are made; those under way go on, and nobody is disturbed any more.
  void Settle() { settling_ = true; }
  void EndAll();
  // A task that waits in a call; nullptr: none does.
  const Task* Waiting() const;
  uint64_t calls() const { return calls_; }

 private:
  bool CanAct(const Task& task) const;
  void TakeAnswer(Task& task);
  void RunNatively(Task& task, const seccomp_data& data);
  void Disturb(const std::shared_ptr<Task>& task);
  void DoSomething(const std::shared_ptr<Task>& task);
  void CallSomething(Task& task);
  void Trap(Task& task, const char* syscall, std::initializer_list<uint64_t> args);
  void MakeSocket(Process& process);
  // An address of somebody else, or one to be bound to or found at oneself.
  enum class Wanted : uint8_t { kOther, kOwn };
  void WriteAddress(Task& task, int family, Wanted wanted);
  int AnyNumber(const Process& process);
  int GoodNumber(const Process& process, TcpState state);
  void ConnectNatively(Task& task, int number, uint64_t address, uint64_t size);
  void NewTask(const Task& parent, bool new_process);
  pid_t FreeTid();

  bool settling_ = false;
  uint64_t calls_ = 0;
};

// What goes on in the networks: connections come about or fail, routes change.
class Network final : public Actor {
 public:
  size_t Weight() override;
  void Act() override;
  void Settle() { settling_ = true; }

 private:
  bool settling_ = false;
};

}  // namespace shunt::sim
