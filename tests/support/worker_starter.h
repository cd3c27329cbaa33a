// SPDX-License-Identifier: Apache-2.0
// WorkerStarter: gives an Accelerator in a test's process its workers, as the starter does in the real thing.

#pragma once

#include <sys/types.h>

#include <vector>

#include "handlers/accelerator.h"

namespace shunt {

class WorkerStarter : public Custodian {
 public:
  // Ends those that are left.
  ~WorkerStarter() override;

  void HoldContainer(uint64_t, std::span<const int>) override {}
  void DropContainer(uint64_t) override {}
  void HoldJournal(int) override {}
  void DropJournal(uint64_t) override {}
  void StartWorker(Fd link) override;

  // All that were ever started.
  const std::vector<pid_t>& workers() const { return workers_; }

 private:
  std::vector<pid_t> workers_;
};

}  // namespace shunt
